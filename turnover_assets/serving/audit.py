"""The audit of requests: what was asked by whom, and what was answered, without slowing or failing an answer.

What belongs here: what is recorded of a request, and the queue and thread that bring it to disk. What does
not: the files (storage/audit.py), and recognising callers (access).

A server calls `audit.install(app, settings)` after `access.install`, so that refusals are recorded too.
Routes need do nothing: caller, snapshot and model version are taken from what every answer carries. A route
that predicts may add to its row: `audit.note(request, role="challenger", predictions=8)`.

An answer costs the making of one tuple. A thread writes them every few seconds. What waits is bounded in
number and bytes; beyond it rows are dropped and counted, by a metric and, once it can be written again, by a
row of the audit itself. Where the folder cannot be written, the rows wait, and are written once it can be.

Never recorded are headers, so neither keys, tokens nor cookies; whatever looks like one in an address or body
is blanked, and so are fields of forms that hold secrets.
"""

import logging
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote_plus

from fastapi import FastAPI
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnover_assets.core.api_keys import KEY_LIKE
from turnover_assets.settings import Settings
from turnover_assets.storage.audit import Row, dropped_row, write_rows

log = logging.getLogger(__name__)

UNRECORDED = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
LARGEST_ROWS, LARGEST_BYTES = 100_000, 64 << 20  # that wait to be written
ENOUGH_ROWS = 20_000  # at which the thread does not wait for its time
CLOSING_SECONDS = 10.0
LONGEST_QUERY = 4096
SANE_ID = re.compile(rb"[0-9A-Za-z][0-9A-Za-z._-]{7,127}")
# Each looks at a place of the text a bounded number of times, so that no text takes long.
TOKEN_LIKE = re.compile(r"(?<![\w-])eyJ[\w-]+(?:\.[\w-]*){1,4}")
SECRET_FIELD = re.compile(
    r"((?:^|[&?;])[^=&;]{0,40}(?:key|token|secret|passw|csrf)[^=&;]{0,40}=)[^&;]*", re.IGNORECASE
)
SECRET_MEMBER = re.compile(
    r'("[^"]{0,40}(?:api.?key|token|secret|passw)[^"]{0,40}"\s{0,9}:\s{0,9})"(?:[^"\\]|\\.)*"?',
    re.IGNORECASE,
)
BLANK = "[blanked]"
TEXTS = (b"json", b"text/", b"x-www-form-urlencoded", b"csv")
ID_HEADER = b"x-request-id"


