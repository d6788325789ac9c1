"""Errors of the API as problem documents (RFC 9457) that name the field, its value and the remedy.

What belongs here: the document, and how each kind of error becomes one. What does not: when something is an
error.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any

import duckdb
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from turnover_assets.errors import NoSnapshotError

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5  # after which it is worth to ask again for what is not there yet
UNANSWERABLE = (duckdb.IOException, duckdb.CatalogException, duckdb.BinderException)  # of a damaged snapshot
LONGEST_VALUE = 100  # characters of a wrong value that are told


class WrongField(BaseModel):
    """A parameter or a field of the body that is wrong."""

    field: str = Field(description="The parameter, or the path to the field of the body.", examples=["stor"])
    detail: str = Field(
        description="What is wrong with it.", examples=["There is no parameter stor. Did you mean store?"]
    )
    value: str | None = Field(None, description="What was given, if anything was.", examples=["8"])


class ProblemDocument(BaseModel):
    """Why a request was not answered as asked (RFC 9457)."""

    type: str = Field(description="Always `about:blank`: the status says what kind of problem it is.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, in a sentence.")
    remedy: str = Field(description="What the caller can do about it.")
    problems: list[WrongField] = Field(description="Everything that is wrong with the request, by field.")


class Problem(Exception):  # noqa: N818 - the standard's name
    """A request that is not answered as asked.

    Args:
        status: HTTP status.
        detail: What is wrong, in a sentence.
        remedy: What the caller can do about it.
        field: The parameter or field of the body that is wrong; empty where none is.
        headers: Headers of the answer, for example Retry-After.
        value: What was given for the field; None where nothing was.
        others: More that is wrong: (field, detail, value).
    """

    def __init__(
        self,
        status: int,
        detail: str,
        remedy: str,
        field: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        value: object = None,
        others: Iterable[tuple[str, str, object]] = (),
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.remedy, self.field = status, detail, remedy, field
        self.headers = dict(headers or {})
        self.fields = [*([(field, detail, value)] if field else []), *others]

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        problems = [
            {"field": field, "detail": detail} | ({} if value is None else {"value": _shown(value)})
            for field, detail, value in self.fields
        ]
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


def internal_problem(request_id: str) -> Problem:
    """The answer where something is wrong with the service itself; what, is only in its log."""
    return Problem(
        500,
        "Something is wrong with the service, not with the request.",
        f"Tell whoever runs the service; its log says more under the request id {request_id}.",
    )


def busy_problem(detail: str, remedy: str, seconds: int = RETRY_SECONDS) -> Problem:
    """The answer where the same request may succeed later."""
    return Problem(503, detail, remedy, headers={"Retry-After": str(seconds)})


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint to the known name that is nearest to one that is not known; empty where none is near.

    Example:
        >>> nearest("stor", ["store", "week"])
        ' Did you mean store?'
    """
    near = get_close_matches(name, known, 1)
    return f" Did you mean {near[0]}?" if near else ""


def install(app: FastAPI) -> None:
    """Let every error of routes and of the framework be a problem document."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_the_framework)
    app.add_exception_handler(NoSnapshotError, _no_snapshot)
    for kind in UNANSWERABLE:
        app.add_exception_handler(kind, _unanswerable)


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _no_snapshot(_request: Request, error: Exception) -> Response:
    """Nothing is in use; why, is told by /readyz to those who run the service."""
    del error
    return busy_problem(
        "No forecasts can be served yet: nothing is published, or what is cannot be read.",
        "Ask again in a while; /readyz tells whoever runs the service what is the matter.",
    ).response()


async def _unanswerable(request: Request, error: Exception) -> Response:
    """Files of the snapshot are gone or broken, or of a release that published other columns."""
    log.error("What is served cannot answer %s: %s", request.url.path, error)
    return busy_problem(
        "The snapshot that is served cannot answer this: files of it are gone, or an earlier release "
        "published them.",
        "Ask again in a while; whoever runs the service can publish a new one with `turnover run`.",
        seconds=60,
    ).response()


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = [_wrong(request, issue) for issue in error.errors()]
    first, others = wrong[0], wrong[1:]
    detail = (
        first[1] if not others else f"{len(wrong)} things are wrong with the request; the first: {first[1]}"
    )
    remedy = "Correct what `problems` names and ask again; /docs lists every parameter and field."
    return Problem(422, detail, remedy, others=wrong).response()


def _wrong(request: Request, issue: Mapping[str, Any]) -> tuple[str, str, object]:
    """Field, detail and value of an issue of the validation."""
    place = [str(part) for part in issue["loc"]]
    field = ".".join(place[1:]) or place[0]
    if issue["type"] == "json_invalid":
        return "body", f"The body is no JSON: {issue['ctx']['error']}.", None
    if issue["type"] == "extra_forbidden":
        hint = nearest(place[-1], list(known_parameters(request))) if place[0] == "query" else ""
        return field, f"There is no {_kind(place[0])} {field}.{hint}", issue["input"]
    given = None if issue["type"] == "missing" else issue["input"]
    what = issue["msg"].removeprefix("Value error, ")
    return field, f"The {_kind(place[0])} {field} cannot be used: {what}.", given


def _kind(place: str) -> str:
    return {"query": "parameter", "path": "part of the path", "header": "header"}.get(place, "field")


def known_parameters(request: Request) -> dict[str, bool]:
    """Names of the query parameters that the route of a request takes, and whether each may be repeated."""
    path = getattr(request.scope.get("route"), "path", "")
    operation = request.app.openapi()["paths"].get(path, {}).get(request.method.lower(), {})
    found = [each for each in operation.get("parameters", []) if each["in"] == "query"]
    return {each["name"]: each["schema"].get("type") == "array" for each in found}


async def check_query(request: Request) -> None:
    """A dependency of all routes: refuses what their models do not.

    Raises:
        Problem: A parameter is repeated that may not be, or the route takes no parameters at all.
    """
    given = [name for name, _ in request.query_params.multi_items()]
    known = known_parameters(request) if given else {}
    repeated = [name for name in known if given.count(name) > 1 and not known[name]]
    wrong = [(name, f"The parameter {name} came more than once.") for name in repeated]
    if not known:
        wrong = [(name, f"There is no parameter {name}; this takes none.") for name in given]
    if wrong:
        (name, detail), *others = wrong
        remedy = "Name each parameter once, and only those that /docs lists."
        raise Problem(422, detail, remedy, name, others=[(*each, None) for each in others])


async def _of_the_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        paths = list(request.app.openapi()["paths"])
        detail = f"There is nothing at {_shown(request.url.path)}.{nearest(request.url.path, paths)}"
        return Problem(404, detail, "/docs lists what there is.", headers=headers).response()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = headers.get("Allow", headers.get("allow", "other methods"))
        detail = f"{request.method} is not possible at {request.url.path}."
        return Problem(405, detail, f"Use {allowed}.", headers=headers).response()
    detail = f"The request cannot be answered: {error.detail}."
    return Problem(error.status_code, detail, "/docs says what can be asked.", headers=headers).response()


def _shown(value: object) -> str:
    """A value as text, shortened; what cannot be encoded is replaced."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
