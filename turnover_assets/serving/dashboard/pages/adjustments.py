"""Adjustments: what was repaired or might be, before and after, and a steward's word on it.

What belongs here: showing adjustments, and taking decisions on them from those who may. What does not: what
follows from a decision (core/adjustments.py), and entering it (storage/stewardship.py).
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from turnover_assets.core.adjustments import STATUSES, Adjustment
from turnover_assets.core.calendar import label_of
from turnover_assets.core.templating import Records
from turnover_assets.errors import LedgerError, NoSnapshotError, TurnoverError
from turnover_assets.serving.access import require, session
from turnover_assets.serving.dashboard import history
from turnover_assets.serving.dashboard.charts import Chart, Line
from turnover_assets.serving.dashboard.members import no_such
from turnover_assets.serving.dashboard.rendering import Reader, Reading
from turnover_assets.serving.problems import Problem
from turnover_assets.storage.stewardship import (
    DecidedMeanwhileError,
    Word,
    coming_adjustments,
    enter_if_unchanged,
    published_adjustments,
)

router = APIRouter()
AROUND = timedelta(days=364)  # shown before and after the periods concerned
LONGEST_REASON, LONGEST_NAME = 500, 100
IN_WORDS = {
    "applied": "repaired",
    "proposed": "not repaired: too little evidence",
    "vetoed": "not repaired: somebody says that it is right",
    "overruled": "somebody decided on all of it by hand",
}


class Entry:
    """An adjustment on a page.

    Attributes:
        adjustment: As it stands after the next run.
        is_new: Whether what is published does not have it so yet.
        since: First period concerned.
        until: Last one; None where it goes on.
        selector: What is concerned.
    """

    def __init__(self, reader: Reader, adjustment: Adjustment, is_new: bool) -> None:
        self.adjustment, self.is_new = adjustment, is_new
        self.since = label_of(reader.panel, adjustment.since)
        self.until = None if adjustment.until is None else label_of(reader.panel, adjustment.until)
        where = [f"{name.replace('_', ' ')} {value}" for name, value in adjustment.where.items()]
        selector = ", ".join(where) or "all series"
        self.selector = selector[:1].upper() + selector[1:]


@router.get("/adjustments")
def adjustments(reader: Reading, status: str = "", entered: str = "") -> Response:
    """All adjustments, as they will stand after the next run."""
    entries, problem = _entries(reader)
    counts = Counter(entry.adjustment.status for entry in entries)
    chosen = status if status in STATUSES else ""
    return reader.page(
        "adjustments",
        "Adjustments",
        "/adjustments",
        entries=[entry for entry in entries if chosen in ("", entry.adjustment.status)],
        statuses=[(name, IN_WORDS[name], counts[name]) for name in STATUSES],
        status=chosen,
        problem=problem,
        entered=next((entry for entry in entries if entry.adjustment.adjustment_id == entered), None),
        words=IN_WORDS,
        may_decide=reader.may("adjust"),
    )


@router.get("/adjustment")
def adjustment(reader: Reading, id: str) -> Response:  # noqa: A002
    """One adjustment, before and after."""
    return _adjustment_page(reader, id)


@router.post("/adjustment", dependencies=[Depends(require("adjust"))])
def decide(
    request: Request,
    reader: Reading,
    id: Annotated[str, Form()],  # noqa: A002
    verdict: Annotated[Literal["accept", "veto"], Form()],
    seen: Annotated[str, Form()],
    csrf: Annotated[str, Form()] = "",
    reason: Annotated[str, Form(max_length=LONGEST_REASON)] = "",
    who: Annotated[str, Form(max_length=LONGEST_NAME)] = "",
) -> Response:
    """Enter a decision into the ledger."""
    session.check_csrf(request, csrf)
    if not _is_here(reader):
        raise Problem(409, "The ledger of these forecasts is kept elsewhere.", "Decide where they are made.")
    name = who.strip() if reader.is_local else reader.caller.name
    wrong = _wrong(reason, name)
    if wrong:
        return _adjustment_page(reader, id, wrong, 422, verdict=verdict, reason=reason, who=who)
    known = published_adjustments(reader.shown.view.snapshot, reader.settings)
    found = next((a for a in known if a.adjustment_id == id and a.origin == "detector"), None)
    if found is None:
        raise no_such("This adjustment is not there any more, or it is an entry of the ledger itself.")
    try:
        enter_if_unchanged(reader.settings, known, found, seen, Word(verdict, name, reason.strip()))
    except DecidedMeanwhileError as error:
        return _adjustment_page(reader, id, str(error), 409, verdict=verdict, reason=reason, who=who)
    except TurnoverError as error:
        raise Problem(
            409,
            f"The decision could not be entered. {str(error).splitlines()[0]}",
            "Nothing was changed. Whoever runs the forecasts finds the ledger in order again with "
            "`turnover adjustments check`.",
        ) from None
    return RedirectResponse(f"/adjustments?entered={found.adjustment_id}", 303)


def _is_here(reader: Reader) -> bool:
    """Whether the forecasts are made in this home, so that its ledger is theirs."""
    return reader.settings.served_path == reader.settings.published_path


def _wrong(reason: str, name: str) -> str:
    """What is missing in the form."""
    if not reason.strip():
        return "Say why, so that others can follow your decision later."
    if not reason.isprintable() or not name.isprintable():
        return "Reason and name are single lines of text."
    return "" if name else "Say who you are: your name is kept with the decision."


def _entries(reader: Reader) -> tuple[list[Entry], str]:
    """The adjustments with the ledger as it is now; as published, and why, where it cannot be used."""
    known = published_adjustments(reader.shown.view.snapshot, reader.settings)
    stands = {(a.adjustment_id, a.status) for a in known}
    try:
        coming, problem = coming_adjustments(reader.settings, known), ""
    except (LedgerError, NoSnapshotError) as error:
        coming, problem = known, _first_lines(error)
    return [Entry(reader, a, (a.adjustment_id, a.status) not in stands) for a in coming], problem


def _first_lines(error: Exception) -> str:
    """A problem of the ledger without the path of its file."""
    lines = [line.strip(" -") for line in str(error).splitlines()[1:-1]]
    return "; ".join(lines[:3])


def _adjustment_page(
    reader: Reader, wanted: str, problem: str = "", status: int = 200, **given: str
) -> Response:
    entries, ledger_problem = _entries(reader)
    entry = next((entry for entry in entries if entry.adjustment.adjustment_id == wanted), None)
    if entry is None:
        raise no_such(f"There is no adjustment {wanted[:100]!r}.")
    rows = _before_and_after(reader, entry)
    return reader.page(
        "adjustment",
        f"Adjustment: {entry.selector}",
        "/adjustments",
        status,
        entry=entry,
        chart=_chart(reader, entry, rows),
        rows=[row for row in rows if row["concerned"]],
        words=IN_WORDS,
        problem=problem,
        ledger_problem=ledger_problem,
        given=given,
        may_decide=reader.may("adjust")
        and entry.adjustment.origin == "detector"
        and not ledger_problem
        and _is_here(reader),
        is_here=_is_here(reader),
        asks_name=reader.is_local,
    )


def _before_and_after(reader: Reader, entry: Entry) -> Records:
    """Sums over the series concerned: reported, adjusted as published, and with this repair alone."""
    panel, of = reader.panel, entry.adjustment
    until = entry.until or reader.shown.cutoff
    same = " AND ".join(f"a.{name} = $of_{name}" for name in of.where) or "true"
    keys, target = ", ".join(panel.keys), panel.target
    values: dict[str, Any] = {f"of_{name}": value for name, value in of.where.items()}
    repaired = f"CASE WHEN concerned THEN {_repair_sql(of, target, values)} ELSE {target} END"
    return reader.shown.view.records(
        f"SELECT period, bool_or(concerned) AS concerned, sum({target}) AS reported, "
        f"sum({target}_adjusted) AS adjusted, sum({repaired}) AS repaired FROM ("
        f"SELECT s.{panel.time} AS period, s.{target}, s.{target}_adjusted, "
        f"s.{panel.time} BETWEEN $since AND $until AS concerned FROM {panel.series.name} AS s "
        f'JOIN "all series" AS a USING ({keys}) WHERE {same} AND s.{panel.time} BETWEEN $first AND $last) '
        "GROUP BY period ORDER BY period",
        {
            **values,
            "since": entry.since,
            "until": until,
            "first": entry.since - AROUND,
            "last": min(until + AROUND, reader.shown.cutoff),
        },
    )


def _repair_sql(of: Adjustment, target: str, values: dict[str, Any]) -> str:
    """What the adjustment makes of a value; binds what it needs."""
    if of.remedy == "empty":
        return "NULL"
    name = "factor" if of.remedy == "divide" else "value"
    values[name] = of.factor if of.remedy == "divide" else of.value
    return f"{target} / ${name}" if of.remedy == "divide" else f"${name}"


def _chart(reader: Reader, entry: Entry, rows: Records) -> Chart:
    periods: Sequence[date] = [row["period"] for row in rows]
    lines = [
        Line("adjusted", "After", [row["repaired"] for row in rows]),
        Line("reported", "Before (as reported)", [row["reported"] for row in rows]),
    ]
    until = reader.formats.date(entry.until) if entry.until else "now"
    return Chart(
        "adjustment",
        f"{reader.panel.target} before and after: {entry.selector}",
        f"What is concerned lies between {reader.formats.date(entry.since)} and {until}. The table below has "
        f"both amounts for every {reader.panel.frequency.every} of it.",
        periods,
        lines,
        limit=history.limit(rows, ("repaired",)),
    )