class Recorder:
    """Brings rows to disk in a thread of its own.

    Args:
        folder: Folder of the audit.
        flush_seconds: Time after which a row is on disk at the latest.
        largest_rows: How many rows may wait.
        largest_bytes: How many bytes may.

    Attributes:
        recorded: Rows that are on disk.
        dropped: Rows that were dropped.
        problem: Why rows cannot be written; empty where they can.
    """

    def __init__(
        self,
        folder: Path,
        flush_seconds: float,
        largest_rows: int = LARGEST_ROWS,
        largest_bytes: int = LARGEST_BYTES,
    ) -> None:
        self._folder, self._flush_seconds = folder, flush_seconds
        self._largest_rows, self._largest_bytes = largest_rows, largest_bytes
        self._queue: deque[Row] = deque()
        self._pending: list[Row] = []  # what could not be written yet
        self._bytes_in = self._bytes_out = 0  # each is written by one thread only
        self._told = 0  # dropped rows that the audit itself tells of
        self._wake, self._stop = Event(), Event()
        self._thread: Thread | None = None
        self.recorded = self.dropped = 0
        self.problem = ""

    @property
    def waiting(self) -> int:
        """How many rows are not on disk yet."""
        return len(self._queue) + len(self._pending)

    def add(self, row: Row) -> None:
        """Record a row, or count it as dropped; returns at once."""
        if self.waiting >= self._largest_rows or self._bytes_in - self._bytes_out >= self._largest_bytes:
            self.dropped += 1
            return
        self._bytes_in += _size(row)
        self._queue.append(row)
        if self._thread is None:  # only now, since a server may fork before its first request
            self._thread = Thread(target=self._work, name="audit", daemon=True)
            self._thread.start()
        if len(self._queue) >= ENOUGH_ROWS and not self.problem:
            self._wake.set()

    def flush(self) -> None:
        """Write what waits; only for the thread, and for who has stopped it."""
        while self._queue:
            self._pending.append(self._queue.popleft())
        rows, dropped = self._pending, self.dropped
        if dropped > self._told:
            rows = [*rows, dropped_row(time.time_ns() // 1000, dropped - self._told)]
        if not rows:
            return
        done = 0
        try:
            for done in write_rows(self._folder, rows):  # noqa: B007
                pass
            self._told = dropped
            self._went_well()
        except Exception as error:  # noqa: BLE001  (whatever it is, answers go on, and so does trying)
            self._failed(error)
        written = self._pending[:done]
        self._bytes_out += sum(_size(row) for row in written)
        self.recorded += len(written)
        self._pending = self._pending[done:]

    def close(self) -> None:
        """Write what waits, and end."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)
            self._thread = None

    def collect(self) -> Iterator[Metric]:
        """How things stand, for Prometheus: register this object as a collector."""
        yield CounterMetricFamily("turnover_audit_rows", "Rows of the audit on disk.", self.recorded)
        yield CounterMetricFamily("turnover_audit_dropped", "Rows dropped under overload.", self.dropped)
        yield GaugeMetricFamily("turnover_audit_waiting", "Rows that wait to be written.", self.waiting)
        failing = float(bool(self.problem))
        yield GaugeMetricFamily("turnover_audit_failing", "1 where the audit cannot be written.", failing)

    def _work(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self._flush_seconds)
            self._wake.clear()
            self.flush()
        self.flush()  # what came while it was writing

    def _went_well(self) -> None:
        if self.problem:
            log.warning("The audit is written again; %d rows were dropped so far.", self.dropped)
        self.problem = ""

    def _failed(self, error: Exception) -> None:
        if not self.problem:
            log.error("The audit cannot be written: %s. Answers go on; rows wait, then are dropped.", error)
        self.problem = str(error) or type(error).__name__


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
        given = next((value for name, value in scope["headers"] if name == ID_HEADER), b"")
        self._id = given if SANE_ID.fullmatch(given) and not _holds_secret(given) else _new_id()
        scope.setdefault("state", {})["request_id"] = self._id.decode()
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
            headers = [*message.get("headers", ()), (ID_HEADER, self._id)]
            for name, value in headers:
                if name == b"x-turnover-snapshot":
                    self._snapshot = value.decode("latin-1")
                elif name == b"x-turnover-model-version":
                    self._version = value
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
            self._id.decode(),
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


def blanked(text: str) -> str:
    """A text without what looks like a key, a token, or the value of a field that holds a secret."""
    if not text:
        return text
    text = TOKEN_LIKE.sub(BLANK, KEY_LIKE.sub(BLANK, text))
    return SECRET_MEMBER.sub(rf'\1"{BLANK}"', SECRET_FIELD.sub(rf"\1{BLANK}", text))


def _route_of(scope: Scope) -> str:
    """The path of the route as it is written, with the prefix that its router was included by."""
    included = scope.get("fastapi", {}).get("effective_route_context")
    return str(getattr(included, "path_format", "") or getattr(scope.get("route"), "path", ""))


def _query_of(query: bytes) -> str:
    text = query[:LONGEST_QUERY].decode("latin-1")
    return unquote_plus(text).replace("\0", "") if "%" in text or "+" in text else text


def _holds_secret(given: bytes) -> bool:
    text = given.decode("ascii")
    return blanked(text) != text


def _new_id() -> bytes:
    return secrets.token_hex(16).encode()


def _size(row: Row) -> int:
    return 200 + len(row[5]) + len(row[6]) + len(row[7])
