"""Feature rows as arrays: from the tables that core/features.py fills to what the models are given.

What belongs here: filling and reading the tables of schema features. What does not: the features themselves
(features.py), and what is repaired (repairs.py).
"""

from dataclasses import dataclass

import duckdb
import numpy as np

from turnover_assets.core import features, relations
from turnover_assets.core.adjustments import ADJUSTMENTS, adjust, in_force, read_adjustments
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.models import Rows
from turnover_assets.core.repairs import Repairs
from turnover_assets.errors import NothingToForecastError
from turnover_assets.panel import PanelSpec

TABLES = ("training", "scoring", "holdout_training", "holdout")


@dataclass(frozen=True)
class RowLimits:
    """How many rows to make.

    Attributes:
        share: Share of past cutoffs used for training.
        max_rows: Upper bound of training rows.
        alive: A series is alive where it reported within so many periods.
    """

    share: float
    max_rows: int
    alive: int


def fill_tables(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, limits: RowLimits, repairs: Repairs
) -> None:
    """Make the tables of TABLES in schema features, all from one SQL text.

    The holdout's cutoff lies one horizon before the newest period, or before that where no series was alive
    then; some of its rows' actuals are known. It and the rows to train on for it are made from what could be
    known at that cutoff: no later value, no adjustment that needs one.
    """
    last = last_period(con, panel)
    decided = read_adjustments(panel, con.execute(f"SELECT * FROM {ADJUSTMENTS}").df())
    relations.prepare(con, panel, last, in_force=in_force(con, panel, decided, last))
    con.execute("CREATE OR REPLACE TABLE features.series AS SELECT * FROM series ORDER BY series_id")
    _fill_training(con, panel, limits, "training")
    relations.choose_scoring_pairs(con, panel.horizon, last, limits.alive)
    _fill(con, panel, "scoring", "")
    cutoff = _holdout_cutoff(con, panel, last, limits.alive)
    then = repairs.as_of(con, panel, cutoff)
    adjust(con, panel, then, cutoff)
    relations.prepare(
        con,
        panel,
        cutoff,
        adjusted="adjusted",
        in_force=in_force(con, panel, then, cutoff),
        known=last,
    )
    _fill_training(con, panel, limits, "holdout_training")
    relations.choose_scoring_pairs(con, panel.horizon, cutoff, limits.alive)
    _fill(con, panel, "holdout", "")


def _fill_training(con: duckdb.DuckDBPyConnection, panel: PanelSpec, limits: RowLimits, name: str) -> None:
    relations.choose_training_pairs(con, panel.horizon, limits.share, limits.max_rows, limits.alive)
    _fill(con, panel, name, "WHERE actual IS NOT NULL")


def _holdout_cutoff(con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int, alive: int) -> int:
    """The newest cutoff a horizon back at which a series was alive that reported again afterwards."""
    found = con.execute(
        "SELECT max(a.t) FROM as_of AS a JOIN grid AS g ON g.series_id = a.series_id "
        "AND g.t BETWEEN a.t + 1 AND a.t + $horizon AND g.y IS NOT NULL "
        "WHERE a.t - a.last_seen < $alive AND a.t <= $newest AND a.t > $newest - $season",
        {
            "horizon": panel.horizon,
            "alive": alive,
            "newest": last - panel.horizon,
            "season": panel.frequency.season,
        },
    ).fetchall()[0][0]
    if found is None:
        raise NothingToForecastError(
            "In the last year no series reported in two neighbouring stretches of "
            f"{panel.horizon} periods, so models cannot be compared. Land the periods in between."
        )
    return int(found)


def _fill(con: duckdb.DuckDBPyConnection, panel: PanelSpec, name: str, where: str) -> None:
    con.execute(
        f"CREATE OR REPLACE TABLE features.{name} AS SELECT * FROM ({features.rows_sql(panel)}) {where} "
        "ORDER BY series_id, cutoff, horizon"
    )


def select_rows(con: duckdb.DuckDBPyConnection, panel: PanelSpec, where: str = "") -> Rows:
    """The rows of the chosen pairs, ordered by series, cutoff and horizon."""
    return _as_arrays(con, panel, f"SELECT * FROM ({features.rows_sql(panel)}) {where}")


def read_rows(con: duckdb.DuckDBPyConnection, panel: PanelSpec, name: str) -> Rows:
    """The rows of features.<name>, ordered by series, cutoff and horizon."""
    return _as_arrays(con, panel, f"SELECT * FROM features.{name}")


def _as_arrays(con: duckdb.DuckDBPyConnection, panel: PanelSpec, query: str) -> Rows:
    table = con.sql(f"{query} ORDER BY series_id, cutoff, horizon").to_arrow_table()
    names = features.feature_names(panel)
    x = np.empty((table.num_rows, len(names)), dtype=np.float32)
    for i, column in enumerate(names):
        x[:, i] = table[column].to_numpy()
    return Rows(table.select(list(features.IDENTITY)).to_pandas(), x, tuple(names))
