"""Answers with rows: which snapshot they come from, whether the caller has them already, format and pages.

What belongs here: from a question to a response. What does not: the questions (routes/), cutting pages
(pages.py), encoding (formats.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.datastructures import QueryParams
from pydantic import BaseModel
from starlette.responses import Response

from turnover_assets.serving import audit
from turnover_assets.serving.access import Caller
from turnover_assets.serving.formats import (
    Format,
    encoded,
    json_document,
    json_rows,
    wanted_format,
    without_nan,
)
from turnover_assets.serving.origin import CACHING, Origin, entity_tag, is_any, is_known
from turnover_assets.serving.pages import (
    Question,
    Token,
    digest_of,
    no_such_page,
    page_of,
    read_token,
)
from turnover_assets.serving.parameters import ROWS_OF_JSON, Given
from turnover_assets.serving.roles import ROLE_HEADER, of_caller, said_role, test_of, version_of
from turnover_assets.serving.served import Served
from turnover_assets.serving.view import Stop, View

NOT_PART_OF_THE_QUESTION = {"own_format", "own_limit", "own_page"}


@dataclass(frozen=True)
class Resource:
    """Rows that can be asked for.

    Attributes:
        name: Last part of its path, and first part of the name of a file of them.
        summary: What it is, in some words.
        description: What a caller should know.
        parameters: The model of its parameters.
        row: The model of a row in JSON.
        ask: The question for what a request says; raises a Problem where that cannot be asked.
        explain_nothing: Raises a Problem where it is an error that there are no rows; else does nothing.
    """

    name: str
    summary: str
    description: str
    parameters: type[Given]
    row: type[BaseModel]
    ask: Callable[[View, Given], Question]
    explain_nothing: Callable[[View, Given], None]


@dataclass(frozen=True)
class Asked:
    """A request for rows.

    Attributes:
        path: Path of its address.
        query: Its parameters as they came.
        accept: Its header Accept.
        known: Its header If-None-Match.
        given: Its parameters, validated.
        caller: Who asks.
    """

    path: str
    query: QueryParams
    accept: str | None
    known: str | None
    given: Given
    caller: Caller | None = None

    def link(self, token: Token) -> str:
        """Address of the page that a token names."""
        others = [(name, value) for name, value in self.query.multi_items() if name != "page"]
        return f"{self.path}?{urlencode([*others, ('page', token.text())])}"


async def answer_rows(request: Request, resource: Resource, given: Given) -> Response:
    """Answer a request for rows, in a thread."""
    asked = Asked(
        path=request.scope.get("root_path", "") + request.scope["path"],
        query=request.query_params,
        accept=request.headers.get("accept"),
        known=request.headers.get("if-none-match"),
        given=given,
        caller=request.state.caller,
    )
    app = request.app
    found, said = await app.state.workers.run(lambda stop: _answer(app, resource, asked, stop))
    audit.note(request, **said)
    return cast(Response, found)


def _answer(
    app: FastAPI, resource: Resource, asked: Asked, stop: Stop
) -> tuple[Response, dict[str, str | int | None]]:
    """The answer, and whose it is, for the audit."""
    given, format_ = asked.given, wanted_format(asked.given.value("format"), asked.accept)
    question_digest = digest_of(resource.name, given.model_dump(exclude=NOT_PART_OF_THE_QUESTION))
    text = given.value("page")
    token = read_token(text, question_digest) if text else None
    with source(app, token.snapshot if token else None) as served:
        question = of_caller(resource.ask, served.view, given, asked.caller)
        tag = entity_tag(served.origin, format_, test_of(asked.caller, given))
        headers = {**served.origin.headers, **CACHING, "ETag": tag}
        unchanged = Response(status_code=304, headers=headers)
        if is_known(asked.known, tag) and not is_any(asked.known):
            return unchanged, {}
        limit = given.value("limit") or _usual_limit(app, format_)
        after = token.after if token else ()
        try:
            table, last = page_of(served.view, question, limit, after, stop)
            if not table.num_rows and not token:
                resource.explain_nothing(served.view, given)
            if is_any(asked.known):
                return unchanged, {}
        except ValueError:
            raise no_such_page(text) from None
        said: dict[str, str | int | None] = {}
        if "role" in table.column_names and table.num_rows:
            headers[ROLE_HEADER] = said_role(set(table["role"].to_pylist()))
            said = {"role": headers[ROLE_HEADER], **version_of(table)}
        following = None
        if last is not None:
            following = asked.link(Token(served.origin.snapshot, question_digest, last))
            headers["Link"] = f'<{following}>; rel="next"'
        return _response(resource, served.origin, format_, without_nan(table), following, headers), said


def _usual_limit(app: FastAPI, format_: Format) -> int:
    most: int = app.state.settings.api_page_rows
    return min(ROWS_OF_JSON, most) if format_.name == "json" else most


def _response(
    resource: Resource,
    origin: Origin,
    format_: Format,
    table: Any,
    following: str | None,
    headers: dict[str, str],
) -> Response:
    if format_.name == "json":
        body = json_document(origin.document(), json_rows(table), following)
    else:
        body = encoded(table, format_)
        name = f"{resource.name}_{origin.cutoff}.{format_.name}"
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(body, headers={**headers, "Content-Type": format_.content_type})


@contextmanager
def source(app: FastAPI, snapshot: str | None) -> Iterator[Served]:
    """What is served: the snapshot in use, or an older one by name.

    Raises:
        NoSnapshotError: There is none yet.
        Problem: The older one is gone.
    """
    with app.state.follower.use() as current:
        if snapshot is None or snapshot == current.origin.snapshot:
            yield current
            return
    with app.state.archive.use(snapshot) as older:
        yield older
