"""The page of a member of a level: its history and forecast, and what it is made of.

What belongs here: what is shown of a member. What does not: single series (series.py).
"""

from fastapi import APIRouter
from starlette.responses import Response

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.serving.dashboard import history, lists
from turnover_assets.serving.dashboard.accuracy_words import Accuracy, level_accuracy
from turnover_assets.serving.dashboard.members import member_address, member_title, no_such
from turnover_assets.serving.dashboard.pages.downloads import csv_answer
from turnover_assets.serving.dashboard.rendering import Reader, Reading
from turnover_assets.serving.dashboard.shown import Member

router = APIRouter()
PARTS_LISTED = 100


@router.get("/member")
def member_page(reader: Reading, level: str = "", name: str = "") -> Response:
    """A member of a level."""
    found = _member(reader, level, name)
    past = history.member_history(reader.shown, level, name)
    series = _its_series(reader, found)
    return reader.page(
        "member",
        found.title,
        f"level:{level}",
        member=found,
        above=reader.shown.total,
        chart=history.chart(reader.panel, past, reader.formats, f"{reader.panel.target}, {found.title}"),
        history=past,
        error=history.error_of(past.past),
        accuracy=level_accuracy(reader.shown, level).get(name, Accuracy()),
        nested=_nested(reader, found),
        series=series[:PARTS_LISTED],
        series_count=len(series),
        columns=lists.columns(reader.panel.frequency.every, reader.panel.horizon),
        download=member_address(level, name).replace("/member?", "/member.csv?"),
    )


@router.get("/member.csv")
def member_csv(reader: Reading, level: str = "", name: str = "") -> Response:
    """All that the page of a member shows over time."""
    if level != TOTAL or name:
        _member(reader, level, name)
    past = history.member_history(reader.shown, level, name)
    return csv_answer(f"{level}_{name}" if name else level, past.csv(reader.panel.time))


def _member(reader: Reader, level: str, name: str) -> Member:
    found = reader.shown.member(level, name) if level in reader.panel.level_names else None
    if found is None:
        raise no_such(f"{member_title(level[:100], name[:100])!r} is not forecast.")
    return found


def _its_series(reader: Reader, member: Member) -> list[lists.Row]:
    keys = ", ".join(reader.panel.keys)
    return lists.series_rows(
        reader.shown,
        f'({keys}) IN (SELECT ({keys}) FROM "its members" WHERE level = $level AND member = $member)',
        {"level": member.level, "member": member.name},
    )


def _nested(reader: Reader, member: Member) -> list[tuple[str, list[lists.Row]]]:
    """Levels whose members lie wholly within this one, such as the stores of a region; with their rows."""
    keys = ", ".join(reader.panel.keys)
    found = reader.shown.view.records(
        f'WITH own AS (SELECT {keys} FROM "its members" WHERE level = $level AND member = $member) '
        f"SELECT level, member, bool_and(({keys}) IN (SELECT ({keys}) FROM own)) AS within "
        'FROM "its members" '
        f"WHERE level <> $level AND level <> '{TOTAL}' AND (level, member) IN (SELECT (level, member) "
        f'FROM "its members" WHERE ({keys}) IN (SELECT ({keys}) FROM own)) GROUP BY level, member',
        {"level": member.level, "member": member.name},
    )
    nested = list[tuple[str, list[lists.Row]]]()
    for level in reader.panel.level_names:
        rows = [row for row in found if row["level"] == level]
        if len(rows) > 1 and all(row["within"] for row in rows):
            names = {row["member"] for row in rows}
            members = [m for m in reader.shown.members[level].values() if m.name in names]
            if len(members) > 1:
                nested.append((level, [lists.member_row(m) for m in members[:PARTS_LISTED]]))
    return nested
