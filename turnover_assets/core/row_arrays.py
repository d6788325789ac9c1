"""Feature rows of the chosen pairs as arrays, without a table between.

What belongs here: which row of each relation a pair has, and handing what needs several relations to
arithmetic.py or to DuckDB. What does not: the features (features.py), the relations and the choice of pairs
(relations.py), and rows that are kept in tables (rows.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd

from turnover_assets.core import features, relations
from turnover_assets.core.arithmetic import Arithmetic
from turnover_assets.core.features import IDENTITY, Feature
from turnover_assets.core.models import Rows
from turnover_assets.core.models.base import Floats
from turnover_assets.panel import PanelSpec

BLOCK = 32_768  # rows made at a time, so that they stay in the processor's cache
APART = 16  # values between columns, or all of them would compete for the same places in the cache
FEW = 0.5  # of all cutoffs; where fewer are chosen, only what they need is read
FACTS = frozenset(IDENTITY[4:])

Columns = dict[str, npt.NDArray[Any]]
Places = npt.NDArray[np.int32]


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
    cutoffs = _columns(con.sql("SELECT * FROM cutoffs ORDER BY before"))
    of = np.repeat(np.arange(len(cutoffs["before"]), dtype=np.int32), cutoffs["horizons"])
    ahead = (np.arange(len(of)) - cutoffs["before"][of] + 1).astype(np.int32)
    sources = [
        _Source({"p.horizon": np.arange(panel.horizon + 1, dtype=np.float64)}, ahead),
        *_looked_up(_Asked(con, panel, chosen, arithmetic.reads), cutoffs, of, ahead),
    ]
    pairs = {"series_id": cutoffs["series_id"][of], "cutoff": cutoffs["cutoff"][of], "horizon": ahead}
    pairs["t"] = pairs["cutoff"] + ahead
    for source in sources:
        pairs |= {name: source.columns.pop(name)[source.position] for name in FACTS & source.columns.keys()}
    identity = pd.DataFrame({name: pairs[name] for name in IDENTITY}, copy=False)
    kept = identity["actual"].notna().to_numpy() if known else np.ones(len(identity), dtype=np.bool_)
    if not kept.all():
        identity = identity[kept].reset_index(drop=True)
        sources = [_Source(source.columns, source.position[kept]) for source in sources]
    x = np.empty((len(identity), len(names)), dtype=np.float32)
    _fill_arrays(x, names, sources, arithmetic, relations.threads(con))
    others = [feature for feature in mixed if feature.name not in arithmetic.results]
    _fill_by_duckdb(con, panel, others, x, names, kept)
    return Rows(identity, x, names)


@dataclass(frozen=True)
class _Source:
    """Columns of which many pairs share a value.

    Attributes:
        columns: Features by name, and by `alias.name` what arithmetic reads; each of m values.
        position: Where among the m the value of each of n pairs is, shape (n,).
    """

    columns: Columns
    position: Places


def _arithmetic(con: duckdb.DuckDBPyConnection, panel: PanelSpec, mixed: Sequence[Feature]) -> Arithmetic:
    read = list(dict.fromkeys(column for feature in mixed for column in feature.reads))
    types = con.sql(features.read_sql(panel, read)).types
    expressions = {feature.name: feature.sql for feature in mixed}
    return Arithmetic(con, expressions, dict(zip(read, map(str, types), strict=True)))


@dataclass(frozen=True)
class _Asked:
    """What the rows need of relations.

    Attributes:
        con: Connection with the relations.
        panel: The panel.
        chosen: All features.
        reads: Columns that arithmetic reads, as `alias.name`.
    """

    con: duckdb.DuckDBPyConnection
    panel: PanelSpec
    chosen: Sequence[Feature]
    reads: Sequence[str]

    def read(self, alias: str, keys: Sequence[str], where: str = "") -> Columns:
        """What is needed of a relation, for each of its rows, beside the columns of the SQL of `keys`."""
        made = [feature for feature in self.chosen if feature.alone == alias]
        read = [column for column in self.reads if column.startswith(f"{alias}.")]
        sql = features.relation_sql(self.panel, alias, keys, made, read)
        return _columns(self.con.sql(f"{sql} {where}"))


def _looked_up(asked: _Asked, cutoffs: Columns, of: Places, ahead: Places) -> Iterator[_Source]:
    """What relations hold of cutoffs, of target periods, and of levels between the two.

    Args:
        asked: What the rows need.
        cutoffs: The chosen cutoffs.
        of: Where among the cutoffs that of each of n pairs is, shape (n,).
        ahead: Horizons of the pairs, shape (n,).
    """
    levels = asked.panel.level_names
    rows_there = asked.con.execute("SELECT count(*) FROM as_of").fetchall()[0][0]
    few = len(cutoffs["before"]) < FEW * rows_there

    series = asked.read("s", ["s.series_id", "s.in_force", *(f"s.{level}_id" for level in levels)])
    row_of_series = _row_of(series.pop("series_id"))
    members = {level: series.pop(f"{level}_id") for level in levels}

    own = row_of_series[cutoffs["series_id"]]
    ids = {level: member[own] for level, member in members.items()}
    where = "WHERE k.place IN (SELECT place_cutoff FROM cutoffs)" if few else ""
    known = asked.read("k", ["k.place", "k.scale"], where)
    at_cutoff = _taken(series, own) | _taken(known, _row_of(known.pop("place"))[cutoffs["place_cutoff"]])
    at_cutoff["p.cutoff"] = cutoffs["cutoff"].astype(np.float64)
    for level in levels:
        at_cutoff |= _of_level(asked, f"c_{level}", ids[level], cutoffs["cutoff"])
    yield _Source(at_cutoff, of)

    targets = "(SELECT place_target FROM pairs)"
    at_target = asked.read(
        "r",
        ["r.place", "r.series_id", "r.t", "r.actual", "r.reported"],
        f"WHERE r.place IN {targets}" if few else "",
    )
    place, t = at_target.pop("place"), at_target.pop("t")
    own = row_of_series[at_target.pop("series_id")]
    days = asked.read("calendar", ["calendar.t AS place"])
    at_target |= _taken(days, _row_of(days.pop("place"))[t])
    at_target["p.t"] = t.astype(np.float64)
    for level in levels:
        at_target |= _of_level(asked, f"t_{level}", members[level][own], t)
    for table in asked.panel.covariates:
        planned = asked.read(f"v_{table.name}", ["p.place"], f"WHERE p.place IN {targets}" if few else "")
        at_target |= _taken(planned, _row_of(planned.pop("place"))[place])
    yield _Source(at_target, _row_of(place)[cutoffs["place_cutoff"][of] + ahead])

    for level in levels:
        between, first = _between(asked, level, ids[level], cutoffs["cutoff"])
        if between:
            yield _Source(between, first[of] + ahead - 1)


def _of_level(asked: _Asked, alias: str, ids: npt.NDArray[Any], t: npt.NDArray[Any]) -> Columns:
    """What is needed of a level, for the given members and periods, both of shape (n,)."""
    columns = asked.read(alias, [f"{alias}.id", f"{alias}.t"])
    rows = _LevelRows(columns.pop("id"), columns.pop("t"))
    return _taken(columns, rows.row[rows.place(ids, t)]) if columns else {}


class _LevelRows:
    """Where the rows of a level are, by member and period.

    Attributes:
        row: The row by place; 0 where there is none.
    """

    def __init__(self, ids: npt.NDArray[Any], t: npt.NDArray[Any]) -> None:
        self._first = int(t.min(initial=0))
        self._span = int(t.max(initial=0)) - self._first + 1
        self.row: Places = np.zeros((int(ids.max(initial=0)) + 1) * self._span, dtype=np.int32)
        self.row[self.place(ids, t)] = np.arange(len(ids))

    def place(self, ids: npt.NDArray[Any], t: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The places of members in periods; the next period has the next place."""
        found: npt.NDArray[np.int64] = ids.astype(np.int64) * self._span + (t - self._first)
        return found


