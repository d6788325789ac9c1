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

MINIMUM_COVERAGE = 0.2  # of the usual number of series, for a period to count as reported
USUAL_PERIODS = 8  # reported periods before one, from which its usual number of series is taken


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
    """Index of the newest period that counts as reported; forecasts begin after it.

    A period counts where at least MINIMUM_COVERAGE as many series reported it as usual (the median of the
    reported periods before it). So a lone row with a mistyped date does not move the forecasts of all others;
    it is used as soon as its period fills up.

    Raises:
        NothingToForecastError: There is no history, or too little to hold any of it out.
    """
    name = panel.series.name
    first, last = con.execute(
        f"SELECT min(t), max(t) FILTER (usual IS NULL OR series >= {MINIMUM_COVERAGE} * usual) FROM ("
        f"SELECT t, series, median(series) OVER (ORDER BY t ROWS BETWEEN {USUAL_PERIODS} PRECEDING "
        f"AND 1 PRECEDING) AS usual FROM (SELECT t, count(*) AS series FROM cleaned.{name} GROUP BY t))"
    ).fetchall()[0]
    if last is None:
        raise NothingToForecastError(
            f"There is no usable row of {name} yet, so there is nothing to forecast. "
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

    The holdout's cutoff lies one horizon before the newest period, or before that where no series was alive
    then; some of its rows' actuals are known.
    """
    last = last_period(con, panel)
    features.prepare(con, panel, last)
    con.execute("CREATE OR REPLACE TABLE features.series AS SELECT * FROM series ORDER BY series_id")
    features.choose_training_pairs(con, panel.horizon, limits.share, limits.max_rows, limits.alive)
    _fill(con, panel, "training", "WHERE actual IS NOT NULL")
    for name, cutoff in (("holdout", _holdout_cutoff(con, panel, last, limits.alive)), ("scoring", last)):
        features.choose_scoring_pairs(con, panel.horizon, cutoff, limits.alive)
        _fill(con, panel, name, "")


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
