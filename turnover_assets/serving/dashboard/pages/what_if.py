"""What if: the form and its answer.

What belongs here: reading the form by the panel's types, and showing the answer. What does not: the answer
itself (dashboard/what_if.py).
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from turnover_assets.errors import TurnoverError
from turnover_assets.panel import Column
from turnover_assets.serving.access import require, session
from turnover_assets.serving.dashboard.charts import Chart, Line
from turnover_assets.serving.dashboard.members import keys_of, no_such
from turnover_assets.serving.dashboard.rendering import Reader, Reading
from turnover_assets.serving.dashboard.what_if import Outcome, Question
from turnover_assets.serving.problems import Problem

router = APIRouter()
LEVELS = (10, 500)  # per cent of the recent history that may be asked for
LONGEST = 200
CHOICES = 60  # values of an attribute that are offered


async def _form(request: Request) -> FormData:
    return await request.form(max_fields=100, max_files=0)


@router.get("/what-if", dependencies=[Depends(require("what-if"))])
def what_if_page(reader: Reading) -> Response:
    """The form."""
    _answering(reader)
    return _page(reader, dict(reader.request.query_params))


@router.post("/what-if", dependencies=[Depends(require("what-if"))])
def what_if(request: Request, reader: Reading, form: Annotated[FormData, Depends(_form)]) -> Response:
    """The answer, above the form as it was sent."""
    answering = _answering(reader)
    given = {name: value.strip() for name, value in form.items() if isinstance(value, str)}
    session.check_csrf(request, given.pop("csrf", ""))
    try:
        question = _question(reader, given)
        outcomes = list(answering.ask(reader.shown.view.snapshot, question))
    except Problem as problem:
        return _page(reader, given, problem=f"{problem.detail} {problem.remedy}", status=problem.status)
    except TurnoverError as error:
        return _page(reader, given, problem=str(error).splitlines()[0], status=503)
    return _page(reader, given, outcomes)


def _answering(reader: Reader) -> Any:
    found = reader.request.app.state.what_if
    if found is None:
        raise no_such("What would be cannot be asked here.")
    return found


def _page(
    reader: Reader,
    given: Mapping[str, str],
    outcomes: list[Outcome] | None = None,
    problem: str = "",
    status: int = 200,
) -> Response:
    panel = reader.panel
    attributes = [column for table in panel.static for column in table.columns]
    return reader.page(
        "what_if",
        "What if",
        "/what-if",
        status,
        keys=panel.series.keys,
        attributes=[(column, _choices(reader, column)) for column in attributes],
        ahead=[column for table in panel.covariates for column in table.columns],
        given=given,
        outcomes=outcomes,
        chart=_chart(reader, outcomes) if outcomes else None,
        problem=problem,
        limits=LEVELS,
    )


def _choices(reader: Reader, column: Column) -> list[Any]:
    """The values that an attribute has, where they are few."""
    if column.type == "number":
        return []
    found = reader.shown.view.records(
        f'SELECT DISTINCT {column.name} AS value FROM "all series" WHERE {column.name} IS NOT NULL '
        f"ORDER BY 1 LIMIT {CHOICES + 1}"
    )
    return [row["value"] for row in found] if len(found) <= CHOICES else []


def _question(reader: Reader, given: Mapping[str, str]) -> Question:
    panel = reader.panel
    names = [f"key_{key}" for key in panel.keys]
    keys = {}
    if any(given.get(name) for name in names):
        keys = keys_of(panel, {key: given.get(f"key_{key}", "") for key in panel.keys})
    attributes = [column for table in panel.static for column in table.columns]
    ahead = [column for table in panel.covariates for column in table.columns]
    return Question(
        keys,
        _values(given, "of_", attributes),
        _values(given, "ahead_", ahead),
        _level(given.get("level", "")),
    )


def _values(given: Mapping[str, str], prefix: str, columns: list[Column]) -> dict[str, Any]:
    return {
        column.name: _value(column, given[f"{prefix}{column.name}"])
        for column in columns
        if given.get(f"{prefix}{column.name}")
    }


def _value(column: Column, text: str) -> Any:
    try:
        if column.type == "integer":
            return int(text)
        if column.type == "number":
            return float(text.replace(",", "."))
        return text == "true" if column.type == "flag" else text[:LONGEST]
    except ValueError:
        raise Problem(422, f"{text[:50]!r} is no number.", f"Correct {column.name}.", column.name) from None


def _level(text: str) -> float:
    try:
        level = float((text or "100").replace(",", "."))
    except ValueError:
        level = 0.0
    if not LEVELS[0] <= level <= LEVELS[1]:
        raise Problem(422, f"The level is between {LEVELS[0]} and {LEVELS[1]} %.", "Correct it.", "level")
    return level / 100


def _chart(reader: Reader, outcomes: list[Outcome]) -> Chart:
    first, last = outcomes[0], outcomes[-1]
    lines = [Line("forecast", "What would be", [row.forecast for row in outcomes])]
    if any(row.published is not None for row in outcomes):
        lines.insert(0, Line("last-year", "As published", [row.published for row in outcomes]))
    told = f"From {reader.formats.money(first.forecast)} to {reader.formats.money(last.forecast)}."
    return Chart("what-if", "What would be forecast", told, [row.period for row in outcomes], lines)
