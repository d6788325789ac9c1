"""Backtest windows: what could be known at a past cutoff, and what was reported afterwards.

What belongs here: choosing cutoffs, and the feature rows of each. What does not: models and scores.

Invariants:
    - nothing in a window's training rows, features or adjustments needs a value after its cutoff;
    - what is scored against is what was reported, not what was adjusted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pandas as pd

from turnover_assets.core import relations
from turnover_assets.core.adjustments import adjust, in_force
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.models import Rows
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.rows import RowLimits, select_rows
from turnover_assets.panel import PanelSpec


@dataclass(frozen=True)
class Window:
    """One cutoff of a backtest.

    Attributes:
        cutoff: Index of the last period known.
        training: Rows to learn from; their target periods lie at or before the cutoff.
        scoring: Rows of the cutoff, and of the `dense - 1` cutoffs after it, in order of series, cutoff and
            horizon; `reported` is NaN where not reported, or not yet.
        series: `series_id`, the series keys and `first_t` of each series in the rows.
    """

    cutoff: int
    training: Rows
    scoring: Rows
    series: pd.DataFrame


def make_windows(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    cutoffs: Sequence[int],
    limits: RowLimits,
    repairs: Repairs,
    dense: int = 1,
) -> Iterator[Window]:
    """The windows of the given cutoffs (period indices), one at a time.

    Args:
        con: Connection with the cleaned tables.
        panel: The panel.
        cutoffs: Cutoffs, in the order wanted.
        limits: How many rows to make.
        repairs: How the history is repaired; asked anew as of each cutoff.
        dense: Cutoffs to score from each one on. Those after the first are scored as a model would be that
            was trained at the first: with newer values, the same adjustments.
    """
    known = last_period(con, panel)
    for cutoff in cutoffs:
        decided = repairs.as_of(con, panel, cutoff)
        newest = min(cutoff + dense - 1, known)
        adjust(con, panel, decided, newest)
        scale = in_force(con, panel, decided, cutoff)
        relations.prepare(con, panel, newest, adjusted="adjusted", in_force=scale, known=known)
        relations.choose_training_pairs(
            con, panel.horizon, limits.share, limits.max_rows, limits.alive, until=cutoff
        )
        training = select_rows(con, panel, "WHERE actual IS NOT NULL")
        relations.choose_scoring_pairs(con, panel.horizon, cutoff, limits.alive, newest - cutoff + 1)
        scoring = select_rows(con, panel)
        series = con.execute(
            f"SELECT series_id, {', '.join(panel.keys)}, first_t FROM series ORDER BY series_id"
        ).df()
        yield Window(cutoff, training, scoring, series)
