"""From a model and scoring rows to the published forecast table.

What belongs here: putting forecasts, bounds and keys together. What does not: judging them (table_rules.py).
"""

import pandas as pd

from turnover_assets.core.aggregates import aggregate
from turnover_assets.core.calendar import label_of
from turnover_assets.core.closures import closed, limited
from turnover_assets.core.intervals import BOUNDS, Intervals
from turnover_assets.core.level_changes import NONE, LevelChanges
from turnover_assets.core.models import Candidate, Rows
from turnover_assets.panel import PanelSpec


def forecast_table(
    panel: PanelSpec,
    candidate: Candidate,
    intervals: Intervals,
    rows: Rows,
    series: pd.DataFrame,
    changes: LevelChanges = NONE,
) -> pd.DataFrame:
    """Forecasts with bounds for scoring rows.

    Args:
        panel: The panel.
        candidate: A fitted model.
        intervals: Its calibrated residual quantiles.
        rows: n scoring rows.
        series: `series_id`, the series keys and, where there are changes, levels.
        changes: What the model has missed since its training.

    Returns:
        A row for each scoring row: the series keys, `cutoff`, the time column, `horizon`, `forecast` and
        the bounds (units of the target, in the scale in force at the cutoff), ordered by keys and horizon.
    """
    predicted = limited(panel, rows, candidate.predict(rows) * changes.of_rows(rows, series))
    table = rows.identity[["series_id", "cutoff", "t", "horizon"]].copy()
    table["forecast"] = predicted * rows.in_force
    bounds = intervals.bounds(rows, predicted, nonnegative=panel.series.target.nonnegative)
    bounds = bounds.mul(rows.in_force, axis=0)
    bounds.loc[closed(panel, rows)] = 0.0
    table = pd.concat([table, bounds], axis=1).merge(series, on="series_id", validate="many_to_one")
    labels = {t: label_of(panel, int(t)) for t in {*table["t"].unique(), *table["cutoff"].unique()}}
    table[panel.time] = table["t"].map(labels)
    table["cutoff"] = table["cutoff"].map(labels)
    table = table.sort_values([*panel.keys, "horizon"]).reset_index(drop=True)
    return table[[*panel.keys, "cutoff", panel.time, "horizon", "forecast", *BOUNDS]]


def aggregate_table(
    panel: PanelSpec, intervals: Intervals, table: pd.DataFrame, rows: Rows, series: pd.DataFrame
) -> pd.DataFrame:
    """Sums of forecasts by level and in total, with bounds of their own.

    Args:
        panel: The panel.
        intervals: Calibrated on sums as well.
        table: What forecast_table gave for the rows.
        rows: The scoring rows.
        series: `series_id`, the series keys and levels.

    Returns:
        `level` (`total` or a level's name), `member`, `cutoff`, the time column, `horizon`, `forecast` and
        bounds (units of the target), `parts` (number of series).
    """
    facts = rows.identity[["series_id", "t", "horizon"]].assign(
        scale=rows.scale * rows.in_force, season_error=rows.season_error
    )
    by = [*panel.keys, "horizon"]
    parts = table.merge(facts.merge(series, on="series_id"), on=by, validate="one_to_one")
    sums = aggregate(parts.assign(actual=float("nan")), panel.level_names)
    sums = intervals.aggregate_bounds(sums, nonnegative=panel.series.target.nonnegative)
    sums[panel.time] = sums["t"].map({t: label_of(panel, int(t)) for t in sums["t"].unique()})
    return sums[["level", "member", "cutoff", panel.time, "horizon", "forecast", *BOUNDS, "parts"]]
