"""The audit of requests: what was asked by whom, and what was answered, without slowing or failing an answer.

What belongs here: what is recorded of a request. What does not: bringing it to disk (recorder.py), and
recognising callers (access).

A server calls `audit.install(app, settings)` after `access.install`, so that refusals are recorded too.
Routes need do nothing: caller, snapshot and model version are taken from what every answer carries. A route
that predicts may add to its row: `audit.note(request, role="challenger", predictions=8)`.

An answer costs the making of one tuple; a thread writes them every few seconds (recorder.py).

Never recorded are headers, so neither keys, tokens nor cookies; whatever looks like one in an address or body
is blanked, and so are fields of forms that hold secrets.
"""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_plus

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnover_assets.serving.blanking import blanked
from turnover_assets.serving.recorder import Recorder
from turnover_assets.serving.request_ids import request_id, with_id
from turnover_assets.settings import Settings
from turnover_assets.storage.audit import Row

UNRECORDED = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
LONGEST_QUERY = 4096
TEXTS = (b"json", b"text/", b"x-www-form-urlencoded", b"csv")


class AuditMiddleware:
    """Records each request once it is answered, and gives it an id.

    Args:
        app: What is behind it.
        recorder: Where rows go.
        body_bytes: How many bytes of a body are kept.
        clock: Gives seconds that never go back.
    """

    def __init__(
        self,
        app: ASGIApp,
        recorder: Recorder,
        body_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app, self._recorder, self._body_bytes, self._clock = app, recorder, body_bytes, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and record that."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._ending(send))
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            await self._record(scope, receive, send)

    async def _record(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(scope, receive, send, self._body_bytes)
        began, at = self._clock(), time.time_ns() // 1000
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception:
            exchange.status = exchange.status or 500  # which is answered further out
            raise
        finally:
            if scope["path"] not in UNRECORDED or exchange.status >= 400:
                self._recorder.add(exchange.row(at, (self._clock() - began) * 1000))

    def _ending(self, send: Send) -> Send:
        async def sender(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                self._recorder.close()
            await send(message)

        return sender


class _Exchange:
    """One request with its answer, as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, body_bytes: int) -> None:
        self._scope, self._receive, self._send, self._keep = scope, receive, send, body_bytes
        self._body, self._came, self._sent = b"", 0, 0
        self._snapshot, self._version = "", b""
        self.status = 0  # that of an answer that never began
        self._id = request_id(scope)
        scope["state"]["audit"] = {}

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            part = message.get("body", b"")
            self._came += len(part)
            if len(self._body) < self._keep:
                self._body += part[: self._keep - len(self._body)]
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = with_id(message.get("headers", ()), self._id)
            found = dict(headers)
            self._snapshot = found.get(b"x-turnover-snapshot", b"").decode("latin-1")
            self._version = found.get(b"x-turnover-model-version", b"")
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self._sent += len(message.get("body", b""))
        await self._send(message)

    def row(self, at: int, milliseconds: float) -> Row:
        """The row, in the order of storage.audit.COLUMNS."""
        scope, noted = self._scope, self._scope["state"].get("audit", {})
        caller = scope["state"].get("caller")
        version = noted.get("model_version", int(self._version) if self._version.isdigit() else None)
        return (
            at,
            self._id,
            caller.id if caller else "",
            scope["method"][:20],
            _route_of(scope),
            blanked(scope["path"][:LONGEST_QUERY]),
            blanked(_query_of(scope["query_string"])),
            self._text() if noted.get("keep_body", True) else "",
            self._came,
            self.status,
            milliseconds,
            self._sent,
            self._snapshot,
            version,
            noted.get("role", "champion" if version is not None else ""),
            noted.get("predictions"),
            0,
        )

    def _text(self) -> str:
        """The beginning of the body, where it is text."""
        if not self._body:
            return ""
        kind = next((value for name, value in self._scope["headers"] if name == b"content-type"), b"json")
        if not any(text in kind.lower() for text in TEXTS):
            return ""
        text = self._body.decode("utf-8", "replace").replace("\0", "")
        return blanked(unquote_plus(text) if b"form" in kind else text)


def note(request: Request, **facts: Any) -> None:
    """Add facts to the row of a request.

    Args:
        request: The request.
        **facts: `role` (champion or challenger), `model_version` where it is not that of the answer's header,
            `predictions` (how many), `keep_body` (False where the body holds what must not be kept).
    """
    request.scope["state"].setdefault("audit", {}).update(facts)


def install(app: FastAPI, settings: Settings) -> None:
    """Record the requests of an application; `app.state.audit` is what records them."""
    recorder = Recorder(settings.audit_path, settings.audit_flush_seconds)
    app.state.audit = recorder
    app.add_middleware(AuditMiddleware, recorder=recorder, body_bytes=settings.audit_body_bytes)


def _route_of(scope: Scope) -> str:
    """The path of the route as it is written, with the prefix that its router was included by."""
    included = scope.get("fastapi", {}).get("effective_route_context")
    return str(getattr(included, "path_format", "") or getattr(scope.get("route"), "path", ""))


def _query_of(query: bytes) -> str:
    text = query[:LONGEST_QUERY].decode("latin-1")
    return unquote_plus(text).replace("\0", "") if "%" in text or "+" in text else text
