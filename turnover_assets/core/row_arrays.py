"""Feature rows of the chosen pairs as arrays, without a table between.

What belongs here: filling the rows with what relations hold (row_sources.py), what arithmetic.py makes of it,
and what only DuckDB can make, pair by pair. What does not: the features (features.py), the choice of pairs
(relations.py), and rows that are kept in tables (rows.py).
"""

from collections.abc import Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd

from turnover_assets.core import features, relations
from turnover_assets.core.arithmetic import Arithmetic
from turnover_assets.core.features import IDENTITY, Feature
from turnover_assets.core.models import Rows
from turnover_assets.core.models.base import Floats
from turnover_assets.core.row_sources import Places, Source, chosen_cutoffs, sources_of
from turnover_assets.core.side_by_side import in_blocks
from turnover_assets.core.tables import Columns
from turnover_assets.panel import PanelSpec

BLOCK = 32_768  # rows made at a time, so that they stay in the processor's cache
APART = 16  # values between columns, or all of them would compete for the same places in the cache


def select_rows(con: duckdb.DuckDBPyConnection, panel: PanelSpec, *, known: bool = False) -> Rows:
    """The rows of the chosen pairs, ordered by series, cutoff and horizon.

    They are those of features.rows_sql, to the last bit. What a feature reads of one relation is made by
    DuckDB, once for each row of the relation, and looked up for the pairs. What reads several is arithmetic
    on such values, done on arrays; where it is more than that, DuckDB is asked pair by pair.

    Args:
        con: Connection on which pairs were chosen.
        panel: The panel.
        known: Only the rows whose outcome is known.
    """
    chosen = features.features(panel)
    names = tuple(feature.name for feature in chosen)
    mixed = [feature for feature in chosen if not feature.alone]
    arithmetic = _arithmetic(con, panel, mixed)
    cutoffs = chosen_cutoffs(con)
    sources = list(sources_of(con, panel, chosen, arithmetic.reads, cutoffs))
    of = np.repeat(np.arange(len(cutoffs["before"]), dtype=np.int32), cutoffs["horizons"])
    ahead = (np.arange(len(of)) - cutoffs["before"][of] + 1).astype(np.int32)
    kept, threads = np.ones(len(of), dtype=np.bool_), relations.threads(con)
    if known:
        kept = ~np.isnan(_looked_up(["actual"], sources, of, ahead, threads)["actual"])
        of, ahead = of[kept], ahead[kept]
    pairs = {"series_id": cutoffs["series_id"][of], "cutoff": cutoffs["cutoff"][of], "horizon": ahead}
    pairs["t"] = pairs["cutoff"] + ahead
    pairs |= _looked_up(IDENTITY[len(pairs) :], sources, of, ahead, threads)
    x = np.empty((len(of), len(names)), dtype=np.float32)
    _fill_arrays(x, names, sources, of, ahead, arithmetic, threads)
    others = [feature for feature in mixed if feature.name not in arithmetic.results]
    _fill_by_duckdb(con, panel, others, x, names, kept)
    return Rows(pd.DataFrame(pairs, copy=False), x, names)


def _arithmetic(con: duckdb.DuckDBPyConnection, panel: PanelSpec, mixed: Sequence[Feature]) -> Arithmetic:
    read = list(dict.fromkeys(column for feature in mixed for column in feature.reads))
    types = con.sql(features.read_sql(panel, read)).types
    expressions = {feature.name: feature.sql for feature in mixed}
    return Arithmetic(con, expressions, dict(zip(read, map(str, types), strict=True)))


def _looked_up(
    names: Sequence[str], sources: Sequence[Source], of: Places, ahead: Places, threads: int
) -> Columns:
    """Columns that sources have, for each of the pairs; arguments as of _fill_arrays."""
    found = {name: np.empty(len(of)) for name in names}
    holding = [(source, found.keys() & source.columns.keys()) for source in sources]
    if missing := found.keys() - {name for _, held in holding for name in held}:
        raise KeyError(f"no relation holds {', '.join(sorted(missing))}")

    def fill(begin: int) -> None:
        block = slice(begin, begin + BLOCK)
        for source, held in holding:
            if held:
                place = source.position(of[block], ahead[block]).astype(np.intp)
            for name in held:
                np.take(source.columns[name], place, out=found[name][block], mode="clip")

    in_blocks(fill, len(of), BLOCK, threads)
    return found


def _fill_arrays(
    x: Floats,
    names: Sequence[str],
    sources: Sequence[Source],
    of: Places,
    ahead: Places,
    arithmetic: Arithmetic,
    threads: int,
) -> None:
    """Write the features that sources hold or arithmetic makes of them into their columns, a block at a time.

    Args:
        x: Shape (n, f), written to.
        names: Names of the f features.
        sources: What the n pairs share.
        of: Where among the chosen cutoffs that of each pair is, shape (n,).
        ahead: Horizons of the pairs, shape (n,).
        arithmetic: What else to make of the columns that are no features.
        threads: Blocks to fill at the same time.
    """
    at = {name: i for i, name in enumerate(names)}
    held = {name: (i, values) for i, source in enumerate(sources) for name, values in source.columns.items()}

    def fill(begin: int) -> None:
        block = x[begin : begin + BLOCK]
        turned = np.empty((len(names), BLOCK + APART), dtype=np.float32)[:, : len(block)]
        own = of[begin : begin + BLOCK], ahead[begin : begin + BLOCK]
        places = [source.position(*own).astype(np.intp) for source in sources]

        def column(name: str) -> Floats:
            source, values = held[name]
            return values[places[source]]

        for name in at.keys() & held.keys():
            source, values = held[name]
            np.take(values, places[source], out=turned[at[name]], mode="clip")
        for name, values in arithmetic.evaluate(column):
            turned[at[name]] = values
        block[:] = turned.T

    in_blocks(fill, len(x), BLOCK, threads)


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
