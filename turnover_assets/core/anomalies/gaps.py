"""Gaps: periods of a live series without a value, series that stopped, and zeros that stand for missing.

What belongs here: finding them, and putting those that belong together into one. What does not: periods
before a series' first value, and series that are often without one: for them a gap is no news.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from turnover_assets.core.anomalies.matrix import (
    Floats,
    Grouping,
    History,
    Integers,
    add_up,
    compare_with_peers,
    row_means,
)

Cells = npt.NDArray[np.bool_]

STEADY = 0.95  # share of periods with a value from which a gap of a series is news
STEADY_PERIODS = 26
SHORTEST_ALONE = 2  # periods of a gap of a single series
FEWEST_SERIES = 2  # for a gap of a whole group
MOST_OF_IT = 0.8  # of a group's series must be without a value to say it of the group
USUAL_AMOUNT = 0.25  # of its mean a series must be expected to have, for a zero to be out of place
ZERO_LOOKOUT = 8  # periods with values on either side of a run of zeros
SELLING = 0.75  # of the periods on either side must have a value that is not far below the expected
CLEAR = 3.0  # improbability (as a logarithm) above which zeros are told
LONGEST_ZEROS = 13  # a longer run is a closure


@dataclass(frozen=True)
class Gap:
    """A run of periods without (true) values.

    Attributes:
        kind: `missing`, `stopped` or `zeros`.
        grouping: The level at which it was found.
        group: Number of the group.
        start: First column concerned.
        end: Column after the last one concerned.
        rows: Values concerned: rows that are not there, or zeros that are.
        improbability: For zeros, the negative logarithm of the chance that such a run is true anywhere.
    """

    kind: Literal["missing", "stopped", "zeros"]
    grouping: Grouping
    group: int
    start: int
    end: int
    rows: int
    improbability: float = 0.0


def find_gaps(history: History, groupings: Sequence[Grouping], alive: int) -> list[Gap]:
    """All gaps, each at the widest level at which it holds.

    Args:
        history: Reported values.
        groupings: The levels, the largest groups first; the last one every series by itself.
        alive: A series has stopped where it has no value in so many periods up to the cutoff.
    """
    values = history.values
    lacking, stopped = _lacking(values, alive)
    zeros, chance = _false_zeros(values, groupings[-1])
    found = _grouped("stopped", stopped, groupings, MOST_OF_IT)
    found += _grouped("missing", lacking, groupings, MOST_OF_IT)
    compared = np.log(max(2, np.isfinite(values).sum()))
    surprise = np.where(zeros, -np.log(np.maximum(chance, 1e-12)), 0.0)
    for gap in _grouped("zeros", zeros, groupings, 1.0):  # what is emptied must all be zero
        rows = gap.grouping.group == gap.group
        improbability = float(surprise[rows, gap.start : gap.end].sum() - compared)
        found.append(replace(gap, improbability=improbability))
    return [gap for gap in found if gap.kind != "zeros" or gap.improbability >= CLEAR]


def _lacking(values: Floats, alive: int) -> tuple[Cells, Cells]:
    """Cells without a value: inside a steady series, and after the end of one."""
    known = ~np.isnan(values)
    at = np.arange(values.shape[1])
    first = np.where(known.any(axis=1), known.argmax(axis=1), values.shape[1])
    last = np.where(known.any(axis=1), values.shape[1] - 1 - known[:, ::-1].argmax(axis=1), -1)
    life = last - first + 1
    steady = (life >= STEADY_PERIODS) & (known.sum(axis=1) >= STEADY * life)
    inside = (at >= first[:, None]) & (at <= last[:, None])
    over = steady & (values.shape[1] - 1 - last >= alive)
    return ~known & inside & steady[:, None], (at > last[:, None]) & over[:, None]


def _false_zeros(values: Floats, grouping: Grouping) -> tuple[Cells, Floats]:
    """Zeros where the series sells before and after and should then, and the chance of a true one."""
    expected = compare_with_peers(values, grouping).expected
    usual = row_means(np.abs(values))[:, None]
    chance = _chance_of_zero(values, expected)
    out_of_place = (values == 0) & (expected >= USUAL_AMOUNT * usual)
    sells = values >= USUAL_AMOUNT * np.nan_to_num(expected, nan=np.inf)
    sums = np.pad(np.cumsum(sells, axis=1), ((0, 0), (1, 0)))
    series, start, end = _runs(values == 0)
    before, after = np.maximum(start - ZERO_LOOKOUT, 0), np.minimum(end + ZERO_LOOKOUT, values.shape[1])
    around = np.minimum(sums[series, start] - sums[series, before], sums[series, after] - sums[series, end])
    told = (around >= SELLING * ZERO_LOOKOUT) & (end - start <= LONGEST_ZEROS)
    found = _cells_of_runs(values.shape, series[told], start[told], end[told])
    return found & out_of_place, chance


def _chance_of_zero(values: Floats, expected: Floats) -> Floats:
    """Share of zeros among values of about the same expected size: shape as `values`."""
    known = np.isfinite(values) & np.isfinite(expected)
    edges = np.quantile(expected[known], np.linspace(0, 1, 51)[1:-1]) if known.any() else np.array([])
    size = np.searchsorted(edges, np.nan_to_num(expected))
    zeros = np.bincount(size[known], weights=(values[known] == 0).astype(float), minlength=51)
    share = (zeros + 0.5) / (np.bincount(size[known], minlength=51) + 1.0)
    found: Floats = share[size]
    return found


def _runs(cells: Cells) -> tuple[Integers, Integers, Integers]:
    """Row, start and end of each unbroken run, row by row."""
    edges = np.diff(np.pad(cells, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    return rows, starts, np.nonzero(edges == -1)[1]


def _cells_of_runs(shape: tuple[int, ...], rows: Integers, starts: Integers, ends: Integers) -> Cells:
    edges = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    np.add.at(edges, (rows, starts), 1)
    np.add.at(edges, (rows, ends), -1)
    return np.asarray(np.cumsum(edges, axis=1)[:, :-1] > 0)


def _grouped(
    kind: Literal["missing", "stopped", "zeros"], cells: Cells, groupings: Sequence[Grouping], share: float
) -> list[Gap]:
    """Runs of cells, each told once: of a whole group where that share of its series has them together."""
    left, found = cells.copy(), []
    for grouping in groupings:
        alone = grouping.level == "series"
        sizes = np.bincount(grouping.group, minlength=grouping.count)
        together = add_up(left.astype(float), grouping.group, grouping.count)
        whole = together >= np.maximum(1.0, share * sizes)[:, None]
        whole &= np.full(sizes.shape, alone)[:, None] | (sizes >= FEWEST_SERIES)[:, None]
        for group, start, end in np.stack(_runs(whole), axis=1).tolist():
            if not alone or end - start >= SHORTEST_ALONE:
                rows = int(together[group, start:end].sum())
                found.append(Gap(kind, grouping, group, start, end, rows))
        left &= ~whole[grouping.group]
    return found


def series_of(gap: Gap) -> Integers:
    """Positions of the series concerned."""
    return np.flatnonzero(gap.grouping.group == gap.group)
