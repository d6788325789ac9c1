"""What if: the form and its answer.

What belongs here: what the form offers, and showing the answer. What does not: what the form asks
(questions.py), and the answer itself (dashboard/what_if.py).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from turnover_assets.core.templating import Records
from turnover_assets.errors import QuestionError
from turnover_assets.panel import Column, PanelSpec
from turnover_assets.serving import audit
from turnover_assets.serving.access import require, session
from turnover_assets.serving.dashboard.charts import Band, Chart, Line
from turnover_assets.serving.dashboard.members import title
from turnover_assets.serving.dashboard.questions import ahead, asked, attributes, measures
from turnover_assets.serving.dashboard.rendering import Reader, Reading
from turnover_assets.serving.dashboard.what_if import WhatIf
from turnover_assets.serving.problems import Problem
from turnover_assets.serving.view import Stop
from turnover_assets.serving.workers import Workers

router = APIRouter()
OFFERED = 1000  # values of a key that are offered
CHOICES = 60  # values of an attribute that are offered
MOST_FIELDS = 200
OF_ONE = ("new-series", "level-guessed")  # what is told of one series among others
SHOWN = ("baseline", "forecast", "lower_80", "upper_80")


@dataclass(frozen=True)
class Result:
    """An answer as the page shows it: sums over the series that were asked for."""

    rows: Records
    series: int
    changes: Sequence[str] = field(default_factory=tuple)
    warnings: Sequence[str] = field(default_factory=tuple)

    @property
    def has_ranges(self) -> bool:
        """Whether there are ranges to show."""
        return all(row["lower_80"] is not None for row in self.rows)

    @property
    def has_baseline(self) -> bool:
        """Whether anything was published to compare it with."""
        return any(row["baseline"] is not None for row in self.rows)

    def sum(self, name: str) -> float | None:
        """The sum of a figure over all periods; None where one of them is not known."""
        values = [row[name] for row in self.rows]
        return None if None in values else float(sum(values))


async def _form(request: Request) -> FormData:
    return await request.form(max_fields=MOST_FIELDS, max_files=0)


@router.get("/what-if", dependencies=[Depends(require("what-if"))])
def what_if_page(reader: Reading) -> Response:
    """The form; an address may fill it in."""
    return _page(reader, dict(reader.request.query_params))


@router.post("/what-if", dependencies=[Depends(require("what-if"))])
async def what_if(request: Request, form: Annotated[FormData, Depends(_form)]) -> Response:
    """The answer, above the form as it was sent."""
    given = {name: value.strip() for name, value in form.items() if isinstance(value, str)}
    session.check_csrf(request, given.pop("csrf", ""))
    workers: Workers = request.app.state.what_if_workers
    try:
        return cast(Response, await workers.run(lambda stop: _answer(request, given, stop)))
    except Problem as problem:  # too many ask at once, or it took too long
        return await asyncio.to_thread(_not_now, request, given, problem)


def _not_now(request: Request, given: Mapping[str, str], problem: Problem) -> Response:
    """The form as it was sent, to be sent again."""
    with request.app.state.follower.use() as shown:
        told = f"{problem.detail} {problem.remedy}"
        return _page(Reader(request, shown), given, problem=told, code=problem.status)


def _answer(request: Request, given: Mapping[str, str], stop: Stop) -> Response:
    answering: WhatIf = request.app.state.what_if
    with request.app.state.follower.use() as shown:
        reader = Reader(request, shown)
        try:
            answer = answering(shown.served, asked(reader.panel, given, reader.formats.locale), stop)
        except QuestionError as error:
            return _page(reader, given, problem=_told(error), code=422)
        except Problem as problem:
            return _page(reader, given, problem=f"{problem.detail} {problem.remedy}", code=problem.status)
        audit.note(request, model_version=answer["model"]["version"], predictions=len(answer["data"]))
        return _page(reader, given, _result(reader.panel, answer))


def _told(error: QuestionError) -> str:
    """What is wrong, after the name of the field that it is wrong in."""
    name = error.field.rpartition(".")[2]
    return f"{'' if name.isdecimal() else f'{title(name)}: '}{error.detail} {error.remedy}"


def _page(
    reader: Reader,
    given: Mapping[str, str],
    result: Result | None = None,
    problem: str = "",
    code: int = 200,
) -> Response:
    return reader.page(
        "what_if",
        "What if",
        "/what-if",
        code,
        keys=reader.panel.series.keys,
        known={key: _known(reader, key) for key in reader.panel.keys},
        attributes=[(column, _choices(reader, column)) for column in attributes(reader.panel)],
        numeric=_measures(reader),
        ahead=ahead(reader.panel),
        periods=_periods(reader),
        given=given,
        result=result,
        chart=_chart(reader, result) if result and result.rows else None,
        problem=problem,
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


def _measures(reader: Reader) -> list[Column]:
    """What an amount may be in proportion to; whole numbers that many share are rather names of groups."""
    return [each for each in measures(reader.panel) if each.type == "number" or _is_ones_own(reader, each)]


def _is_ones_own(reader: Reader, column: Column) -> bool:
    """Whether hardly any two members have the same value of an attribute."""
    keys = next(", ".join(table.keys) for table in reader.panel.static if column in table.columns)
    (counted,) = reader.shown.view.records(
        f'SELECT count(DISTINCT {column.name}) AS own, count(DISTINCT ({keys})) AS members FROM "all series"'
    )
    return bool(2 * counted["own"] >= counted["members"])


def _known(reader: Reader, key: str) -> list[Any]:
    """The values of a series key, those that most series have first."""
    found = reader.shown.view.records(
        f'SELECT {key} AS value FROM "all series" GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {OFFERED}'
    )
    return [row["value"] for row in found]


def _periods(reader: Reader) -> list[date]:
    """The periods to forecast."""
    time = reader.panel.time
    return [
        row["period"]
        for row in reader.shown.view.records(f"SELECT DISTINCT {time} AS period FROM forecasts ORDER BY 1")
    ]


def _result(panel: PanelSpec, answer: Mapping[str, Any]) -> Result:
    """What is shown of an answer: of several series their sum, with ranges where it has some of its own."""
    data, sums = answer["data"], answer["aggregates"]
    series = len({tuple(row[key] for key in panel.keys) for row in data})
    shown = data if series == 1 else sums if len({row["member"] for row in sums}) == 1 else answer["totals"]
    rows = [
        {"period": date.fromisoformat(str(row[panel.time]))} | {name: row.get(name) for name in SHOWN}
        for row in shown
    ]
    for row in rows:
        known = row["baseline"] is not None
        row["difference"] = row["forecast"] - row["baseline"] if known else None
    changes = [_sentence(text) for text in answer["changes"]]
    warnings = [
        _sentence(f"{told['about']}: {told['text']}" if told["kind"] in OF_ONE else told["text"])
        for told in answer["warnings"]
    ]
    return Result(rows, series, changes, list(dict.fromkeys(warnings)))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _chart(reader: Reader, result: Result) -> Chart:
    rows = result.rows
    lines = [Line("forecast", "What would be", [row["forecast"] for row in rows])]
    if result.has_baseline:
        lines.insert(0, Line("last-year", "As published", [row["baseline"] for row in rows]))
    band = Band(
        "band-80",
        reader.formats.range_name(80),
        [row["lower_80"] for row in rows],
        [row["upper_80"] for row in rows],
    )
    formats = reader.formats
    told = f"From {formats.money(rows[0]['forecast'])} to {formats.money(rows[-1]['forecast'])}."
    return Chart(
        "what-if",
        "What would be forecast",
        told,
        [row["period"] for row in rows],
        lines,
        [band] if result.has_ranges else [],
    )
