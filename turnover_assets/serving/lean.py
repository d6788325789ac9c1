"""Look-ups of one series, the hot path: answered from rows that are ready, without any framework.

What belongs here: the shortest way from a request to rows that are ready. What does not: making them ready
(lookups.py), and everything else that can be asked, which takes the ordinary way (answers.py).

Invariants:
    - what is answered here is, byte for byte, what the ordinary way would answer (a test holds that);
    - what is not plainly a look-up of one series goes the ordinary way: other parameters, other formats, keys
      that there are not, callers who may not read, and those some of whose series the challenger answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from turnover_assets.errors import NoSnapshotError
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.follower import Follower
from turnover_assets.serving.formats import FORMATS
from turnover_assets.serving.lookups import Lookups
from turnover_assets.serving.origin import is_known
from turnover_assets.serving.parameters import selectors
from turnover_assets.serving.served import Served

JSON_TYPE = FORMATS["json"].media_type.encode()
AS_JSON = frozenset({b"*/*", JSON_TYPE})
Series = tuple[bytes, ...]


@dataclass(frozen=True)
class LeanRoute:
    """A route, as those who count and log requests look for it."""

    path: str


class LeanLookups:
    """Middleware that answers look-ups of one series; all else goes on.

    Args:
        app: What answers all else.
        follower: Has what is served.
        panel: The panel.
        paths: For each path the name of its look-ups in what is served.
    """

    def __init__(
        self, app: ASGIApp, follower: Follower[Served], panel: PanelSpec, paths: Mapping[str, str]
    ) -> None:
        self._app, self._follower = app, follower
        self._routes = {path: (LeanRoute(path), name) for path, name in paths.items()}
        names = {each.column.name: each.name for each in selectors(panel) if each.table is None}
        self._places = {names[key].encode(): i for i, key in enumerate(panel.keys)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and (found := self._routes.get(scope["path"])) is not None:
            route, name = found
            series = self._series(scope)
            if series is not None and (answer := self._answer(name, series, scope)) is not None:
                scope["route"] = route
                status, headers, body = answer
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        await self._app(scope, receive, send)

    def _series(self, scope: Scope) -> Series | None:
        """The series that a request looks up; None where it asks for anything else."""
        parts = scope["query_string"].split(b"&")
        if len(parts) != len(self._places) or scope["method"] != "GET" or not _may_read(scope):
            return None
        found: list[bytes | None] = [None] * len(parts)
        for part in parts:
            name, _, value = part.partition(b"=")
            place = self._places.get(name)
            if place is None:
                return None
            found[place] = value
        return tuple(value for value in found if value is not None)

    def _answer(
        self, name: str, series: Series, scope: Scope
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
        """Status, headers and body; None where there are no such rows, or not JSON is wanted."""
        known = None
        for header, value in scope["headers"]:
            if header == b"accept" and value not in AS_JSON:
                return None
            if header == b"if-none-match":
                known = value.decode("latin-1")
        try:
            with self._follower.use() as served:
                lookups: Lookups | None = served.lookups.get(name)
                body = lookups.body(series) if lookups else None
        except NoSnapshotError:
            return None
        if lookups is None or body is None:
            return None
        if known is not None and is_known(known, lookups.tag):
            return 304, lookups.headers, b""
        length = (b"content-length", b"%d" % len(body))
        return 200, [*lookups.headers, length, (b"content-type", JSON_TYPE)], body


def _may_read(scope: Scope) -> bool:
    caller = scope["state"].get("caller")
    return caller is not None and "read" in caller.scopes and not caller.ab_share
