"""What is seen of each request: its number, how long it took, how it ended; counted and logged.

What belongs here: the outermost middleware. What does not: metrics themselves (metrics.py), and the audit.
"""

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnover_assets.core.log_lines import log_line
from turnover_assets.serving.blanking import blanked
from turnover_assets.serving.metrics import Metrics
from turnover_assets.serving.problems import internal_problem
from turnover_assets.serving.request_ids import request_id, with_id

UNKNOWN_ROUTE = "other"  # paths that are no route; by their own names they would be without number


@dataclass
class Seen:
    """A request and how it went.

    Attributes:
        scope: The request as the server gives it.
        request_id: Its number, the caller's own where it gave one.
        began: When, on a clock that only goes on.
        status: Status of the answer; 0 where the caller left before there was one.
        size: Bytes of the answer's body.
        error: What is wrong with the service, where something is.
    """

    scope: Scope
    request_id: str
    began: float = field(default_factory=time.perf_counter)
    status: int = 0
    size: int = 0
    error: str | None = None

    @property
    def route(self) -> str:
        """The route's path, with placeholders."""
        return getattr(self.scope.get("route"), "path", UNKNOWN_ROUTE)


class Observing:
    """Middleware that gives each request a number, counts it, and logs it; nothing gets out as an exception.

    Args:
        app: What answers.
        metrics: Where requests are counted.
        log: Told of each request once it is answered.
        only_errors: Tell it only of those where something is wrong with the service.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, log: Callable[[Seen, float], None], only_errors: bool
    ) -> None:
        self._app, self._metrics, self._log, self._only_errors = app, metrics, log, only_errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = Seen(scope, request_id(scope))

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                message["headers"] = with_id(message.get("headers", ()), seen.request_id)
            elif message["type"] == "http.response.body":
                seen.size += len(message.get("body", b""))
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, noting)
        except Exception as error:  # noqa: BLE001 - the last that sees it; told in the log, never to the caller
            seen.error = "".join(traceback.format_exception(error))
            if not seen.status:
                await internal_problem(seen.request_id).response()(scope, receive, noting)
        finally:
            self._done(seen)

    def _done(self, seen: Seen) -> None:
        seconds = time.perf_counter() - seen.began
        self._metrics.in_flight.dec()
        self._metrics.count(seen.route, seen.scope["method"], seen.status, seconds)
        if seen.error or not self._only_errors:
            self._log(seen, seconds)


def log_as_json(seen: Seen, seconds: float) -> None:
    """A JSON line for a request."""
    caller = seen.scope["state"].get("caller")
    line = log_line(
        datetime.now(UTC),
        "ERROR" if seen.error else "INFO",
        "request",
        method=seen.scope["method"],
        path=blanked(seen.scope["path"]),
        query=blanked(seen.scope["query_string"].decode("latin-1")) or None,
        route=seen.route,
        status=seen.status,
        seconds=round(seconds, 6),
        bytes=seen.size,
        client=_client(seen.scope),
        caller=caller.id if caller else None,
        request_id=seen.request_id,
        error=seen.error,
    )
    sys.stderr.write(f"{line}\n")


def log_as_text(seen: Seen, seconds: float) -> None:
    """A line for people."""
    query = seen.scope["query_string"].decode("latin-1")
    address = f"{seen.scope['path']}{'?' if query else ''}{query}"
    plain = blanked(address).encode("unicode_escape").decode()  # one line, whatever the caller wrote
    sys.stderr.write(
        f"{_client(seen.scope)} {seen.scope['method']} {plain} {seen.status} {1000 * seconds:.1f} ms "
        f"{seen.size} B {seen.request_id}\n"
    )
    if seen.error:
        sys.stderr.write(seen.error)


def _client(scope: Scope) -> str:
    return str((scope.get("client") or ("-",))[0])
