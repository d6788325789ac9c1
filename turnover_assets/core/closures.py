"""Closures: days of the week on which a series is never reported, and what is forecast for them.

What belongs here: telling such periods from features known at the cutoff, and making forecasts of them 0.
What does not: series that have ended (relations.py), and gaps in what is reported (anomalies).

A retailer that is closed on Sundays has no rows for them. No model learns of them, then: training rows have
an outcome, and a Sunday has none. Without this every Sunday would be forecast as if it were a working day,
and what goes on from its own forecasts would take that for the newest value.
"""

import numpy as np
import numpy.typing as npt

from turnover_assets.core.models.base import Floats, Rows
from turnover_assets.panel import PanelSpec

CYCLES = 4  # of the features cycle_0, cycle_1, ...


def closed(panel: PanelSpec, rows: Rows) -> npt.NDArray[np.bool_]:
    """Whether the series does not report on the day of the week of the target period.

    That is so where it reported on it neither in the cycle up to the cutoff, nor in the four cycles that
    every horizon knows, nor a year ago, and is old enough to have had those four.

    Args:
        panel: The panel. Where a period has no short cycle (weeks), nothing is closed.
        rows: n rows.

    Returns:
        Booleans, shape (n,).
    """
    cycle = panel.frequency.cycle
    if cycle == 1:
        return np.zeros(len(rows), dtype=np.bool_)
    nearest = -(-panel.horizon // cycle) * cycle
    same_day = [rows.column(f"cycle_{j}") for j in range(CYCLES)]
    found = np.isnan([*same_day, rows.column("year_ago_same"), _newest_same_day(rows, cycle)]).all(axis=0)
    old_enough = rows.column("age") >= nearest + (CYCLES - 1) * cycle
    return np.asarray(found & old_enough, dtype=np.bool_)


def with_closures(panel: PanelSpec, rows: Rows) -> Rows:
    """The same rows, in their identity `closed` as well where periods have a short cycle; see Rows.closed."""
    if panel.frequency.cycle == 1:
        return rows
    return Rows(rows.identity.assign(closed=closed(panel, rows)), rows.x, rows.names)


def _newest_same_day(rows: Rows, cycle: int) -> Floats:
    """The newest value on the target's day of the cycle, scaled, NaN where none; shape (n,)."""
    lags = np.stack([rows.column(f"lag_{k}") for k in range(cycle)], axis=1)
    place = -rows.identity["horizon"].to_numpy() % cycle
    found: Floats = np.take_along_axis(lags, place[:, None], axis=1)[:, 0]
    return found


def limited(panel: PanelSpec, rows: Rows, predicted: Floats) -> Floats:
    """Predictions as they are published: 0 where closed, and not below 0 where the target cannot be.

    Args:
        panel: The panel.
        rows: n rows.
        predicted: Of a model for those rows, units of the target, shape (n,).
    """
    lowest = 0.0 if panel.series.target.nonnegative else -np.inf
    return np.where(closed(panel, rows), 0.0, np.maximum(predicted, lowest))
