"""Data quality: what came in, what is missing, what was wrong with it, and what changed afterwards.

What belongs here: what a manager can do something about. What does not: what is done about it
(adjustments.py).
"""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from turnover_assets.core.templating import Records
from turnover_assets.serving.dashboard.members import series_address, series_title
from turnover_assets.serving.dashboard.rendering import Reader, Reading
from turnover_assets.serving.dashboard.shown import Shown

router = APIRouter()
LISTED = 100
STRONGEST = 12  # findings that are shown at once
IN_WORDS = {
    "block": "at another level",
    "point": "a single value far off",
    "zeros": "zeros in place of values",
    "missing": "missing",
    "stopped": "no longer reports",
}


@router.get("/quality")
def quality(reader: Reading) -> Response:
    """All of it on one page."""
    shown, panel = reader.shown, reader.panel
    return reader.page(
        "quality",
        "Data quality",
        "/quality",
        inputs=_newest(shown, "inputs", "made_at"),
        findings=_table(shown, "findings", "ORDER BY strength DESC NULLS LAST, finding_id"),
        kinds=IN_WORDS,
        rejected=_table(shown, "rejected", "ORDER BY file, line, rule"),
        rules=_rules(shown),
        missing=_with_series(reader, _missing(shown)),
        restated=_with_series(
            reader, _table(shown, "restatements", f"ORDER BY landed_at DESC, {panel.time}")
        ),
        refused=_refused(shown),
        checks=_checks(shown),
        counts=_counts(shown),
        strongest=STRONGEST,
    )


def _table(shown: Shown, name: str, order: str) -> Records:
    if not shown.view.has(name):
        return []
    return shown.view.records(f'SELECT * FROM "{name}" {order} LIMIT {LISTED}')


def _newest(shown: Shown, name: str, by: str) -> Mapping[str, Any] | None:
    found = _table(shown, name, f"ORDER BY {by} DESC")
    return found[0] if found else None


def _counts(shown: Shown) -> dict[str, int]:
    tables = shown.facts["tables"]
    found = {
        name: tables[name]["rows"] if name in tables else 0
        for name in ("findings", "rejected", "restatements")
    }
    return found | {"missing": _missing_count(shown)}


def _missing_count(shown: Shown) -> int:
    if not shown.view.has("missing_series"):
        return 0
    return int(
        shown.view.records("SELECT count(*) AS n FROM missing_series WHERE cutoff = $c", {"c": shown.cutoff})[
            0
        ]["n"]
    )


def _missing(shown: Shown) -> Records:
    """Series that were expected in the newest period, those that are silent longest first."""
    if not shown.view.has("missing_series"):
        return []
    return shown.view.records(
        f"SELECT * FROM missing_series WHERE cutoff = $cutoff ORDER BY last_reported, "
        f"{', '.join(shown.panel.keys)} LIMIT {LISTED}",
        {"cutoff": shown.cutoff},
    )


def _with_series(reader: Reader, rows: Records) -> Records:
    """Rows that have series keys, with the title and page of their series."""
    return [
        {**row, "title": series_title(reader.panel, row), "address": series_address(reader.panel, row)}
        for row in rows
    ]


def _rules(shown: Shown) -> Records:
    """How many rows each rule rejected, by file."""
    if not shown.view.has("rejected"):
        return []
    return shown.view.records(
        "SELECT rule, action, file, count(*) AS rows FROM rejected GROUP BY ALL "
        f"ORDER BY rows DESC, file, rule LIMIT {LISTED}"
    )


def _refused(shown: Shown) -> Records:
    """Files that could not be used, those without an accepted one of the same name first."""
    if not shown.view.has("files"):
        return []
    return shown.view.records(
        "SELECT name, reason, landed_at FROM files WHERE status = 'refused' ORDER BY landed_at DESC "
        f"LIMIT {LISTED}"
    )


def _checks(shown: Shown) -> Records:
    """The newest outcome of each check, those that did not pass first."""
    if not shown.view.has("checks"):
        return []
    return shown.view.records(
        "SELECT asset, check_name, max_by(severity, evaluated_at) AS severity, "
        "max_by(figure, evaluated_at) AS figure, max_by(at_least, evaluated_at) AS at_least, "
        "max_by(at_most, evaluated_at) AS at_most, max_by(passed, evaluated_at) AS passed, "
        "max(evaluated_at) AS evaluated_at FROM checks GROUP BY asset, check_name "
        "ORDER BY passed, asset, check_name"
    )
