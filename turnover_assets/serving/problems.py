"""Errors of the API as problem documents (RFC 9457) that name the field and the remedy.

What belongs here: the document and how each error becomes one. What does not: when something is an error.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - the standard's name
    """A request that is not answered as asked.

    Args:
        status: HTTP status.
        detail: What is wrong, in a sentence.
        remedy: What the caller can do about it.
        field: The parameter or field of the body that is wrong; empty where none is.
        headers: Headers of the answer, for example Retry-After.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        remedy: str,
        field: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.remedy, self.field = status, detail, remedy, field
        self.headers = dict(headers or {})

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        problems = [{"field": self.field, "detail": self.detail}] if self.field else []
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "remedy": self.remedy,
            "problems": problems,
        }

    def response(self) -> Response:
        """The answer."""
        return JSONResponse(self.document(), self.status, self.headers, MEDIA_TYPE)
