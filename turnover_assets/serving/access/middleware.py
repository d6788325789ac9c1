"""Letting callers in before any route is reached: the middleware.

What belongs here: which paths need a caller, and the order of looks. What does not: recognising callers
(recognition.py).

Invariant: a path is reached by who was recognised, unless it is named as public.
"""

from collections.abc import Collection, Iterable
from urllib.parse import quote

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ScopeOfServer

from turnover_assets.serving.access.callers import LOCAL, Caller, unrecognised
from turnover_assets.serving.access.headers import check_address, limit_headers, read_headers, with_headers
from turnover_assets.serving.access.peers import Headers, client_of, host_name, is_within, peer_of
from turnover_assets.serving.access.recognition import Access
from turnover_assets.serving.access.rules import LOOPBACK_NAMES
from turnover_assets.serving.access.session import check_same_site, cookie_session
from turnover_assets.serving.problems import Problem
from turnover_assets.settings import Settings

DOCS_FILES = "/docs/files"  # scripts of the page /docs
PUBLIC = (
    *("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"),
    *("/docs", "/docs/", "/openapi.json"),
    *(f"{DOCS_FILES}/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")),
)
PROBES = frozenset(PUBLIC[:4])  # asked for by address, whatever the host is called
METRICS = "/metrics"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
EXPOSED = (
    *("X-Request-ID", "X-Turnover-Snapshot", "X-Turnover-Cutoff", "X-Turnover-Model-Version"),
    *("X-Turnover-Data-Version", "X-Turnover-Role", "ETag", "Link"),
    *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After"),
)


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
            await (answer or problem.response())(scope, receive, with_headers(send, ()))
            return
        await self._app(scope, receive, with_headers(send, limit))

    async def _admit(self, scope: ScopeOfServer) -> Iterable[tuple[bytes, bytes]]:
        """Put the caller into the request's state; gives the headers on his limit.

        Raises:
            Problem: He is not let in.
        """
        access = self._access
        check_address(scope)
        if (path := scope["path"]) in PROBES:
            return ()
        headers = read_headers(scope)
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
        return limit_headers(access.count(caller), caller.rate)

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


def _is_ambient(headers: Headers) -> bool:
    """Whether a browser presents the caller by itself, so that pages of other sites could use that."""
    return b"authorization" not in headers and b"x-api-key" not in headers
