"""Feature rows of the chosen pairs as arrays, without a table between.

What belongs here: looking up what pairs share, and handing what they do not share to arithmetic.py or to
DuckDB. What does not: the features (features.py), the choice of pairs (relations.py), and rows that are kept
in tables (rows.py).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd

from turnover_assets.core import features, relations
from turnover_assets.core.arithmetic import Arithmetic
from turnover_assets.core.features import IDENTITY, Feature, Side
from turnover_assets.core.models import Rows
from turnover_assets.core.models.base import Floats
from turnover_assets.panel import PanelSpec

SIDES: tuple[Side, ...] = ("cutoff", "target")
BLOCK = 16_384  # rows made at a time, so that they stay in the processor's cache


def select_rows(con: duckdb.DuckDBPyConnection, panel: PanelSpec, *, known: bool = False) -> Rows:
    """The rows of the chosen pairs, ordered by series, cutoff and horizon.

    They are those of features.rows_sql, to the last bit. What depends on the cutoff or the target period
    alone is made once and looked up for all pairs that have it. The rest is arithmetic on such values, done
    on arrays; where it is more than that, DuckDB is asked pair by pair.

    Args:
        con: Connection on which pairs were chosen.
        panel: The panel.
        known: Only the rows whose outcome is known.
    """
    chosen = features.features(panel)
    names = tuple(feature.name for feature in chosen)
    mixed = [feature for feature in chosen if feature.side == "pair"]
    arithmetic = _arithmetic(con, panel, mixed)
    pairs = _pairs(con)
    cutoffs, targets = (_side(con, panel, side, chosen, pairs, arithmetic) for side in SIDES)
    for side in (cutoffs, targets):
        pairs |= {name: side.columns.pop(name)[side.position] for name in IDENTITY if name in side.columns}
    identity = pd.DataFrame({name: pairs[name] for name in IDENTITY}, copy=False)
    sources = [cutoffs, targets, *_sources_of_pairs(con, panel, pairs["horizon"], cutoffs, arithmetic)]
    kept = identity["actual"].notna().to_numpy() if known else np.ones(len(identity), dtype=np.bool_)
    if not kept.all():
        identity = identity[kept].reset_index(drop=True)
        sources = [_Source(source.columns, source.position[kept]) for source in sources]
    x = np.empty((len(identity), len(names)), dtype=np.float32)
    _fill_arrays(x, names, sources, arithmetic, relations.threads(con))
    others = [feature for feature in mixed if feature.name not in arithmetic.results]
    _fill_by_duckdb(con, panel, others, x, names, kept)
    return Rows(identity, x, names)


def _pairs(con: duckdb.DuckDBPyConnection) -> dict[str, npt.NDArray[Any]]:
    """The chosen pairs as arrays, in their order."""
    cutoffs = _columns(con.sql("SELECT * FROM cutoffs ORDER BY before"))
    horizons = cutoffs.pop("horizons")
    pairs = {name: np.repeat(values, horizons) for name, values in cutoffs.items()}
    ahead = (np.arange(len(pairs["before"])) - pairs.pop("before") + 1).astype(np.int32)
    pairs |= {"horizon": ahead, "t": pairs["cutoff"] + ahead, "place_target": pairs["place_cutoff"] + ahead}
    return pairs


@dataclass(frozen=True)
class _Source:
    """Columns of which many pairs share a value.

    Attributes:
        columns: Features by name, and by `alias.name` what arithmetic reads; each of m values.
        position: Where among the m the value of each of n pairs is, shape (n,).
    """

    columns: dict[str, npt.NDArray[Any]]
    position: npt.NDArray[np.int32]


def _arithmetic(con: duckdb.DuckDBPyConnection, panel: PanelSpec, mixed: Sequence[Feature]) -> Arithmetic:
    read = list(dict.fromkeys(column for feature in mixed for column in feature.reads))
    types = con.sql(features.read_sql(panel, read)).types
    expressions = {feature.name: feature.sql for feature in mixed}
    return Arithmetic(con, expressions, dict(zip(read, map(str, types), strict=True)))


def _side(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    side: Side,
    chosen: Sequence[Feature],
    pairs: dict[str, npt.NDArray[Any]],
    arithmetic: Arithmetic,
) -> _Source:
    """The features of one side, and what the arithmetic reads of it."""
    read = [column for column in arithmetic.reads if features.side_of(column) == side]
    if side == "cutoff":
        read += [f"m_{level}.number" for level in panel.level_names]
    made = [feature for feature in chosen if feature.side == side]
    columns = _columns(con.sql(features.sided_sql(panel, side, made, read)))
    found = columns.pop("place")
    position = np.zeros(found.max(initial=-1) + 1, dtype=np.int32)
    position[found] = np.arange(len(found))
    return _Source(columns, position[pairs[f"place_{side}"]])


def _sources_of_pairs(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    horizons: npt.NDArray[np.int32],
    cutoffs: _Source,
    arithmetic: Arithmetic,
) -> Iterator[_Source]:
    """What the arithmetic reads of the horizon, and of the levels between cutoff and target."""
    yield _Source({"p.horizon": np.arange(panel.horizon + 1, dtype=np.float64)}, horizons)
    for level in panel.level_names:
        member = cutoffs.columns.pop(f"m_{level}.number").astype(np.int32)
        read = [column for column in arithmetic.reads if column.startswith(f"b_{level}.")]
        if read:
            listed = ", ".join(features.doubles_sql(read))
            columns = _columns(con.sql(f"SELECT {listed} FROM between_{level} AS b_{level} ORDER BY place"))
            yield _Source(columns, (member * panel.horizon)[cutoffs.position] + horizons - 1)


def _fill_arrays(
    x: Floats, names: Sequence[str], sources: Sequence[_Source], arithmetic: Arithmetic, threads: int
) -> None:
    """Write the features that sources hold or arithmetic makes of them into their columns, a block at a time.

    Args:
        x: Shape (n, f), written to.
        names: Names of the f features.
        sources: Of the n pairs.
        arithmetic: What else to make of the columns that are no features.
        threads: Blocks to fill at the same time.
    """
    at = {name: i for i, name in enumerate(names)}

    def fill(begin: int) -> None:
        block = x[begin : begin + BLOCK]
        turned = np.empty((len(names), len(block)), dtype=np.float32)
        given = {}
        for source in sources:
            position = source.position[begin : begin + BLOCK].astype(np.intp)
            for name, values in source.columns.items():
                if name in at:
                    np.take(values, position, out=turned[at[name]], mode="clip")
                else:
                    given[name] = values[position]
        for name, values in arithmetic.evaluate(given).items():
            turned[at[name]] = values
        block[:] = turned.T

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(fill, range(0, len(x), BLOCK)):
            pass


def _fill_by_duckdb(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    others: Sequence[Feature],
    x: Floats,
    names: Sequence[str],
    kept: npt.NDArray[np.bool_],
) -> None:
    """Write the features of pairs that are no arithmetic into their columns.

    Args:
        con: Connection on which pairs were chosen.
        panel: The panel.
        others: Those features.
        x: Shape (n, f), written to.
        names: Names of the f features.
        kept: By number of the pair, whether x has a row of it.
    """
    if not others:
        return
    row = np.where(kept, np.cumsum(kept) - 1, -1)
    for batch in con.sql(features.mixed_sql(panel, others)).to_arrow_reader(BLOCK):
        at = row[batch.column("number").to_numpy()]
        for feature in others:
            values = batch.column(feature.name).to_numpy(zero_copy_only=False)
            x[at[at >= 0], names.index(feature.name)] = values[at >= 0]


def _columns(query: duckdb.DuckDBPyRelation) -> dict[str, npt.NDArray[Any]]:
    table = query.to_arrow_table()
    return {name: table[name].to_numpy() for name in table.column_names}
