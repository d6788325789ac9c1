"""The history as a matrix of series by periods, and what peers say a value should have been.

What belongs here: reading the matrix, groups of series, expected values from peers. What does not: judging
any value.

Expected values come from a multiplicative two-way fit: a series' value is its share of its class times the
class's total in the period (the maximum-likelihood fit of a Poisson model with two fixed effects, by
iterative proportional fitting; Deming & Stephan 1940). A group is always judged against class totals
without its own values, as an indirectly standardised ratio of observed to expected.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd

from turnover_assets.core.anomalies.findings import Member
from turnover_assets.panel import PanelSpec

Floats = npt.NDArray[np.float64]
MAD_TO_DEVIATION = 1.4826  # from the median absolute deviation to the standard deviation of a normal one
Integers = npt.NDArray[np.int64]

FITTING_ROUNDS = 6
TINY = 1e-9


@dataclass(frozen=True)
class History:
    """Reported values up to a cutoff.

    Attributes:
        values: Shape (series, periods), NaN where there is no row.
        first: Period index of the first column.
        members: A row a series: its keys, and the member of each level that is an attribute.
    """

    values: Floats
    first: int
    members: pd.DataFrame

    @property
    def periods(self) -> int:
        """Number of periods; the last one is the cutoff."""
        return int(self.values.shape[1])


@dataclass(frozen=True)
class Grouping:
    """Series put together by the members of a level, and their peers.

    Attributes:
        level: Name of the level; "series" where each series is its own group.
        names: The selector of each group.
        group: Group of each series (position in `names`).
        peers: Class of each series; those of its class in other groups are its peers.
        named_elsewhere: Groups that are just one group of a finer level, such as a region with one shop.
    """

    level: str
    names: Sequence[dict[str, Member]]
    group: Integers
    peers: Integers
    named_elsewhere: frozenset[int] = frozenset()

    @cached_property
    def count(self) -> int:
        """Number of groups."""
        return len(self.names)


def read_history(con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int) -> History:
    """Reported values of the cleaned series table up to period `last`."""
    name, keys = panel.series.name, list(panel.keys)
    attributes = [level for level in panel.level_names if level not in keys]
    joins = " ".join(
        f"LEFT JOIN cleaned.{table.name} USING ({', '.join(table.keys)})"
        for table in panel.static
        if {column.name for column in table.columns} & set(attributes)
    )
    columns = ", ".join([*keys, *attributes])
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE history_series AS SELECT {columns}, "
        f"row_number() OVER (ORDER BY {', '.join(keys)}) - 1 AS position "
        f"FROM (SELECT DISTINCT {', '.join(keys)} FROM cleaned.{name} WHERE t <= {last}) {joins}"
    )
    members = con.execute(f"SELECT {columns} FROM history_series ORDER BY position").df()
    cells = con.execute(
        f"SELECT position, t, {panel.target} AS y FROM cleaned.{name} "
        f"JOIN history_series USING ({', '.join(keys)}) WHERE t <= {last}"
    ).fetchnumpy()
    con.execute("DROP TABLE history_series")
    first = int(np.min(cells["t"])) if len(cells["t"]) else last
    values = np.full((len(members), last - first + 1), np.nan)
    values[np.asarray(cells["position"]), np.asarray(cells["t"]) - first] = np.asarray(cells["y"])
    return History(values, first, members)


def groupings(panel: PanelSpec, history: History) -> list[Grouping]:
    """The levels as groups of series, the largest groups first, and at the end every series by itself.

    Peers of a series, for a level, share all of its keys but those that make out the member: for a level of
    shops, the same department in other shops.
    """
    found = []
    for level in panel.level_names:
        others = [key for key in panel.keys if key not in _keys_of(panel, level)]
        group, names = _numbered(history.members, [level])
        if 1 < len(names) < len(history.members):
            found.append(Grouping(level, names, group, _numbered(history.members, others)[0]))
    found.sort(key=lambda grouping: grouping.count)
    found = [replace(g, named_elsewhere=_named_elsewhere(g, found[i + 1 :])) for i, g in enumerate(found)]
    group, names = _numbered(history.members, list(panel.keys))
    classes = [_numbered(history.members, [key])[0] for key in panel.keys] if len(panel.keys) > 1 else []
    classes.append(np.zeros(len(group), dtype=np.int64))
    alone = [Grouping("series", names, group, peers) for peers in classes]
    return [*found, min(alone, key=lambda grouping: _unlikeness(history.values, grouping))]


def _unlikeness(values: Floats, grouping: Grouping) -> float:
    """How loosely series follow their peers: median size of the steps of their log ratios."""
    steps = np.abs(np.diff(log_ratio(values, compare_with_peers(values, grouping).expected), axis=1))
    known = steps[np.isfinite(steps)]
    return float(np.median(known)) if len(known) else float("inf")


def _keys_of(panel: PanelSpec, level: str) -> tuple[str, ...]:
    if level in panel.keys:
        return (level,)
    return next(table.keys for table in panel.static if level in {c.name for c in table.columns})


def _numbered(members: pd.DataFrame, columns: list[str]) -> tuple[Integers, list[dict[str, Member]]]:
    """Number of each row's combination of values, and the combinations."""
    if not columns:
        return np.zeros(len(members), dtype=np.int64), [{}]
    grouped = members.groupby(columns, sort=True, dropna=False)
    names: list[dict[str, Member]] = [
        dict(zip(columns, _plain(name if isinstance(name, tuple) else (name,)), strict=True))
        for name, _ in grouped
    ]
    numbers: Integers = np.asarray(grouped.ngroup(), dtype=np.int64)
    return numbers, names


