"""Feature rows as arrays: from the tables that core/features.py fills to what the models are given.

What belongs here: filling and reading the tables of schema features. What does not: the features themselves
(features.py), and what is repaired (repairs.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from turnover_assets.core import features, relations
from turnover_assets.core.adjustments import (
    ADJUSTMENTS,
    in_force,
    read_adjustments,
    series_attributes_sql,
)
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.features import IDENTITY, Feature, Side
from turnover_assets.core.level_changes import usual_changes
from turnover_assets.core.models import Rows
from turnover_assets.core.models.base import Floats
from turnover_assets.panel import PanelSpec

TABLES = ("training", "scoring", "year_ago")
USUAL_CHANGES = "features.usual_changes"
SIDES: tuple[Side, ...] = ("cutoff", "target")
BATCH = 2048  # rows put into arrays at a time, so that they stay in the processor's cache


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
    _fill(con, panel, "training", "WHERE actual IS NOT NULL")


def fill_scoring(con: duckdb.DuckDBPyConnection, panel: PanelSpec, limits: RowLimits) -> None:
    """Make features.scoring and features.series: the newest cutoff, for every series alive.

    Beside them features.year_ago: the same cutoff a season earlier, which forecasts are explained against;
    features.recent: the cutoffs just before, with outcomes known by now, and features.usual_changes, for what
    a model has missed since its training (see level_changes.py).
    """
    last = _prepare_newest(con, panel)
    con.execute("CREATE OR REPLACE TABLE features.series AS SELECT * FROM series ORDER BY series_id")
    relations.choose_scoring_pairs(con, panel, last, limits.alive)
    _fill(con, panel, "scoring", "")
    relations.choose_scoring_pairs(con, panel, last - panel.frequency.season, limits.alive)
    _fill(con, panel, "year_ago", "")
    relations.choose_recent_pairs(con, panel, last, limits.alive)
    _fill(con, panel, "recent", "WHERE actual IS NOT NULL")
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


def _fill(con: duckdb.DuckDBPyConnection, panel: PanelSpec, name: str, where: str) -> None:
    con.execute(
        f"CREATE OR REPLACE TABLE features.{name} AS SELECT * FROM ({features.rows_sql(panel)}) {where} "
        "ORDER BY series_id, cutoff, horizon"
    )


def series_sql(panel: PanelSpec) -> str:
    """SQL for features.series: `series_id`, keys, the members of each level, `first_t`."""
    columns = ", ".join(f"a.{name}" for name in dict.fromkeys([*panel.keys, *panel.level_names]))
    on = " AND ".join(f"a.{key} = s.{key}" for key in panel.keys)
    return (
        f"SELECT s.series_id, {columns}, s.first_t FROM features.series AS s "
        f"JOIN ({series_attributes_sql(panel)}) AS a ON {on}"
    )


def select_rows(con: duckdb.DuckDBPyConnection, panel: PanelSpec, *, known: bool = False) -> Rows:
    """The rows of the chosen pairs, ordered by series, cutoff and horizon.

    They are those of features.rows_sql, to the last bit. What depends on the cutoff or the target period
    alone is made once and looked up for all pairs that have it, and only the rest is made for each pair.

    Args:
        con: Connection on which pairs were chosen.
        panel: The panel.
        known: Only the rows whose outcome is known.
    """
    chosen = features.features(panel)
    names = [feature.name for feature in chosen]
    pairs = _columns(con.sql("SELECT * FROM pairs"))
    shared = [_shared(con, panel, side, chosen, pairs[f"place_{side}"]) for side in SIDES]
    for part in shared:
        pairs |= {name: part.columns.pop(name)[part.position] for name in IDENTITY if name in part.columns}
    identity = pd.DataFrame({name: pairs[name] for name in IDENTITY}, copy=False)
    kept = identity["actual"].notna().to_numpy() if known else np.ones(len(identity), dtype=np.bool_)
    row = np.full(pairs["number"].max(initial=-1) + 1, -1)
    row[pairs["number"][kept]] = np.arange(kept.sum())
    x = np.empty((int(kept.sum()), len(names)), dtype=np.float32)
    for part in shared:
        part.fill(x, names, kept)
    _fill_mixed(con, panel, chosen, x, row)
    return Rows(identity if kept.all() else identity[kept].reset_index(drop=True), x, tuple(names))


@dataclass(frozen=True)
class _Shared:
    """What pairs of one cutoff, or of one target period, share.

    Attributes:
        columns: By name, each of m values.
        position: Where among the m the value of each of n pairs is, shape (n,).
    """

    columns: dict[str, Floats]
    position: npt.NDArray[np.int64]

    def fill(self, x: Floats, names: Sequence[str], kept: npt.NDArray[np.bool_]) -> None:
        """Write the columns into those of x that have their names, for the pairs that are kept."""
        position = self.position[kept]
        for begin in range(0, len(x), BATCH):
            block, at = x[begin : begin + BATCH], position[begin : begin + BATCH]
            for name, values in self.columns.items():
                block[:, names.index(name)] = values[at]


def _shared(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    side: Side,
    chosen: Sequence[Feature],
    places: npt.NDArray[np.int64],
) -> _Shared:
    made = [feature for feature in chosen if feature.side == side]
    columns = _columns(con.sql(features.sided_sql(panel, side, made)))
    found = columns.pop("place")
    position = np.zeros(found.max(initial=-1) + 1, dtype=np.int64)
    position[found] = np.arange(len(found))
    return _Shared(columns, position[places])


def _columns(query: duckdb.DuckDBPyRelation) -> dict[str, npt.NDArray[Any]]:
    table = query.to_arrow_table()
    return {name: table[name].to_numpy() for name in table.column_names}


def _fill_mixed(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    chosen: Sequence[Feature],
    x: Floats,
    row: npt.NDArray[np.int64],
) -> None:
    """Write the features that depend on cutoff and target into their columns, in the order they are made.

    Args:
        con: Connection on which pairs were chosen.
        panel: The panel.
        chosen: The features of x in their order.
        x: Shape (n, f), written to.
        row: Row of x by number of the pair; -1 for those left out.
    """
    mixed = [(i, feature) for i, feature in enumerate(chosen) if feature.side == "pair"]
    for batch in con.sql(features.mixed_sql(panel, [f for _, f in mixed])).to_arrow_reader(BATCH):
        at = row[batch.column("number").to_numpy()]
        if at.min(initial=0) < 0:
            batch, at = batch.filter(pa.array(at >= 0)), at[at >= 0]
        in_turn = len(at) > 0 and bool((np.diff(at) == 1).all())  # a block is written quicker than rows
        block, rows = (x[at[0] : at[-1] + 1], slice(None)) if in_turn else (x, at)
        for i, feature in mixed:
            block[rows, i] = batch.column(feature.name).to_numpy(zero_copy_only=False)


def read_rows(con: duckdb.DuckDBPyConnection, panel: PanelSpec, name: str) -> Rows:
    """The rows of features.<name>, ordered by series, cutoff and horizon."""
    table = con.sql(f"SELECT * FROM features.{name} ORDER BY series_id, cutoff, horizon").to_arrow_table()
    names = features.feature_names(panel)
    x = np.empty((table.num_rows, len(names)), dtype=np.float32)
    for i, column in enumerate(names):
        x[:, i] = table[column].to_numpy()
    return Rows(table.select(list(features.IDENTITY)).to_pandas(), x, tuple(names))