def _between(
    asked: _Asked, level: str, ids: npt.NDArray[Any], cutoff: npt.NDArray[Any]
) -> tuple[Columns, Places]:
    """How a level's members stood at the cutoff and around the target, once for all their series.

    Args:
        asked: What the rows need.
        level: The level.
        ids: Its members at the chosen cutoffs, shape (n,).
        cutoff: Those cutoffs, shape (n,).

    Returns:
        Columns with a value for each horizon of each member and cutoff, by `b_<level>.name`, and where among
        them those of the n cutoffs begin; no columns where none is read.
    """
    expressions = {
        f"b_{level}.{name}": sql for name, sql in relations.between_expressions(asked.panel).items()
    }
    expressions = {name: sql for name, sql in expressions.items() if name in asked.reads}
    if not expressions:
        return {}, np.zeros(0, dtype=np.int32)
    read = list(dict.fromkeys(column for sql in expressions.values() for column in features.columns_of(sql)))
    types = asked.con.sql(f"SELECT {', '.join(read)} FROM level_{level} AS c, level_{level} AS t").types
    arithmetic = Arithmetic(asked.con, expressions, dict(zip(read, map(str, types), strict=True)))
    names = dict.fromkeys(column.split(".")[1] for column in read)
    held = _columns(asked.con.sql(f"SELECT id, t, {', '.join(names)} FROM level_{level}"))
    rows = _LevelRows(held.pop("id"), held.pop("t"))
    place, horizon = rows.place(ids, cutoff), asked.panel.horizon
    is_there = np.zeros(len(rows.row), dtype=np.bool_)
    is_there[place] = True
    places = np.flatnonzero(is_there)
    found = {name: np.empty((len(places), horizon)) for name in expressions}
    block = max(1, BLOCK // horizon)

    def fill(begin: int) -> None:
        own = places[begin : begin + block, None]
        at = {"c": rows.row[own], "t": rows.row[own + np.arange(1, horizon + 1)]}

        def column(name: str) -> Floats:
            alias, _, name = name.partition(".")
            values: Floats = held[name][at[alias]]
            return values

        for name, values in arithmetic.evaluate(column):
            found[name][begin : begin + block] = values

    with ThreadPoolExecutor(relations.threads(asked.con)) as pool:
        for _ in pool.map(fill, range(0, len(places), block)):
            pass
    number = np.cumsum(is_there, dtype=np.int32) - 1
    return {name: values.ravel() for name, values in found.items()}, number[place] * np.int32(horizon)


def _taken(columns: Mapping[str, npt.NDArray[Any]], position: npt.NDArray[Any]) -> Columns:
    return {name: values[position] for name, values in columns.items()}


def _row_of(place: npt.NDArray[Any]) -> Places:
    """By place, where among the given ones it stands."""
    found: Places = np.zeros(int(place.max(initial=-1)) + 1, dtype=np.int32)
    found[place] = np.arange(len(place))
    return found


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
    held = {name: (i, values) for i, source in enumerate(sources) for name, values in source.columns.items()}

    def fill(begin: int) -> None:
        block = x[begin : begin + BLOCK]
        turned = np.empty((len(names), BLOCK + APART), dtype=np.float32)[:, : len(block)]
        places = [source.position[begin : begin + BLOCK].astype(np.intp) for source in sources]

        def column(name: str) -> Floats:
            source, values = held[name]
            return values[places[source]]

        for name in at.keys() & held.keys():
            source, values = held[name]
            np.take(values, places[source], out=turned[at[name]], mode="clip")
        for name, values in arithmetic.evaluate(column):
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
