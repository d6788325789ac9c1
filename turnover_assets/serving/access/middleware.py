"""Recognising callers before any route is reached: the middleware, and what it goes by.

What belongs here: the order of looks, and what each refusal says. What does not: each look itself
(keyring.py, tokens.py, session.py, peers.py, limits.py).

Invariants:
    - a path is reached by who was recognised, unless it is named as public;
    - whoever presents something wrong is refused, and never counts as somebody else;
    - a right key is accepted however many wrong ones come, from the same address too;
    - no key or token is logged, or put into an answer.
"""

import logging
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from fastapi import FastAPI
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as ScopeOfServer

from turnover_assets.core.api_keys import KEY_LIKE, PREFIX, Rate, parse_rate
from turnover_assets.serving.access.callers import LOCAL, Caller, unrecognised
from turnover_assets.serving.access.keyring import Keyring, WrongKeyError
from turnover_assets.serving.access.limits import Limits, Standing
from turnover_assets.serving.access.peers import (
    Headers,
    client_of,
    host_name,
    is_forwarded,
    is_loopback,
    is_within,
    limit_name,
    peer_of,
)
from turnover_assets.serving.access.rules import LOOPBACK_NAMES, access_rules
from turnover_assets.serving.access.session import Sessions, check_same_site, cookie_session
from turnover_assets.serving.access.tokens import Tokens, WrongTokenError
from turnover_assets.serving.problems import Problem
from turnover_assets.settings import Settings
from turnover_assets.storage.api_keys import ApiKey, KeyStore

log = logging.getLogger(__name__)

