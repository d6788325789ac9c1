"""Recognising callers: what a request presents, and how often it may come.

What belongs here: who asks, and what is said to whom is not let in. What does not: the paths that this is
needed for (middleware.py), and each look itself (keyring.py, tokens.py, session.py, peers.py, limits.py).

Invariants:
    - whoever presents something wrong is refused, and never counts as somebody else;
    - a right key is accepted however many wrong ones come, from the same address too;
    - no key or token is logged, or put into an answer.
"""

import logging
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import Scope as ScopeOfServer

from turnover_assets.core.api_keys import PREFIX, Rate, parse_rate
from turnover_assets.serving.access.callers import LOCAL, Caller, unrecognised
from turnover_assets.serving.access.keyring import Keyring, WrongKeyError
from turnover_assets.serving.access.limits import Limits, Standing
from turnover_assets.serving.access.peers import (
    Headers,
    client_of,
    is_forwarded,
    is_loopback,
    is_within,
    limit_name,
    peer_of,
)
from turnover_assets.serving.access.rules import access_rules
from turnover_assets.serving.access.session import Sessions
from turnover_assets.serving.access.tokens import Tokens, WrongTokenError
from turnover_assets.serving.problems import Problem
from turnover_assets.settings import Settings
from turnover_assets.storage.api_keys import ApiKey, KeyStore

log = logging.getLogger(__name__)

CALLERS, STRANGERS = 100_000, 20_000  # whose limits are remembered
WRONG_RATE = Rate(20, 60)  # wrong keys and tokens of an address that are told what is wrong with them


class Access:
    """What callers are recognised by, and how often they came.

    Attributes:
        rules: The settings of access.
        keyring: The keys of the home.
        tokens: What judges OIDC tokens; None where none are accepted.
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


def _too_many(standing: Standing, detail: str, remedy: str) -> Problem:
    wait = max(1, standing.retry_after)
    headers = {
        "Retry-After": str(wait),
        "RateLimit-Limit": str(standing.limit),
        "RateLimit-Remaining": str(standing.remaining),
        "RateLimit-Reset": str(standing.reset),
    }
    return Problem(429, detail, remedy, headers=headers)
