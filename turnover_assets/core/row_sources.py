"""What the chosen pairs share, as arrays: the relations they read, and which row of each a pair has.

What belongs here: reading relations once for each of their rows, and the places of pairs in them. What does
not: rows (row_arrays.py), the features (features.py), and the relations and the choice of pairs
(relations.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt

from turnover_assets.core import features, relations
from turnover_assets.core.arithmetic import Arithmetic
from turnover_assets.core.features import Feature
from turnover_assets.core.models.base import Floats
from turnover_assets.core.side_by_side import in_blocks
from turnover_assets.core.tables import Array, Columns, read_columns
from turnover_assets.panel import PanelSpec

BLOCK = 4_096  # members and cutoffs of a level at a time, so that they stay in the processor's cache
FEW = 0.5  # of all cutoffs; where fewer are chosen, only what they need is read

Places = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Source:
    """Columns of which many pairs share a value.

    Attributes:
        columns: Features and facts by name, and by `alias.name` what arithmetic reads; each of m values.
        position: Where among the m the values of pairs are, shape (n,), of where among the chosen cutoffs
            those of the pairs are and of their horizons, both of shape (n,).
    """

    columns: Columns
    position: Callable[[Places, Places], Places]


def chosen_cutoffs(con: duckdb.DuckDBPyConnection) -> Columns:
    """The relation `cutoffs`, in the order of pairs; and `before`, how many pairs others have before each."""
    columns = read_columns(con.sql("SELECT * FROM cutoffs ORDER BY place_cutoff"))
    columns["before"] = np.cumsum(columns["horizons"]) - columns["horizons"]
    return columns


def sources_of(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    chosen: Sequence[Feature],
    reads: Sequence[str],
    cutoffs: Columns,
) -> Iterator[Source]:
    """All that is needed to make the rows of the chosen pairs, but for what is made of it.

    Args:
        con: Connection on which pairs were chosen.
        panel: The panel.
        chosen: All features; those that read one relation alone are made.
        reads: Columns that arithmetic reads, as `alias.name`.
        cutoffs: See chosen_cutoffs.
    """
    asked = _Asked(con, panel, chosen, reads)
    there = con.execute("SELECT count(*) FROM as_of").fetchall()[0][0]
    few = len(cutoffs["before"]) < FEW * there
    series = asked.read("s", ["s.series_id", "s.in_force", *(f"s.{name}_id" for name in panel.level_names)])
    row_of_series = _row_of(series.pop("series_id"))
    members = {level: series.pop(f"{level}_id") for level in panel.level_names}
    own = row_of_series[cutoffs["series_id"]]
    ids = {level: member[own] for level, member in members.items()}

    yield Source({"p.horizon": np.arange(panel.horizon + 1, dtype=np.float64)}, lambda _, ahead: ahead)
    yield Source(_at_cutoffs(asked, cutoffs, _taken(series, own), ids), lambda of, _: of)
    yield _known(asked, cutoffs["place_cutoff"], few=few)
    yield _around(asked, cutoffs["place_cutoff"], row_of_series, members, few=few)
    for level in panel.level_names:
        yield from _between(asked, level, ids[level], cutoffs["cutoff"])


@dataclass(frozen=True)
class _Asked:
    """What is needed of relations; attributes are the arguments of sources_of."""

    con: duckdb.DuckDBPyConnection
    panel: PanelSpec
    chosen: Sequence[Feature]
    reads: Sequence[str]

    def needed(self, alias: str) -> tuple[list[Feature], list[str]]:
        """The features that a relation makes alone, and what the arithmetic reads of it."""
        made = [feature for feature in self.chosen if feature.alone == alias]
        return made, [column for column in self.reads if column.startswith(f"{alias}.")]

    def read(self, alias: str, keys: Sequence[str], where: str = "") -> Columns:
        """What is needed of a relation, for each of its rows, beside the columns of the SQL of `keys`."""
        made, read = self.needed(alias)
        sql = features.relation_sql(self.panel, alias, keys, made, read)
        return read_columns(self.con.sql(f"{sql} {where}"))

    def read_level(self, alias: str, ids: Array, t: Array) -> Columns:
        """What is needed of a level, for the given members and periods, both of shape (n,)."""
        if not any(self.needed(alias)):
            return {}
        columns = self.read(alias, [f"{alias}.id", f"{alias}.t"])
        rows = _LevelRows(columns.pop("id"), columns.pop("t"))
        return _taken(columns, rows.row[rows.place(ids, t)])


def _at_cutoffs(asked: _Asked, cutoffs: Columns, series: Columns, ids: Mapping[str, Array]) -> Columns:
    """What is needed of the series and levels at the chosen cutoffs."""
    found = {**series, "p.cutoff": cutoffs["cutoff"].astype(np.float64)}
    for level, members in ids.items():
        found |= asked.read_level(f"c_{level}", members, cutoffs["cutoff"])
    return found


def _known(asked: _Asked, place: Array, *, few: bool) -> Source:
    """What each series knew at the chosen cutoffs, whose places in its grid are given."""
    where = "WHERE k.place IN (SELECT place_cutoff FROM cutoffs)" if few else ""
    columns = asked.read("k", ["k.place", "k.scale"], where)
    row = _row_of(columns.pop("place"))[place]
    return Source(columns, lambda of, _: row[of])


def _around(
    asked: _Asked, place: Array, row_of_series: Places, members: Mapping[str, Array], *, few: bool
) -> Source:
    """What stood around the target periods, and all else that belongs to them."""
    targets = "(SELECT place_target FROM pairs)"
    keys = ["r.place", "r.series_id", "r.t", "r.actual", "r.reported"]
    columns = asked.read("r", keys, f"WHERE r.place IN {targets}" if few else "")
    places, t = columns.pop("place"), columns.pop("t")
    own = row_of_series[columns.pop("series_id")]
    days = asked.read("calendar", ["calendar.t AS place", "calendar.season_error"])
    columns |= _taken(days, _row_of(days.pop("place"))[t]) | {"p.t": t.astype(np.float64)}
    for level, ids in members.items():
        columns |= asked.read_level(f"t_{level}", ids[own], t)
    for table in asked.panel.covariates:
        planned = asked.read(f"v_{table.name}", ["p.place"], f"WHERE p.place IN {targets}" if few else "")
        columns |= _taken(planned, _row_of(planned.pop("place"))[places])
    row = _row_of(places)
    return Source(columns, lambda of, ahead: row[place[of] + ahead])


class _LevelRows:
    """Where the rows of a level are, by member and period.

    Attributes:
        row: The row by place; 0 where there is none.
    """

    def __init__(self, ids: Array, t: Array) -> None:
        self._first = int(t.min(initial=0))
        self._span = int(t.max(initial=0)) - self._first + 1
        self.row: Places = np.zeros((int(ids.max(initial=0)) + 1) * self._span, dtype=np.int32)
        self.row[self.place(ids, t)] = np.arange(len(ids))

    def place(self, ids: Array, t: Array) -> npt.NDArray[np.int64]:
        """The places of members in periods; the next period has the next place."""
        found: npt.NDArray[np.int64] = ids.astype(np.int64) * self._span + (t - self._first)
        return found


def _between(asked: _Asked, level: str, ids: Array, cutoff: Array) -> Iterator[Source]:
    """How a level's members stood at the cutoff and around the target, once for all their series.

    Args:
        asked: What the rows need.
        level: The level.
        ids: Its members at the chosen cutoffs, shape (n,).
        cutoff: Those cutoffs, shape (n,).

    Raises:
        ValueError: An expression is more than arithmetic.py can do.
    """
    expressions = {
        f"b_{level}.{name}": sql for name, sql in relations.between_expressions(asked.panel).items()
    }
    expressions = {name: sql for name, sql in expressions.items() if name in asked.reads}
    if not expressions:
        return
    read = list(dict.fromkeys(column for sql in expressions.values() for column in features.columns_of(sql)))
    types = asked.con.sql(f"SELECT {', '.join(read)} FROM level_{level} AS c, level_{level} AS t").types
    arithmetic = Arithmetic(asked.con, expressions, dict(zip(read, map(str, types), strict=True)))
    if others := expressions.keys() - set(arithmetic.results):
        raise ValueError(f"{', '.join(sorted(others))}: levels are compared by plain arithmetic only")
    names = dict.fromkeys(column.split(".")[1] for column in read)
    held = read_columns(asked.con.sql(f"SELECT id, t, {', '.join(names)} FROM level_{level}"))
    rows = _LevelRows(held.pop("id"), held.pop("t"))
    place, horizon = rows.place(ids, cutoff), asked.panel.horizon
    is_there = np.zeros(len(rows.row), dtype=np.bool_)
    is_there[place] = True
    places = np.flatnonzero(is_there)
    found = {name: np.empty((len(places), horizon)) for name in expressions}

    def fill(begin: int) -> None:
        own = places[begin : begin + BLOCK, None]
        at = {"c": rows.row[own], "t": rows.row[own + np.arange(1, horizon + 1)]}

        def column(name: str) -> Floats:
            alias, _, name = name.partition(".")
            values: Floats = held[name][at[alias]]
            return values

        for name, values in arithmetic.evaluate(column):
            found[name][begin : begin + BLOCK] = values

    in_blocks(fill, len(places), BLOCK, relations.threads(asked.con))
    number = np.cumsum(is_there, dtype=np.int32) - 1
    first = number[place] * np.int32(horizon) - 1
    yield Source(
        {name: values.ravel() for name, values in found.items()}, lambda of, ahead: first[of] + ahead
    )


def _taken(columns: Mapping[str, Array], position: Array) -> Columns:
    return {name: values[position] for name, values in columns.items()}


def _row_of(place: Array) -> Places:
    """By place, where among the given ones it stands."""
    found: Places = np.zeros(int(place.max(initial=-1)) + 1, dtype=np.int32)
    found[place] = np.arange(len(place))
    return found
