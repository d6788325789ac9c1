"""Feature rows as arrays: from the tables that core/features.py fills to what the models are given.

What belongs here: filling and reading features.training, features.holdout and features.scoring. What does
not: the features themselves (features.py).
"""

from dataclasses import dataclass

import duckdb
import numpy as np

from turnover_assets.core import features
from turnover_assets.core.models import Rows
from turnover_assets.errors import NothingToForecastError
from turnover_assets.panel import PanelSpec


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


def last_period(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> int:
    """Index of the newest period with a value.

    Raises:
        NothingToForecastError: There is no history, or too little to hold any of it out.
    """
    first, last, periods = con.execute(
        f"SELECT min(t), max(t), count(DISTINCT t) FROM cleaned.{panel.series.name}"
    ).fetchall()[0]
    if not periods:
        raise NothingToForecastError(
            f"There is no usable row of {panel.series.name} yet, so there is nothing to forecast. "
            "`turnover export rejected` and the landed files' reasons say why rows were turned away."
        )
    needed = panel.horizon + 2
    if last - first + 1 < needed:
        raise NothingToForecastError(
            f"The history covers {last - first + 1} periods, but {needed} are needed (the horizon of "
            f"{panel.horizon} to compare models on, and two more). Land older files too."
        )
    return int(last)


def fill_tables(con: duckdb.DuckDBPyConnection, panel: PanelSpec, limits: RowLimits) -> None:
    """Make features.training, features.holdout and features.scoring, all from one SQL text.

    The holdout's cutoff lies one horizon before the newest period; its rows' actuals are known.
    """
    last = last_period(con, panel)
    features.prepare(con, panel, last)
    con.execute("CREATE OR REPLACE TABLE features.series AS SELECT * FROM series ORDER BY series_id")
    features.choose_training_pairs(con, panel.horizon, limits.share, limits.max_rows, limits.alive)
    _fill(con, panel, "training", "WHERE actual IS NOT NULL")
    for name, cutoff in (("holdout", last - panel.horizon), ("scoring", last)):
        features.choose_scoring_pairs(con, panel.horizon, cutoff, limits.alive)
        _fill(con, panel, name, "")


def _fill(con: duckdb.DuckDBPyConnection, panel: PanelSpec, name: str, where: str) -> None:
    con.execute(
        f"CREATE OR REPLACE TABLE features.{name} AS SELECT * FROM ({features.rows_sql(panel)}) {where} "
        "ORDER BY series_id, cutoff, horizon"
    )


def read_rows(con: duckdb.DuckDBPyConnection, panel: PanelSpec, name: str) -> Rows:
    """The rows of features.<name>, ordered by series, cutoff and horizon."""
    table = con.sql(f"SELECT * FROM features.{name} ORDER BY series_id, cutoff, horizon").to_arrow_table()
    names = features.feature_names(panel)
    x = np.empty((table.num_rows, len(names)), dtype=np.float32)
    for i, column in enumerate(names):
        x[:, i] = table[column].to_numpy()
    return Rows(table.select(list(features.IDENTITY)).to_pandas(), x, tuple(names))


def before(rows: Rows, period: int) -> Rows:
    """The rows whose target period lies before `period`."""
    return rows.where(rows.identity["t"].to_numpy() < period)
