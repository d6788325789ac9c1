"""Whether what comes in looks like the same time last year: features, and the target itself.

What belongs here: the content of the page's sections on drift. What does not: measuring drift
(core/monitoring/), and saying when it matters (alerts).
"""

from datetime import date
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core.accuracy import TOTAL
from turnover_assets.core.adjustments import series_attributes_sql
from turnover_assets.core.aggregates import member_names
from turnover_assets.core.calendar import index_of
from turnover_assets.core.feature_words import feature_words
from turnover_assets.core.monitoring.tables import DRIFT
from turnover_assets.core.monitoring_page import pictures
from turnover_assets.core.monitoring_page.pictures import Distribution
from turnover_assets.core.tables import has_table
from turnover_assets.core.templating import Records, records
from turnover_assets.panel import PanelSpec

DRAWN = 9  # features whose distribution is shown
SHOWN = 15  # features listed before the others are folded away
BINS = 24
ROUNDING = 1e-9  # of a quantile: two that differ by less are one
LABELS = ("now", "last year")
BY_PSI = "nullif(psi, CAST('nan' AS DOUBLE)) DESC NULLS LAST"  # a distance that is not known comes last
OUTER = (0.01, 0.99)  # quantiles that a feature is drawn between; values beyond count at the ends
MEMBERS = 12  # of a level, the largest drift first
NOW, BEFORE = "features.scoring", "features.year_ago"


def features(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: date) -> dict[str, Any]:
    """What the section on data drift says: every feature, the one that drifted most first."""
    words = feature_words(panel)
    found = records(
        con,
        f"SELECT * FROM {DRIFT} WHERE cutoff = ? AND kind = 'feature' ORDER BY {BY_PSI}, name",
        [cutoff],
    )
    for row in found:
        row["words"] = words.get(row["name"], row["name"])
    drawn = [row for row in found if row["psi"] is not None][:DRAWN]
    shown = [_distribution(con, row["name"], row["words"]) for row in drawn if row["name"] in words]
    return {
        "rows": found,
        "drifted": sum(bool(row["is_drifted"]) for row in found),
        "largest": max((row["psi"] or 0.0 for row in found), default=0.0),
        "drawn": _drawn(shown) if shown and _is_of(con, panel, cutoff) else None,
        "shown": SHOWN,
    }


def _drawn(found: list[Distribution | None]) -> str | None:
    known = [one for one in found if one is not None]
    return pictures.distributions(known, LABELS) if known else None


def _is_of(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: date) -> bool:
    """Whether the feature rows at hand are those of the cutoff."""
    if not (has_table(con, NOW) and has_table(con, BEFORE)):
        return False
    found = con.execute(f"SELECT max(cutoff) FROM {NOW}").fetchall()[0][0]
    return bool(found == index_of(panel, cutoff))


def _distribution(con: duckdb.DuckDBPyConnection, name: str, words: str) -> Distribution | None:
    """How a feature is distributed in the rows at hand; None where neither side has a value."""
    if not (has_table(con, NOW) and has_table(con, BEFORE)):
        return None
    both = f"SELECT {name} AS x, 1 AS now FROM {NOW} UNION ALL SELECT {name}, 0 FROM {BEFORE}"
    known = f"FROM ({both}) WHERE x IS NOT NULL AND isfinite(x)"
    low, high = con.execute(
        f"SELECT quantile_cont(x, {OUTER[0]}), quantile_cont(x, {OUTER[1]}) {known}"
    ).fetchall()[0]
    if low is None:
        return None
    width = (high - low) / BINS if high - low > ROUNDING * max(abs(low), abs(high)) else 1.0
    return Distribution(words, *_shares(con, f"SELECT x, now = 1 AS now {known}", low, width))


