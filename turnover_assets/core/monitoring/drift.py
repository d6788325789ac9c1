"""Drift: whether what the model is fed, and what it forecasts, is distributed as a year ago.

What belongs here: which samples are compared, and the table monitoring.drift. What does not: the distances
(distances.py), and what follows from them (core/retraining.py, alerts).

Rows of the newest cutoff are compared with those of the cutoff a season earlier, so that season is not drift.
Features that the calendar alone decides, the horizon and the age of a series are left out: the first two are
the same or shift by days, and every series grows older.

The target is compared as models see it, adjusted, so that a defect that was found and mended is no drift.
Each series counts in units of its own mean over both years: large series do not hide small ones and growth
shows, while it is no drift that some grow and others shrink.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core.accuracy import ALL, TOTAL
from turnover_assets.core.adjustments import series_attributes_sql
from turnover_assets.core.aggregates import member_names
from turnover_assets.core.features import Feature, features
from turnover_assets.core.models import Rows
from turnover_assets.core.monitoring.distances import Distance, Floats, distance
from turnover_assets.panel import PanelSpec

FEATURE, TARGET = "feature", "target"
LEFT_OUT = ("calendar", "horizon", "age")  # groups of features; see above


def feature_drift(panel: PanelSpec, rows: Rows, year_ago: Rows, series: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare every feature that may drift.

    Args:
        panel: The panel.
        rows: The scoring rows of the newest cutoff.
        year_ago: Those of the cutoff a season earlier; there may be none.
        series: `series_id`, and the members of each level.

    Returns:
        A row for each feature, as monitoring.drift has them, without the cutoff. A feature that one of the
        two lacks entirely has no distance and counts as not drifted: `missing_share` says so.
    """
    ids = [table.identity["series_id"] for table in (rows, year_ago)]
    found = []
    for feature in features(panel):
        if feature.group not in LEFT_OUT:
            samples = [table.column(feature.name).astype(np.float64) for table in (rows, year_ago)]
            units = [_units(panel, feature, of, series) for of in ids]
            found.append(_row(FEATURE, feature.name, samples, (units[0], units[1])))
    return found


def _units(panel: PanelSpec, feature: Feature, ids: pd.Series, series: pd.DataFrame) -> int:
    """How many independent values a feature has.

    A feature of a level alone has one for each member, one that is known ahead one for each of the keys it is
    given for, and any other one for each series.
    """
    shared = {f"{alias}_{level}": [level] for level in panel.level_names for alias in "ctb"}
    shared |= {f"v_{table.name}": list(table.keys) for table in panel.covariates}
    columns = {name for alias in feature.relations & shared.keys() for name in shared[alias]}
    present = series[series["series_id"].isin(ids)]
    if not feature.relations or feature.relations - shared.keys() - {"p"}:
        return max(1, len(present))
    return max(1, len(present.drop_duplicates(list(columns)))) if columns else 1


def target_drift(con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int) -> list[dict[str, Any]]:
    """Compare the adjusted values of the newest H periods with those of the same periods a season earlier.

    Series that have values on one side only are left out; the features have them.

    Returns:
        A row for the total and for each member of the first level, as monitoring.drift has them, without the
        cutoff; none where nothing was reported a season earlier.
    """
    level, season = panel.level_names[0], panel.frequency.season
    keys = ", ".join(panel.keys)
    rows = con.execute(
        f"WITH compared AS (SELECT {keys}, t > $last - $horizon AS is_new, "
        f"{panel.target}_adjusted AS value FROM cleaned.{panel.series.name} "
        "WHERE (t > $last - $horizon AND t <= $last) "
        "OR (t > $last - $season - $horizon AND t <= $last - $season)), "
        f"scales AS (SELECT {keys}, (avg(abs(value)) FILTER (is_new) "
        f"+ avg(abs(value)) FILTER (NOT is_new)) / 2 AS scale FROM compared GROUP BY {keys}) "
        f"SELECT dense_rank() OVER (ORDER BY {keys}) AS number, a.{level}, is_new, value / scale AS value "
        f"FROM compared JOIN scales USING ({keys}) JOIN ({series_attributes_sql(panel)}) AS a USING ({keys}) "
        f"WHERE scale > 0 AND value IS NOT NULL ORDER BY {keys}, is_new",
        {"last": last, "horizon": panel.horizon, "season": season},
    ).df()
    found = []
    for name, member, part in _members(rows, level):
        samples = [part.loc[part["is_new"] == new, "value"].to_numpy(np.float64) for new in (True, False)]
        numbers = [part.loc[part["is_new"] == new, "number"].nunique() for new in (True, False)]
        units = (max(1, numbers[0]), max(1, numbers[1]))
        found.append(_row(TARGET, panel.target, samples, units) | {"level": name, "member": member})
    return found


def _members(rows: pd.DataFrame, level: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    if len(rows):
        yield TOTAL, ALL, rows
        for member, part in rows.groupby(member_names(rows[level])):
            yield level, str(member), part


def _row(kind: str, name: str, samples: Sequence[Floats], units: tuple[int, int]) -> dict[str, Any]:
    current, reference = samples
    found: Distance = distance(current, reference, units)
    return {
        "kind": kind,
        "name": name,
        "level": TOTAL,
        "member": ALL,
        "psi": found.psi,
        "psi_limit": found.limit,
        "wasserstein": found.wasserstein,
        "rows": len(current),
        "reference_rows": len(reference),
        "mean": _mean(current),
        "reference_mean": _mean(reference),
        "missing_share": _missing(current),
        "reference_missing_share": _missing(reference),
        "is_drifted": found.is_drifted,
    }


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _missing(values: Floats) -> float:
    return float(np.isnan(values).mean()) if len(values) else 1.0


def drifted_share(table: pd.DataFrame) -> float:
    """Share of the features that have a distance that drifted; NaN where none has."""
    judged = table[(table["kind"] == FEATURE) & table["psi"].notna()]
    return float(judged["is_drifted"].astype(bool).mean()) if len(judged) else float("nan")
