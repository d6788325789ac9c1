"""What is known of histories at each period: relations made of windows that move along them.

What belongs here: the windows of every series that end at a cutoff (`as_of`) and those around a target
period one and more seasons before (`around`), the same of the members of levels, and how uncertain a time of
year is. What does not: windows as such (moving.py), the histories (relations.py), and features (features.py).

A few series at a time are laid out as an array with a row each, so that it stays in the processor's cache.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt

from turnover_assets.core.anomalies.matrix import row_medians
from turnover_assets.core.moving import Floats, Moving, ratio
from turnover_assets.core.tables import Array, Columns, as_relation, read_columns, write_columns
from turnover_assets.panel import PanelSpec

YEARS = (1, 2, 3)  # seasons back of which shapes are made
GROWTH_LIMITS = (0.2, 5.0)  # a ratio beyond this says more about missing data than about growth
LEAST_OF_LEVEL = 0.01  # of the mean of its level is a series' scale at least
LEAST = 1e-9  # and this, where all of it is zero
NOTHING = 0.05  # of the scale, added before a logarithm, which nothing sold has none of
FEWEST_ERRORS = 20  # series, or their median is chance
CELLS = 2**15  # of an array, so that it and what is made of it stay in the processor's cache
ROWS = 2**19  # read and written at a time
COLUMNS = 64  # of all series, of which medians are taken at a time


@dataclass(frozen=True)
class Windows:
    """Lengths in periods, for a frequency: recent single lags, means, and windows of growth."""

    lags: tuple[int, ...]
    means: tuple[int, ...]
    short: int
    medium: int

    @property
    def of_growth(self) -> tuple[int, int]:
        """The lengths of the windows over which growth and shapes are taken."""
        return self.short, self.medium


WINDOWS = {
    "week": Windows(lags=(0, 1, 2, 3), means=(4, 8, 13, 26, 52), short=4, medium=13),
    "day": Windows(lags=(0, 1, 2, 3, 4, 5, 6), means=(7, 28, 91, 364), short=28, medium=91),
}


def make_own(con: duckdb.DuckDBPyConnection, panel: PanelSpec, grid: str) -> None:
    """Make `around` and `as_of`: what is known of each series by itself, a row for each period.

    Args:
        con: Connection with the relations series, and the levels, which levels are made of first.
        panel: The panel.
        grid: Name of the relation of periods by series.
    """
    peaks = [f"peak_{years}" for years in YEARS]
    beside = _Beside(con, panel.report_level, ["mean_per_series", *peaks])
    member_of = _members(con, panel.report_level)
    names = "place, first_t, y, paired, year_ago, actual, reported"
    for number, chunks, rows in _chunks(con, grid, names):
        around = {name: rows[name] for name in ("series_id", "t", "place", "y", "actual", "reported")}
        as_of = {name: rows[name] for name in ("series_id", "t", "place")}
        as_of["age"] = rows["t"] - rows["first_t"]
        for block in _blocks(rows["series_id"], rows["t"]):
            y, paired, year_ago = (Moving(block.laid_out(rows[n])) for n in ("y", "paired", "year_ago"))
            level = beside.of(member_of[block.histories], block.periods)
            block.keep(around, _around(panel, y, [level[name] for name in peaks]), len(rows["t"]))
            known = _as_of(panel, y, paired, year_ago)
            known["last_seen"] = y.last_known() + block.first
            known["scale"] = _scale(known["scale_own"], level["mean_per_series"])
            block.keep(as_of, known, len(rows["t"]))
        _keep(con, "around", around, number, chunks)
        _keep(con, "as_of", as_of, number, chunks)


def make_level(con: duckdb.DuckDBPyConnection, panel: PanelSpec, level: str, totals: str) -> None:
    """Make `level_<name>`: growth of each member at a period, and season at and around it.

    Args:
        con: The connection.
        panel: The panel.
        level: Name of the level.
        totals: SQL of what its members add up to in each period.
    """
    rows = read_columns(con.sql(f"SELECT * FROM ({totals}) ORDER BY id, t"))
    made = {name: rows.pop(name) for name in ("id", "t")}
    for block in _blocks(made["id"], made["t"]):
        of = {name: Moving(block.laid_out(column)) for name, column in rows.items()}
        block.keep(made, _level(panel, of), len(made["t"]))
    write_columns(con, f"CREATE OR REPLACE TEMP TABLE level_{level} AS", made)


def season_errors(con: duckdb.DuckDBPyConnection, panel: PanelSpec, first: int, last: int) -> Floats:
    """How far off a season's values usually are at the time of year of each period, shape (periods,).

    What was sold a season before, times the growth known half a horizon ahead, is held against what came: the
    median over all series of the absolute logarithm of their ratio, as a mean over the same time of earlier
    seasons. It ends as long before the target period as the windows of `around`. Series that sold nothing
    both times say nothing, and nothing is known where fewer than FEWEST_ERRORS say something.

    Args:
        con: Connection with the relation grid.
        panel: The panel.
        first: First period.
        last: Last period.
    """
    season, cycle, ahead = panel.frequency.season, panel.frequency.cycle, -(-panel.horizon // 2)
    medium = WINDOWS[panel.frequency.every].medium
    found: list[Floats] = []
    for _, _, rows in _chunks(con, "grid", "y, paired, year_ago"):
        for block in _blocks(rows["series_id"], rows["t"]):
            y, paired, year_ago = (block.laid_out(rows[name]) for name in ("y", "paired", "year_ago"))
            growth = ratio(Moving(paired).mean(medium, ahead), Moving(year_ago).mean(medium, ahead))
            nothing = NOTHING * Moving(y).amount(season)
            expected = np.maximum(year_ago * _limited(growth), 0.0) + nothing
            with np.errstate(divide="ignore", invalid="ignore"):
                error = np.abs(np.log((np.maximum(paired, 0.0) + nothing) / expected))
            error[~(((paired != 0) | (year_ago != 0)) & (nothing > 0))] = np.nan
            of_all = np.full((len(error), last - first + 1), np.nan)
            of_all[:, block.periods - first] = error
            found.append(of_all)
    errors = Moving(_medians(found)[None])
    years = np.concatenate([_mean_around(errors, years * season, 2 * cycle) for years in YEARS])
    return Moving(years.T).mean(len(YEARS))[:, -1]


def _members(con: duckdb.DuckDBPyConnection, level: str) -> Array:
    """By number of a series, the number of the level's member that it belongs to."""
    rows = read_columns(con.sql(f"SELECT series_id, {level}_id AS id FROM series"))
    found = np.zeros(int(rows["series_id"].max(initial=0)) + 1, dtype=np.int64)
    found[rows["series_id"]] = rows["id"]
    return found


