"""The page of a series: its history and forecast, and why the forecast is what it is.

What belongs here: what is shown of a single series. What does not: sums (member.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from turnover_assets.core.explanation_words import SEASON, YEAR_AGO
from turnover_assets.core.explanations import effect_columns
from turnover_assets.core.templating import Records
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.dashboard import history
from turnover_assets.serving.dashboard.formats import usual_size
from turnover_assets.serving.dashboard.members import (
    keys_of,
    member_address,
    no_such,
    series_query,
    series_title,
    spaced,
)
from turnover_assets.serving.dashboard.pages.downloads import csv_answer
from turnover_assets.serving.dashboard.rendering import Reader, Reading
from turnover_assets.serving.dashboard.shown import relative

router = APIRouter()
# What the groups of effects are called for somebody who runs a business.
WORDS = {
    "level": "Growth over the last 12 months",
    "season": "The season",
    "recent level": "The last weeks",
    "growth": "Recent growth",
    "calendar": "Holidays and the calendar",
    "known ahead": "What is planned ahead",
    "missed": "What forecasts have missed lately",
    "other": "Everything else",
    "bounds": "Limits, such as closed days",
}
UNUSUAL = "Last year was unusual for the season"  # the season, where last year's is in the reference already


@dataclass(frozen=True)
class Reason:
    """A step from the reference to the forecast."""

    title: str
    effect: float


@dataclass(frozen=True)
class Why:
    """Why the forecast of a period is what it is."""

    period: date
    sentence: str
    reference: float
    compared_with: str
    reasons: list[Reason]
    forecast: float


@router.get("/series")
def series_page(request: Request, reader: Reading) -> Response:
    """A series; without keys the list of all."""
    if not request.query_params.keys() - {"lang"}:
        return RedirectResponse("/all", 303)
    keys = keys_of(reader.panel, request.query_params)
    row = _row(reader, keys)
    past = history.series_history(reader.shown, keys)
    title = series_title(reader.panel, row)
    formats = reader.formats.sized(usual_size([each["forecast"] for each in past.ahead]))
    return reader.page(
        "series",
        title,
        "/all",
        formats=formats,
        row=row,
        change=relative(row["forecast"], row["last_year"]),
        chart=history.chart(reader.panel, past, formats, f"{reader.panel.target}, {title}"),
        history=past,
        error=history.error_of(past.past),
        reasons=_reasons(reader, keys),
        memberships=_memberships(reader, row),
        adjusted=_adjusted(reader, keys),
        download=f"/series.csv?{series_query(reader.panel, row)}",
    )


@router.get("/series.csv")
def series_csv(request: Request, reader: Reading) -> Response:
    """All that the page of a series shows over time."""
    keys = keys_of(reader.panel, request.query_params)
    row = _row(reader, keys)
    past = history.series_history(reader.shown, keys)
    return csv_answer(series_title(reader.panel, row), past.csv(reader.panel.time))


def _row(reader: Reader, keys: Mapping[str, Any]) -> dict[str, Any]:
    same = " AND ".join(f"{key} = ${key}" for key in keys)
    found = reader.shown.view.records(f'SELECT * FROM "all series" WHERE {same}', keys)
    if not found:
        raise no_such(f"{series_title(reader.panel, keys)!r} has no history and no forecast.")
    return found[0]


def _memberships(reader: Reader, row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The members that the series is part of: their titles and pages."""
    keys = {key: row[key] for key in reader.panel.keys}
    same = " AND ".join(f"{key} = ${key}" for key in keys)
    found = reader.shown.view.records(f'SELECT level, member FROM "its members" WHERE {same}', keys)
    of = {each["level"]: each["member"] for each in found}
    members = [(level, reader.shown.member(level, of.get(level, ""))) for level in reader.panel.level_names]
    return [(m.title, member_address(level, m.name)) for level, m in members if m is not None]


def _reasons(reader: Reader, keys: Mapping[str, Any]) -> list[Why]:
    same = " AND ".join(f"{key} = ${key}" for key in keys)
    rows: Records = reader.shown.view.records(
        f"SELECT * FROM explanations WHERE {same} ORDER BY horizon", keys
    )
    groups = effect_columns(reader.panel)
    return [_why(reader, row, groups) for row in rows]


def _why(reader: Reader, row: Mapping[str, Any], groups: Mapping[str, str]) -> Why:
    every = reader.panel.frequency.every
    with_year = row["compared_with"] == YEAR_AGO
    effects = [
        Reason(group_title(reader.panel, group, with_year=with_year), row[column])
        for group, column in groups.items()
        if row.get(column) is not None and row[column]
    ]
    effects.sort(key=lambda reason: -abs(reason.effect))
    compared = f"the same {every} last year" if with_year else f"an average {every} of the last 12 months"
    return Why(row[reader.panel.time], row["sentence"], row["reference"], compared, effects, row["forecast"])


def group_title(panel: PanelSpec, group: str, *, with_year: bool) -> str:
    """What a group of effects is called; against last year only what has changed since then has one."""
    if group in panel.level_names:
        return f"The trend of its {spaced(group)}" if with_year else f"Its {spaced(group)}"
    if group == SEASON and with_year:
        return UNUSUAL
    return WORDS.get(group, spaced(group).capitalize()).replace("weeks", f"{panel.frequency.every}s")


def _adjusted(reader: Reader, keys: Mapping[str, Any]) -> Records:
    """Adjustments that changed values of the series."""
    if not reader.shown.view.has("adjustments"):
        return []
    same = " AND ".join(f"{key} = ${key}" for key in keys)
    return reader.shown.view.records(
        "SELECT adjustment_id, selector, since, until, reason FROM adjustments WHERE adjustment_id IN ("
        f"SELECT unnest(string_split(adjustment_id, '+')) FROM {reader.panel.series.name} WHERE {same} "
        "AND adjustment_id IS NOT NULL) ORDER BY since",
        keys,
    )