def _plain(values: tuple[object, ...]) -> list[Member]:
    """Numbers of numpy as Python's own."""
    return [value.item() if isinstance(value, np.generic) else value for value in values]  # type: ignore[misc]


def _named_elsewhere(grouping: Grouping, finer: Sequence[Grouping]) -> frozenset[int]:
    whole = {tuple(np.flatnonzero(other.group == i)) for other in finer for i in range(other.count)}
    return frozenset(i for i in range(grouping.count) if tuple(np.flatnonzero(grouping.group == i)) in whole)


def add_up(values: Floats, group: Integers, count: int) -> Floats:
    """Sums over the series of each group: shape (count, periods)."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(count))
    total: Floats = np.add.reduceat(values[order], starts, axis=0)  # every group has a series
    return total


@dataclass(frozen=True)
class Peers:
    """What peers say of each value.

    Attributes:
        share: Shape (series,): each series' part of its class.
        expected: Shape (series, periods): share times the class's index without the own group; NaN where no
            peer reported.
    """

    share: Floats
    expected: Floats


def compare_with_peers(values: Floats, grouping: Grouping) -> Peers:
    """Expected values from peers outside of each series' own group."""
    known = ~np.isnan(values)
    amounts = np.where(known, np.maximum(values, 0.0), 0.0)
    classes = int(grouping.peers.max()) + 1
    share, total, weight = _two_way(amounts, known, grouping.peers, classes)
    # Each class's sums without the own group's, for every pair of class and group that occurs.
    pairs, pair = np.unique(grouping.peers * grouping.count + grouping.group, return_inverse=True)
    of_class = pairs // grouping.count
    others = total[of_class] - add_up(amounts, pair, len(pairs))
    weight = weight[of_class] - add_up(known * share[:, None], pair, len(pairs))
    with np.errstate(divide="ignore", invalid="ignore"):
        index = np.where(weight > TINY, others / weight, np.nan)
    return Peers(share, share[:, None] * index[pair])


def _two_way(
    amounts: Floats, known: npt.NDArray[np.bool_], peers: Integers, classes: int
) -> tuple[Floats, Floats, Floats]:
    """Shares of the series, and for each class and period the sums of amounts and of shares known."""
    total, sums = add_up(amounts, peers, classes), amounts.sum(axis=1)
    index = np.ones_like(total)
    for _ in range(FITTING_ROUNDS):
        share = sums / np.maximum((known * index[peers]).sum(axis=1), TINY)
        weight = add_up(known * share[:, None], peers, classes)
        index = np.where(weight > TINY, total / np.maximum(weight, TINY), 0.0)
        index /= np.maximum(index.mean(axis=1, keepdims=True), TINY)
    share = sums / np.maximum((known * index[peers]).sum(axis=1), TINY)
    return share, total, add_up(known * share[:, None], peers, classes)


def log_ratio(observed: Floats, expected: Floats) -> Floats:
    """Logarithm of observed over expected; NaN where either is not above zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(observed / expected)
    return np.where(np.isfinite(ratio), ratio, np.nan)


def row_medians(values: Floats) -> Floats:
    """Medians along the last axis ignoring NaN, NaN where all are: shape `values.shape[:-1]`."""
    ordered = np.sort(values, axis=-1)  # NaN come last
    known = np.sum(~np.isnan(values), axis=-1, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum(known - 1, 0) // 2, axis=-1)
    high = np.take_along_axis(ordered, np.minimum(known // 2, values.shape[-1] - 1), axis=-1)
    medians: Floats = np.where(known > 0, (low + high) / 2.0, np.nan)[..., 0]
    return medians


def row_means(values: Floats) -> Floats:
    """Means along the last axis ignoring NaN, zero where all are: shape `values.shape[:-1]`."""
    means: Floats = np.nansum(values, axis=-1) / np.maximum(np.sum(~np.isnan(values), axis=-1), 1)
    return means
