"""Errors as pages that say what to do.

What belongs here: turning what goes wrong, in a route or before it, into a page. What does not: when
something is an error.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnover_assets.errors import NoSnapshotError
from turnover_assets.serving.dashboard.rendering import HEADERS, formats_of, render
from turnover_assets.serving.problems import MEDIA_TYPE, UNANSWERABLE, Problem

log = logging.getLogger(__name__)

TITLES = {
    401: "Sign in first",
    403: "This is not for you to do",
    404: "There is no such page",
    409: "Somebody was quicker",
    422: "Something in the form is not right",
    429: "Too many tries",
    500: "Something went wrong here",
    503: "There is nothing to show yet",
}
KEPT_HEADERS = ("retry-after", "www-authenticate", "allow")


def install(app: FastAPI) -> None:
    """Answer every error of a route with a problem document, which Friendly turns into a page."""
    app.add_exception_handler(Problem, _problem)
    for kind in (NoSnapshotError, FileNotFoundError, *UNANSWERABLE):
        app.add_exception_handler(kind, _no_snapshot)
    app.add_exception_handler(HTTPException, _of_framework)
    app.add_exception_handler(RequestValidationError, _invalid)


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _no_snapshot(request: Request, error: Exception) -> Response:
    """Why is for those who run it, on their machine or in their log."""
    log.warning("%s", error)
    nothing = request.app.state.follower.following.snapshot is None
    return Problem(
        503,
        "No forecasts have been published yet."
        if nothing
        else "What is published cannot be read at the moment.",
        "This page shows them by itself once they are there. Whoever runs the forecasts starts them with "
        "`turnover run`; `turnover doctor` says what is the matter.",
        headers={"Retry-After": "30"},
    ).response()


async def _of_framework(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {
        404: ("There is nothing at this address.", "Go on from the overview, or search."),
        405: ("This address cannot be used like that.", "Use the links and buttons of the pages."),
    }
    detail, remedy = details.get(error.status_code, (str(error.detail), "Go back and try again."))
    return Problem(error.status_code, detail, remedy, headers=dict(error.headers or {})).response()


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = ", ".join(sorted({str(issue["loc"][-1]) for issue in error.errors()}))
    return Problem(422, f"Something is missing or wrong: {wrong}.", "Go back, and try again.").response()


def _unexpected(path: str, error: Exception) -> Problem:
    number = uuid4().hex[:8]
    log.error("Error %s at %s", number, path, exc_info=error)
    return Problem(
        500,
        "The page could not be made. Nothing of yours is lost.",
        f"Try again. If it stays so, tell whoever runs the forecasts: error {number}.",
    )


class Friendly:
    """Middleware that answers what nobody expected, and gives browsers pages for problem documents."""

    def __init__(self, app: ASGIApp, owner: FastAPI) -> None:
        self._app, self._owner = app, owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the app does, problems aside."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("app", self._owner)
        answering = _Answering(scope, receive, send)
        try:
            await self._app(scope, receive, answering)
        except Exception as error:
            if answering.has_begun:
                raise
            await _unexpected(scope["path"], error).response()(scope, receive, answering)


class _Answering:
    """Sends on what the app sends, and a page in place of a problem document."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._wants_page = "text/html" in Headers(scope=scope).get("accept", "text/html")
        self._problem: Message | None = None
        self._body = bytearray()
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._wants_page and _is_problem(message):
            self._problem = message
        elif self._problem is None:
            self.has_begun = True
            await self._send(message)
        else:
            self._body.extend(message.get("body", b""))
            if not message.get("more_body"):
                page = _page(Request(self._scope), self._problem, json.loads(bytes(self._body)))
                self._problem, self.has_begun = None, True
                await page(self._scope, self._receive, self._send)


def _is_problem(message: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(MEDIA_TYPE.encode())
        for name, value in message.get("headers", ())
    )


def _page(request: Request, began: Message, document: Mapping[str, Any]) -> Response:
    status = began["status"]
    html = render(
        request,
        "error",
        formats_of(request, request.app.state.panel, 0.0),
        title=TITLES.get(status, "This did not work"),
        place="",
        shown=None,
        notices=[],
        caller=None,
        csrf="",
        can_sign_out=False,
        detail=document["detail"],
        remedy=document["remedy"],
        status=status,
    )
    given = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in began["headers"]]
    kept = {name: value for name, value in given if name in KEPT_HEADERS or name.startswith("ratelimit")}
    return Response(
        html.encode(),
        status,
        {
            **kept,
            **HEADERS,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        },
        "text/html; charset=utf-8",
    )