PUBLIC = (
    *("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"),
    *("/docs", "/docs/", "/openapi.json"),
)
PROBES = frozenset(PUBLIC[:4])  # asked for by address, whatever the host is called
METRICS = "/metrics"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
CALLERS, STRANGERS = 100_000, 20_000  # whose limits are remembered
WRONG_RATE = Rate(20, 60)  # wrong keys and tokens of an address that are told what is wrong with them
IN_ADDRESS = re.compile(
    rb"(?:^|[?&;])(?:api[_-]?key|x-api-key|access[_-]?token|authorization)=", re.IGNORECASE
)
EXPOSED = (
    *("X-Request-ID", "X-Turnover-Snapshot", "X-Turnover-Cutoff", "X-Turnover-Model-Version"),
    *("X-Turnover-Data-Version", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After"),
)
ONCE = (b"authorization", b"x-api-key", b"host")
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
POLICY = b"content-security-policy"
PAGE_POLICY = b"frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
DATA_POLICY = b"default-src 'none'; frame-ancestors 'none'"


class Access:
    """What callers are recognised by, and how often they came.

    Attributes:
        rules: The settings of access.
        keyring: The keys of the home.
        sessions: Sessions of the web page.
        problems: What does not work as it should, for the log at the start.
    """

    def __init__(self, settings: Settings) -> None:
        self.rules = access_rules(settings)
        self.keyring = Keyring(KeyStore(settings.keys_path))
        self.tokens = Tokens(self.rules.oidc) if self.rules.oidc else None
        self._settings = settings
        self._sessions: Sessions | None = None
        self._callers, self._strangers = Limits(CALLERS), Limits(STRANGERS)
        self._wrongdoers = Limits(STRANGERS)
        self._rates: dict[str, Rate | None] = {}
        self.wrong: dict[tuple[str, str], int] = {}
        self.limited = {"caller": 0, "stranger": 0, "wrong": 0}

    @property
    def sessions(self) -> Sessions:
        """Sessions of the web page; the secret is read, or made, when they are first used."""
        if self._sessions is None:
            self._sessions = Sessions(self._settings.session_secret_path, self._settings.session_hours * 3600)
            if self._sessions.problem:
                log.warning("%s", self._sessions.problem)
        return self._sessions

    def is_open(self) -> bool:
        """Whether nothing is configured that callers could be recognised by."""
        return not (self.keyring.is_used() or self.tokens or self.rules.user_header)

    def caller_of(self, key: ApiKey) -> Caller:
        """The caller who presents a key."""
        if key.rate not in self._rates:
            self._rates[key.rate] = parse_rate(key.rate) if key.rate else self.rules.rate
        return Caller(key.key_id, key.name, key.scopes, self._rates[key.rate], key.ab_share)

    async def recognise(self, scope: ScopeOfServer, headers: Headers) -> Caller | None:
        """Who asks, without looking at sessions; None where nothing was presented.

        Raises:
            Problem: What was presented is wrong.
        """
        authorization = headers.get(b"authorization")
        if (key := headers.get(b"x-api-key")) is not None:
            return self.caller_of(self._accept(key, scope, headers))
        if authorization is not None:
            kind, _, value = authorization.partition(b" ")
            if kind.lower() != b"bearer":
                raise self._wrong("key", "malformed", "Only the scheme Bearer is known.", scope, headers)
            if self.tokens is None or value.strip().startswith(f"{PREFIX}_".encode()):
                return self.caller_of(self._accept(value.strip(), scope, headers))
            return await self._of_token(value.strip(), scope, headers)
        return self._named_by_proxy(scope, headers) or self._local(scope, headers)

    def sign_in(self, key: str, scope: ScopeOfServer, headers: Headers) -> ApiKey:
        """The key that was entered into a form.

        Raises:
            Problem: It is not accepted.
        """
        return self._accept(key.encode("utf-8", "replace"), scope, headers)

    def count(self, caller: Caller) -> Standing | None:
        """Count a request of a caller against his rate; None where he has none.

        Raises:
            Problem: He has used it up.
        """
        if caller.rate is None:
            return None
        standing = self._callers.take(caller.id, caller.rate)
        if not standing.allowed:
            self.limited["caller"] += 1
            raise _too_many(
                standing,
                f"{caller.name!r} may send {caller.rate} and has used that up.",
                f"Wait {standing.retry_after} s. Whoever runs the service can give a key another --rate.",
            )
        return standing

    def count_stranger(self, scope: ScopeOfServer, headers: Headers) -> None:
        """Count a request of whom nobody is recognised by, against the rate of his address.

        Raises:
            Problem: It is used up.
        """
        if self.rules.rate is not None:
            name = limit_name(self._client(scope, headers))
            standing = self._strangers.take(name, self.rules.rate)
            if not standing.allowed:
                self.limited["stranger"] += 1
                remedy = f"Wait {standing.retry_after} s, or send a key, which has a limit of its own."
                raise _too_many(standing, "Too many requests without a key came from this address.", remedy)

    def collect(self) -> Iterator[Metric]:
        """How things stand, for Prometheus: register this object as a collector."""
        wrong = CounterMetricFamily(
            "turnover_access_wrong", "Keys and tokens that were refused.", labels=("kind", "reason")
        )
        for labels, count in sorted(self.wrong.items()):
            wrong.add_metric(labels, count)
        limited = CounterMetricFamily(
            "turnover_access_limited",
            "Requests refused as too many: of a caller, without a key, or with wrong ones.",
            labels=("limit",),
        )
        for limit, count in self.limited.items():
            limited.add_metric([limit], count)
        yield wrong
        yield limited
        yield GaugeMetricFamily("turnover_access_keys", "API keys in force.", self.keyring.in_force())
        unreadable = float(bool(self.keyring.problem))
        yield GaugeMetricFamily(
            "turnover_access_keys_unreadable", "1 where the file of keys cannot be read.", unreadable
        )

    def _accept(self, key: bytes, scope: ScopeOfServer, headers: Headers) -> ApiKey:
        try:
            return self.keyring.accept(key.decode("ascii", "replace"))
        except WrongKeyError as error:
            raise self._wrong("key", error.reason, str(error), scope, headers) from None

    async def _of_token(self, token: bytes, scope: ScopeOfServer, headers: Headers) -> Caller:
        assert self.tokens is not None
        if (known := self.tokens.known(token)) is None:
            self._stop_guessing(scope, headers)  # a look at a new token costs more than at a key
            try:
                known = await self.tokens.accept(token)
            except WrongTokenError as error:
                raise self._wrong("token", error.reason, str(error), scope, headers) from None
        return Caller(f"oidc:{known.subject}", known.name, known.scopes, self.rules.rate)

    def _named_by_proxy(self, scope: ScopeOfServer, headers: Headers) -> Caller | None:
        rules = self.rules
        name = headers.get(rules.user_header) if rules.user_header else None
        if not name or not name.strip():
            return None
        if not is_within(peer_of(scope), rules.proxies):
            raise self._wrong(
                "user",
                "untrusted",
                f"The header {rules.user_header.decode()} came from an address that is no trusted proxy's.",
                scope,
                headers,
            )
        user = name.decode("utf-8", "replace").strip()[:200]
        return Caller(f"user:{user}", user, rules.user_scopes, rules.rate)

    def _local(self, scope: ScopeOfServer, headers: Headers) -> Caller | None:
        """Whoever uses this machine, where nothing is configured; then servers listen on loopback only."""
        if not self.is_open() or not is_loopback(peer_of(scope)):
            return None
        if is_forwarded(headers):
            raise unrecognised(
                "A proxy passed this on, and without keys only this machine itself is answered to."
            )
        return LOCAL

    def _wrong(self, kind: str, reason: str, detail: str, scope: ScopeOfServer, headers: Headers) -> Problem:
        """The answer to what is wrong: what that is, unless too much from that address was."""
        self.wrong[kind, reason] = self.wrong.get((kind, reason), 0) + 1
        client = self._client(scope, headers)
        standing = self._wrongdoers.take(limit_name(client), WRONG_RATE)
        if not standing.allowed:
            return self._too_wrong(standing)
        if standing.remaining == 0:
            log.warning("Wrong keys or tokens come from %s; its further ones are not looked into.", client)
        return unrecognised(detail)

    def _stop_guessing(self, scope: ScopeOfServer, headers: Headers) -> None:
        standing = self._wrongdoers.look(limit_name(self._client(scope, headers)), WRONG_RATE)
        if not standing.allowed:
            raise self._too_wrong(standing)

    def _too_wrong(self, standing: Standing) -> Problem:
        self.limited["wrong"] += 1
        return _too_many(
            standing,
            "Too many wrong keys or tokens came from this address.",
            f"Wait {standing.retry_after} s, and look at the key: `turnover keys list` shows them.",
        )

    def _client(self, scope: ScopeOfServer, headers: Headers) -> str:
        return client_of(peer_of(scope), headers, self.rules.proxies)


class AccessMiddleware:
    """Lets callers in.

    Args:
        app: What is behind it.
        access: What callers are recognised by.
        public: Paths that need no caller; one that ends in a slash stands for all below it.
        login: Path of the page of signing in, where there is one: sessions are accepted, and browsers are
            led there in place of a refusal.
    """

    def __init__(self, app: ASGIApp, access: Access, public: Collection[str], login: str | None) -> None:
        self._app, self._access, self._login = app, access, login
        everywhere = (*public, login) if login else public
        self._public = frozenset(path for path in everywhere if not path.endswith("/"))
        self._below = tuple(path for path in everywhere if path.endswith("/"))

    async def __call__(self, scope: ScopeOfServer, receive: Receive, send: Send) -> None:
        """Answer, or let another answer, with the headers that every answer has."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        scope.setdefault("state", {})["caller"] = None
        try:
            limit = await self._admit(scope)
        except Problem as problem:
            answer = self._sign_in_page(scope) if problem.status == 401 else None
            await (answer or problem.response())(scope, receive, _with_headers(send, ()))
            return
        await self._app(scope, receive, _with_headers(send, limit))

    async def _admit(self, scope: ScopeOfServer) -> Iterable[tuple[bytes, bytes]]:
        """Put the caller into the request's state; gives the headers on his limit.

        Raises:
            Problem: He is not let in.
        """
        access = self._access
        _check_address(scope)
        if (path := scope["path"]) in PROBES:
            return ()
        headers = _headers(scope)
        self._check_host(headers)
        caller, session = await access.recognise(scope, headers), None
        if self._login and (caller is None or caller is LOCAL) and b"cookie" in headers:
            session = cookie_session(headers, access.sessions)
            key = access.keyring.find(session.key_id) if session else None
            caller, session = (access.caller_of(key), session) if key else (caller, None)
        if path == METRICS:
            caller = self._of_metrics(scope, headers, caller)
        scope["state"]["caller"], scope["state"]["session"] = caller, session
        if caller is None:
            access.count_stranger(scope, headers)
            if path in self._public or path.startswith(self._below):
                return ()
            raise unrecognised()
        if scope["method"] not in SAFE and _is_ambient(headers):
            check_same_site(headers)
        return _limit_headers(access.count(caller), caller.rate)

    def _check_host(self, headers: Headers) -> None:
        """Refuse what was meant for another host: a page elsewhere may have had its own name point here."""
        hosts = self._access.rules.hosts
        if self._access.is_open():
            hosts = hosts | {*LOOPBACK_NAMES}
        name = host_name(headers.get(b"host", b""))
        if hosts and name not in hosts:
            raise Problem(
                421,
                f"This service is not called {name[:100]!r}.",
                "Use its own name or, on its machine, http://localhost; other names are set by "
                "TURNOVER_ALLOWED_HOSTS.",
                "Host",
            )

    def _of_metrics(self, scope: ScopeOfServer, headers: Headers, caller: Caller | None) -> Caller:
        """Who reads the metrics: with the scope admin, or from a network that may.

        Raises:
            Problem: He may not.
        """
        rules = self._access.rules
        if caller is not None and "admin" in caller.scopes:
            return caller
        if is_within(client_of(peer_of(scope), headers, rules.proxies), rules.metrics_networks):
            return caller or Caller("metrics", "metrics", frozenset())
        if caller is None:
            raise unrecognised("Metrics need a key, from this address.")
        raise Problem(
            403,
            f"Metrics need the scope 'admin', which {caller.name!r} has not.",
            "Use a key with --scope admin, or name the network of Prometheus in TURNOVER_METRICS_NETWORKS.",
        )

    def _sign_in_page(self, scope: ScopeOfServer) -> RedirectResponse | None:
        """Where a browser is led that nobody has signed in with; None where that would not help."""
        accepted = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        if not self._login or scope["method"] not in ("GET", "HEAD") or b"text/html" not in accepted:
            return None
        wanted = scope["path"] + (
            f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
        )
        return RedirectResponse(f"{self._login}?next={quote(wanted, safe='')}", 303)


def install(
    app: FastAPI, settings: Settings, *, public: Collection[str] = PUBLIC, login: str | None = None
) -> None:
    """Let only callers in who are recognised; `app.state.access` is what they are recognised by.

    Args:
        app: The application.
        settings: The settings.
        public: Paths that need no caller; one that ends in a slash stands for all below it.
        login: Path of the page of signing in, for a web page; see session.py.

    Raises:
        TurnoverError: Settings of access cannot be used.
    """
    access = Access(settings)
    app.state.access = access
    app.add_middleware(AccessMiddleware, access=access, public=public, login=login)
    if access.rules.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=access.rules.origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "X-API-Key", "X-Request-ID"),
            expose_headers=EXPOSED,
        )


def _headers(scope: ScopeOfServer) -> dict[bytes, bytes]:
    """The headers by name; those on which access rests may come once only."""
    found: dict[bytes, bytes] = dict(scope["headers"])
    if len(found) < len(scope["headers"]):
        names = [name for name, _ in scope["headers"]]
        for name in ONCE:
            if names.count(name) > 1:
                text = name.decode()
                raise Problem(400, f"The header {text} came more than once.", "Send it once.", text)
        chains = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if chains:
            found[b"x-forwarded-for"] = b",".join(chains)
    return found


def _check_address(scope: ScopeOfServer) -> None:
    """Refuse a key in the address: it would stay in histories and in the logs of proxies."""
    query: bytes = scope["query_string"]
    plain = unquote_to_bytes(query) if b"%" in query else query
    if IN_ADDRESS.search(query) or KEY_LIKE.search(plain.decode("latin-1") + " " + scope["path"]):
        # Whoever logs this request afterwards, logs no key.
        path = KEY_LIKE.sub("[blanked]", scope["path"])
        scope.update(path=path, raw_path=quote(path).encode(), query_string=b"")
        raise Problem(
            400,
            "A key or token stands in the address.",
            "Send it in the header X-API-Key or as Authorization: Bearer. If it was a right one, replace it "
            "with `turnover keys rotate`: addresses are kept in logs.",
            "X-API-Key",
        )


def _is_ambient(headers: Headers) -> bool:
    """Whether a browser presents the caller by itself, so that pages of other sites could use that."""
    return b"authorization" not in headers and b"x-api-key" not in headers


def _too_many(standing: Standing, detail: str, remedy: str) -> Problem:
    wait = max(1, standing.retry_after)
    headers = {
        "Retry-After": str(wait),
        "RateLimit-Limit": str(standing.limit),
        "RateLimit-Remaining": str(standing.remaining),
        "RateLimit-Reset": str(standing.reset),
    }
    return Problem(429, detail, remedy, headers=headers)


def _limit_headers(standing: Standing | None, rate: Rate | None) -> tuple[tuple[bytes, bytes], ...]:
    if standing is None or rate is None:
        return ()
    return (
        (b"ratelimit-limit", b"%d" % standing.limit),
        (b"ratelimit-policy", b"%d;w=%d" % (rate.requests, rate.seconds)),
        (b"ratelimit-remaining", b"%d" % standing.remaining),
        (b"ratelimit-reset", b"%d" % standing.reset),
    )


def _with_headers(send: Send, more: Iterable[tuple[bytes, bytes]]) -> Send:
    """Sends answers with the headers that every one has, where the application has not set its own."""

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: list[Any] = [*message.get("headers", ()), *more]
            names = {name for name, _ in headers}
            headers += [pair for pair in SECURITY_HEADERS if pair[0] not in names]
            if POLICY not in names:
                page = any(name == b"content-type" and b"html" in value for name, value in headers)
                headers.append((POLICY, PAGE_POLICY if page else DATA_POLICY))
            message = {**message, "headers": headers}
        await send(message)

    return sender
