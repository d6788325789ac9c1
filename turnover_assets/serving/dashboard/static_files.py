"""The stylesheet, the scripts and the icon: read once, compressed once, kept by browsers.

What belongs here: serving the files of static/. What does not: pages.

A page names a file with the fingerprint of its content, so that browsers keep it for ever and have the new
one after an upgrade at once.
"""

import gzip
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from turnover_assets.serving.problems import Problem

PREFIX = "/static/"
TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "LICENSE": "text/plain; charset=utf-8",
}
FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "public, no-cache"


@dataclass(frozen=True)
class StaticFile:
    """A file as it is sent."""

    content: bytes
    compressed: bytes
    media_type: str
    version: str


class StaticFiles:
    """The files of static/, by name."""

    def __init__(self) -> None:
        self._files = dict[str, StaticFile]()
        for entry in files(__package__).joinpath("static").iterdir():
            kind = entry.name.rpartition(".")[2]
            if kind in TYPES:
                content = entry.read_bytes()
                version = sha256(content).hexdigest()[:12]
                packed = gzip.compress(content, mtime=0)
                self._files[entry.name] = StaticFile(content, packed, TYPES[kind], version)

    def address(self, name: str) -> str:
        """The address of a file, which changes with its content."""
        return f"{PREFIX}{name}?v={self._files[name].version}"

    def answer(self, request: Request, name: str) -> Response:
        """The file, or that it has not changed.

        Raises:
            Problem: There is no such file.
        """
        found = self._files.get(name)
        if found is None:
            raise Problem(404, "There is no such file.", "Load the page again.")
        tag = f'"{found.version}"'
        lasting = request.query_params.get("v") == found.version
        headers = {
            "ETag": tag,
            "Cache-Control": FOR_EVER if lasting else ASK_AGAIN,
            "Vary": "Accept-Encoding",
        }
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(found.compressed, headers=headers, media_type=found.media_type)
        return Response(found.content, headers=headers, media_type=found.media_type)