def _shares(
    con: duckdb.DuckDBPyConnection, sql: str, low: float, width: float
) -> tuple[list[float], list[float], list[float]]:
    """Edges, and the shares of rows now and before in each bin, of SQL with `x` and `now`."""
    place = f"CAST(greatest(0, least({BINS - 1}, floor((x - $low) / $width))) AS INTEGER)"
    counts = np.zeros((2, BINS))
    for now, bin_, rows in con.execute(
        f"SELECT now, {place} AS bin, count(*) FROM ({sql}) GROUP BY ALL", {"low": low, "width": width}
    ).fetchall():
        counts[0 if now else 1, bin_] = rows
    current, reference = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [low + i * width for i in range(BINS + 1)], list(current), list(reference)


def target(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: date, last: int) -> dict[str, Any]:
    """What the section on target drift says: the target's distribution, and its level by member."""
    found = records(
        con,
        f"SELECT * FROM {DRIFT} WHERE cutoff = ? AND kind = 'target' ORDER BY {BY_PSI}, member",
        [cutoff],
    )
    sums = _sums(con, panel, last)
    for row in found:
        row |= sums.get((row["level"], row["member"]), dict.fromkeys(("sum", "sum_before", "change")))
    drawn = _target_distribution(con, panel, last)
    return {
        "total": next((row for row in found if row["level"] == TOTAL), None),
        "levels": [level for name in panel.level_names if (level := _level(found, name))["members"]],
        "drawn": pictures.target(*drawn, LABELS) if drawn else None,
    }


def _sums(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int
) -> dict[tuple[str, str], dict[str, float | None]]:
    """The adjusted sum of each member in the newest H periods and in the same a year ago."""
    level = panel.report_level
    found = con.execute(
        f"SELECT a.{level} AS member, sum({panel.target}_adjusted) FILTER (t > $last - $h) AS sum, "
        f"sum({panel.target}_adjusted) FILTER (t <= $last - $season) AS sum_before "
        f"FROM cleaned.{panel.series.name} "
        f"JOIN ({series_attributes_sql(panel)}) AS a USING ({', '.join(panel.keys)}) WHERE t <= $last "
        "AND (t > $last - $h OR (t > $last - $season - $h AND t <= $last - $season)) GROUP BY ALL",
        {"last": last, "h": panel.horizon, "season": panel.frequency.season},
    ).df()
    by_member = found.assign(member=member_names(found["member"])).set_index("member").astype("float64")
    totals = pd.DataFrame({"": by_member.sum(min_count=1)}).T
    return {
        (name, str(member)): {
            "sum": now,
            "sum_before": before,
            "change": now / before - 1 if before > 0 else None,
        }
        for name, table in ((TOTAL, totals), (level, by_member))
        for member, now, before in zip(table.index, table["sum"], table["sum_before"], strict=True)
    }


def _level(found: Records, level: str) -> dict[str, Any]:
    members = [row for row in found if row["level"] == level]
    shown = members[:MEMBERS]
    frame = [row for row in shown if row["change"] is not None]
    return {
        "level": level,
        "members": shown,
        "count": len(members),
        "largest": max((row["psi"] or 0.0 for row in shown), default=0.0),
        "drawn": pictures.changes(pd.DataFrame(frame)) if frame else None,
    }


def _target_distribution(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int
) -> tuple[Distribution, float] | None:
    """How often each adjusted amount came in the newest H periods and in the same a year ago."""
    season, h = panel.frequency.season, panel.horizon
    rows = (
        f"SELECT {panel.target}_adjusted AS y, t > {last - h} AS now FROM cleaned.{panel.series.name} "
        f"WHERE isfinite({panel.target}_adjusted) AND (t BETWEEN {last - h + 1} AND {last} "
        f"OR t BETWEEN {last - season - h + 1} AND {last - season})"
    )
    scale, least, most = con.execute(
        f"SELECT coalesce(median(abs(y)) FILTER (y <> 0), 1), min(y), max(y) FROM ({rows})"
    ).fetchall()[0]
    if least is None:
        return None
    low, high = float(np.arcsinh(least / scale)), float(np.arcsinh(most / scale))
    binned = f"SELECT asinh(y / {scale!r}) AS x, now FROM ({rows})"
    return Distribution(panel.target, *_shares(con, binned, low, (high - low) / BINS or 1.0)), scale
