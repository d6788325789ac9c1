"""Forecasts as of past cutoffs: what would have been forecast then, with what could be known then.

What belongs here: such a forecast on the cleaned tables, as a table for people, and the table in which they
are kept. What does not: the backtest that makes it (backtest.py), metrics of it (accuracy.py).
"""

from collections.abc import Callable, Sequence

import duckdb
import pandas as pd

from turnover_assets.core import training
from turnover_assets.core.backtest import Backtest
from turnover_assets.core.calendar import label_of
from turnover_assets.core.cutoffs import first_period, last_period
from turnover_assets.core.features import feature_names
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.models import Blend
from turnover_assets.core.tables import has_table
from turnover_assets.core.windows import Transaction, scorable_cutoffs, with_evidence_before
from turnover_assets.errors import TurnoverError
from turnover_assets.panel import PanelSpec

AS_OF = "forecasts.as_of"


def forecast_as_of(
    transaction: Transaction,
    panel: PanelSpec,
    cutoffs: Sequence[int],
    models: Sequence[str],
    plan: training.Plan,
    windows: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Backtest:
    """Forecast past cutoffs as they would have been then, and score them.

    Features, repairs, fits, weights and intervals are of what could be known at each cutoff; weights and
    intervals come from windows before it.

    Args:
        transaction: Opens one with the cleaned tables; each window has its own.
        panel: The panel.
        cutoffs: Period indices.
        models: Names of the candidates.
        plan: How to train.
        windows: Windows before each cutoff from which it learns weights and intervals.
        progress: Told what is under way.

    Raises:
        TurnoverError: There is too little history before the earliest cutoff for one of the candidates.
    """
    with transaction() as con:
        held = with_evidence_before(con, panel, cutoffs, windows, plan.limits.alive)
    needed = {*models, *(Blend().components if Blend.name in models else ())}
    who = [e for e in training.entrants(plan.tuned, feature_names(panel)) if e.name in needed]
    found = training.backtest(transaction, panel, held, who, plan, progress)
    if missing := [name for name in models if name not in found.entrants]:
        raise TurnoverError(
            f"The history is too short to fit {', '.join(missing)} at the earliest cutoff. "
            "Name later cutoffs, or --model seasonal_naive."
        )
    return found


def labelled(table: pd.DataFrame, panel: PanelSpec, names: Sequence[str]) -> pd.DataFrame:
    """Backtest rows with dates in place of period indices.

    Args:
        table: Rows as Backtest.rows or Backtest.aggregates give them.
        panel: The panel.
        names: Columns that say whose a row is: the series keys, or `level` and `member`.

    Returns:
        Those columns, `cutoff`, the time column, `horizon`, `actual` (reported), `forecast`, the bounds,
        `model`; units of the target.
    """
    labels = {t: label_of(panel, int(t)) for t in {*table["t"].unique(), *table["cutoff"].unique()}}
    dated = table.assign(**{panel.time: table["t"].map(labels), "cutoff": table["cutoff"].map(labels)})
    return dated[[*names, "cutoff", panel.time, "horizon", "actual", "forecast", *BOUNDS, "model"]]


def possible_cutoffs(con: duckdb.DuckDBPyConnection, panel: PanelSpec, alive: int) -> list[int]:
    """Cutoffs with a season of history before them and an outcome after them, oldest first."""
    possible = range(first_period(con, panel) + panel.frequency.season, last_period(con, panel))
    return [t for t in scorable_cutoffs(con, panel, alive) if t in possible]


def keep_as_of(con: duckdb.DuckDBPyConnection, rows: pd.DataFrame) -> int:
    """Keep labelled rows, in place of those of the same cutoffs; returns how many are kept in all."""
    con.register("as_of_rows", rows)
    if not has_table(con, AS_OF):
        con.execute(f"CREATE TABLE {AS_OF} AS SELECT *, now() AS made_at FROM as_of_rows LIMIT 0")
    con.execute(f"DELETE FROM {AS_OF} WHERE cutoff IN (SELECT cutoff FROM as_of_rows)")
    con.execute(f"INSERT INTO {AS_OF} BY NAME SELECT *, now() AS made_at FROM as_of_rows")
    con.unregister("as_of_rows")
    return int(con.execute(f"SELECT count(*) FROM {AS_OF}").fetchall()[0][0])