def _as_of(panel: PanelSpec, y: Moving, paired: Moving, year_ago: Moving) -> dict[str, Floats]:
    """What is known at a cutoff: windows that end at the period itself."""
    windows, season = WINDOWS[panel.frequency.every], panel.frequency.season
    sold_nothing = np.where(np.isnan(y.values), np.nan, y.values <= 0)
    return {
        **{f"lag_{k}": y.lag(k) for k in windows.lags},
        **{f"mean_{k}": y.mean(k) for k in sorted({*windows.means, windows.medium})},
        **_growths(windows, paired, year_ago),
        **_bases(windows, season, y),
        "scale_own": y.amount(season),
        "deviation": y.deviation(windows.medium),
        "zero_share": Moving(sold_nothing).mean(windows.medium),
    }


def _scale(own: Floats, of_level: Floats) -> Floats:
    """What a series' values are divided by; one of zeros still needs something, never nothing.

    It is rounded as features are: the last bits of a sum over a level depend on how DuckDB splits the rows,
    so on later ones.
    """
    least = np.fmax(LEAST_OF_LEVEL * np.nan_to_num(of_level), LEAST)
    return np.fmax(own, least).astype(np.float32).astype(np.float64)


def _around(panel: PanelSpec, y: Moving, peaks: Sequence[Floats]) -> dict[str, Floats]:
    """What stood around the target period one and more seasons earlier: windows aligned to the target.

    Means over several periods keep the peaks that the series' level had.
    """
    season, cycle = panel.frequency.season, panel.frequency.cycle
    found = {f"year_ago_{signed(-k)}": y.lag(season + k * cycle) for k in (-2, -1, 0, 1, 2)}
    for years, peak in zip(YEARS, peaks, strict=True):
        for name, reach in (("narrow", cycle), ("wide", 2 * cycle))[: 2 if years < YEARS[-1] else 1]:
            found[f"around_{years}_{name}"] = _mean_around(y, years * season, reach) * peak
    if cycle > 1:
        nearest = -(-panel.horizon // cycle) * cycle
        found |= {f"cycle_{j}": y.lag(nearest + j * cycle) for j in range(4)}
    return found


def _level(panel: PanelSpec, of: Mapping[str, Moving]) -> dict[str, Floats]:
    """The aggregates of a level's members: growth at the cutoff, and season at and around both ends."""
    windows, season, cycle = WINDOWS[panel.frequency.every], panel.frequency.season, panel.frequency.cycle
    total = of["total"]
    found = {
        **_growths(windows, of["paired"], of["year_ago"]),
        **_bases(windows, season, total),
        "mean_per_series": of["per_series"].mean(season),
    }
    for years in YEARS:
        peak = of["peak"].lag(years * season)
        found[f"peak_{years}"] = np.where(np.isnan(peak), 1.0, peak)
        found[f"around_{years}"] = _mean_around(total, years * season, cycle) * found[f"peak_{years}"]
        found[f"same_{years}"] = total.lag(years * season)
    return found


def _growths(windows: Windows, paired: Moving, year_ago: Moving) -> dict[str, Floats]:
    return {f"growth_{k}": _limited(ratio(paired.total(k), year_ago.total(k))) for k in windows.of_growth}


def _bases(windows: Windows, season: int, values: Moving) -> dict[str, Floats]:
    """Means over the windows of growth, one or more seasons before."""
    return {f"base_{years}_{k}": values.mean(k, years * season) for years in YEARS for k in windows.of_growth}


def _mean_around(values: Moving, before: int, reach: int) -> Floats:
    """Means over what stood so many periods before, and as many on either side of it as reach."""
    return values.mean(2 * reach + 1, before - reach)


def _limited(growth: Floats) -> Floats:
    low, high = GROWTH_LIMITS
    return np.minimum(np.maximum(growth, low), high)


def signed(k: int) -> str:
    """A distance in periods, as part of a column's name."""
    return f"plus_{k}" if k > 0 else f"minus_{-k}" if k < 0 else "same"


def _medians(errors: Sequence[Floats]) -> Floats:
    """Medians of the rows, by column; NaN where fewer than FEWEST_ERRORS are known."""
    found = np.full(errors[0].shape[1], np.nan)
    for begin in range(0, len(found), COLUMNS):
        some = np.concatenate([part[:, begin : begin + COLUMNS] for part in errors]).T
        enough = np.sum(~np.isnan(some), axis=1) >= FEWEST_ERRORS
        found[begin : begin + COLUMNS][enough] = row_medians(some[enough])
    return found


class _Beside:
    """Columns of a level's relation by member and period, NaN where it has nothing."""

    def __init__(self, con: duckdb.DuckDBPyConnection, level: str, names: Sequence[str]) -> None:
        rows = read_columns(con.sql(f"SELECT id, t, {', '.join(names)} FROM level_{level}"))
        ids, t = rows.pop("id"), rows.pop("t")
        self._first = int(t.min()) if len(t) else 0
        shape = int(ids.max(initial=0)) + 1, int(t.max(initial=self._first)) - self._first + 1
        self._values = {name: np.full(shape, np.nan) for name in names}
        for name, column in rows.items():
            self._values[name][ids, t - self._first] = column

    def of(self, members: Array, periods: Array) -> dict[str, Floats]:
        """The columns for members (n,) in periods (p,): arrays of shape (n, p)."""
        return {name: values[np.ix_(members, periods - self._first)] for name, values in self._values.items()}


@dataclass(frozen=True)
class _Block:
    """Some of the histories in a table of rows, laid out as an array.

    Attributes:
        rows: Which rows they are.
        histories: Their numbers, shape (histories,).
        first: The first period that one of them has.
        there: Shape (histories, periods): where there is a row.
    """

    rows: slice
    histories: Array
    first: int
    there: npt.NDArray[np.bool_]

    @property
    def periods(self) -> Array:
        """Numbers of the periods."""
        return np.arange(self.first, self.first + self.there.shape[1])

    def laid_out(self, column: Array) -> Floats:
        """A column of the rows, NaN where there is none: shape (histories, periods)."""
        found = np.full(self.there.shape, np.nan)
        found[self.there] = column[self.rows]
        return found

    def keep(self, columns: Columns, made: Mapping[str, Floats], size: int) -> None:
        """Write what was made into columns of so many rows."""
        for name, values in made.items():
            columns.setdefault(name, np.empty(size))[self.rows] = values[self.there]


def _blocks(numbers: Array, t: Array) -> Iterator[_Block]:
    """Rows in the order of histories and periods, whole histories, about CELLS rows at a time."""
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    ends = np.append(starts[1:], len(numbers))
    if not len(starts):
        yield _Block(slice(0, 0), numbers, 0, np.zeros((0, 0), dtype=np.bool_))
        return
    for part in np.split(np.arange(len(starts)), np.flatnonzero(np.diff(starts // CELLS)) + 1):
        rows = slice(starts[part[0]], ends[part[-1]])
        first = int(t[rows].min())
        there = np.zeros((len(part), int(t[rows].max()) - first + 1), dtype=np.bool_)
        there[np.repeat(np.arange(len(part)), ends[part] - starts[part]), t[rows] - first] = True
        yield _Block(rows, numbers[starts[part]], first, there)


def _chunks(con: duckdb.DuckDBPyConnection, grid: str, names: str) -> Iterator[tuple[int, int, Columns]]:
    """Columns of the grid, in the order of series and periods, whole series, about ROWS rows at a time.

    Yields:
        The number of the chunk from 0, how many there are, and the columns by name.
    """
    sizes = read_columns(con.sql(f"SELECT series_id, count(*) AS n FROM {grid} GROUP BY ALL ORDER BY ALL"))
    before = np.cumsum(sizes["n"]) - sizes["n"]
    chunks = np.split(sizes["series_id"], np.flatnonzero(np.diff(before // ROWS)) + 1)
    for number, ids in enumerate(chunks):
        chosen = f"series_id BETWEEN {ids[0]} AND {ids[-1]}" if len(ids) else "false"
        query = f"SELECT series_id, t, {names} FROM {grid} WHERE {chosen} ORDER BY series_id, t"
        yield number, len(chunks), read_columns(con.sql(query))


def _keep(con: duckdb.DuckDBPyConnection, name: str, columns: Columns, number: int, chunks: int) -> None:
    """Make a temporary relation of columns, or add the next chunk to it.

    A single chunk stays as it is; DuckDB copies more than that into a table, which need not be in memory.
    """
    if number == 0:
        con.unregister(name)
        con.execute(f"DROP TABLE IF EXISTS temp.main.{name}")
    if chunks == 1:
        con.register(name, as_relation(columns))
    else:
        write_columns(con, f"INSERT INTO {name}" if number else f"CREATE TEMP TABLE {name} AS", columns)
