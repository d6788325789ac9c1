"""Feature rows in tables: filling those of schema features, and reading them as what the models are given.

What belongs here: those tables. What does not: the features themselves (features.py), rows that need no table
(row_arrays.py), and what is repaired (repairs.py).
"""

from dataclasses import dataclass

import duckdb
import numpy as np

from turnover_assets.core import features, relations
from turnover_assets.core.adjustments import (
    ADJUSTMENTS,
    in_force,
    read_adjustments,
    series_attributes_sql,
)
from turnover_assets.core.closures import with_closures
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.level_changes import usual_changes
from turnover_assets.core.models import Rows
from turnover_assets.core.row_arrays import select_rows
from turnover_assets.core.tables import write_columns
from turnover_assets.panel import PanelSpec

ROWS = 2**18  # written at a time
TABLES = ("training", "scoring", "year_ago")
USUAL_CHANGES = "features.usual_changes"


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


def fill_training(con: duckdb.DuckDBPyConnection, panel: PanelSpec, limits: RowLimits) -> None:
    """Make features.training: rows of past cutoffs, with what is known of each."""
    _prepare_newest(con, panel)
    relations.choose_training_pairs(con, panel, limits.share, limits.max_rows, limits.alive)
    _fill(con, panel, "training", known=True)


def fill_scoring(con: duckdb.DuckDBPyConnection, panel: PanelSpec, limits: RowLimits) -> None:
    """Make features.scoring and features.series: the newest cutoff, for every series alive.

    Beside them features.year_ago: the same cutoff a season earlier, which forecasts are explained against;
    features.recent: the cutoffs just before, with outcomes known by now, and features.usual_changes, for what
    a model has missed since its training (see level_changes.py).
    """
    last = _prepare_newest(con, panel)
    con.execute("CREATE OR REPLACE TABLE features.series AS SELECT * FROM series ORDER BY series_id")
    relations.choose_scoring_pairs(con, panel, last, limits.alive)
    _fill(con, panel, "scoring")
    relations.choose_scoring_pairs(con, panel, last - panel.frequency.season, limits.alive)
    _fill(con, panel, "year_ago")
    relations.choose_recent_pairs(con, panel, last, limits.alive)
    _fill(con, panel, "recent", known=True)
    usual = usual_changes(con, panel, last)
    con.register("usual_frame", usual)
    con.execute(f"CREATE OR REPLACE TABLE {USUAL_CHANGES} AS SELECT * FROM usual_frame")
    con.unregister("usual_frame")


def _prepare_newest(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> int:
    """The relations as of the newest cutoff, which is returned, with the adjustments that are decided on."""
    last = last_period(con, panel)
    decided = read_adjustments(panel, con.execute(f"SELECT * FROM {ADJUSTMENTS}").df())
    relations.prepare(con, panel, last, in_force=in_force(con, panel, decided, last))
    return last


def _fill(con: duckdb.DuckDBPyConnection, panel: PanelSpec, name: str, *, known: bool = False) -> None:
    """Make features.<name> of the chosen pairs, or only of those whose outcome is known."""
    rows = select_rows(con, panel, known=known)
    for begin in range(0, max(1, len(rows)), ROWS):
        block = slice(begin, begin + ROWS)
        facts = {str(fact): values.to_numpy()[block] for fact, values in rows.identity.items()}
        x = np.asfortranarray(rows.x[block])
        made = {feature: x[:, i] for i, feature in enumerate(rows.names)}
        into = f"INSERT INTO features.{name}" if begin else f"CREATE OR REPLACE TABLE features.{name} AS"
        write_columns(con, into, facts | made)


def series_sql(panel: PanelSpec) -> str:
    """SQL for features.series: `series_id`, keys, the members of each level, `first_t`."""
    columns = ", ".join(f"a.{name}" for name in dict.fromkeys([*panel.keys, *panel.level_names]))
    on = " AND ".join(f"a.{key} = s.{key}" for key in panel.keys)
    return (
        f"SELECT s.series_id, {columns}, s.first_t FROM features.series AS s "
        f"JOIN ({series_attributes_sql(panel)}) AS a ON {on}"
    )


def read_rows(con: duckdb.DuckDBPyConnection, panel: PanelSpec, name: str) -> Rows:
    """The rows of features.<name>, ordered by series, cutoff and horizon."""
    table = con.sql(f"SELECT * FROM features.{name} ORDER BY series_id, cutoff, horizon").to_arrow_table()
    names = features.feature_names(panel)
    x = np.empty((table.num_rows, len(names)), dtype=np.float32)
    for i, column in enumerate(names):
        x[:, i] = table[column].to_numpy()
    identity = table.select(features.identity_in(table.column_names)).to_pandas()
    return with_closures(panel, Rows(identity, x, tuple(names)))
