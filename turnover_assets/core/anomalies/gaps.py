"""Gaps: periods of a live series without a value, series that stopped, and zeros that stand for missing.

What belongs here: finding them, and putting those that belong together into one. What does not: periods
before a series' first value, and series that are often without one: for them a gap is no news.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from turnover_assets.core.anomalies.matrix import Floats, Grouping, History, Integers, compare_with_peers

Cells = npt.NDArray[np.bool_]

STEADY = 0.95  # share of periods with a value from which a gap of a series is news
STEADY_PERIODS = 26
SHORTEST_ALONE = 2  # periods of a gap of a single series
FEWEST_SERIES = 2  # for a gap of a whole group
MOST_OF_IT = 0.8  # of a group's series must be without a value to say it of the group
USUAL_AMOUNT = 0.25  # of its mean a series must be expected to have, for a zero to be out of place
ZERO_LOOKOUT = 8  # periods with values on either side of a run of zeros
SELLING = 0.75  # of the periods on either side must have a value that is about usual
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
    for gap in _grouped("zeros", zeros, groupings, 1.0):  # what is emptied must all be zero
        rows = gap.grouping.group == gap.group
        inside = np.zeros(zeros.shape, dtype=bool)
        inside[rows, gap.start : gap.end] = True
        compared = np.log(max(2, np.isfinite(values).sum()))
        improbability = float(-np.log(np.maximum(chance[inside & zeros], 1e-12)).sum() - compared)
        found.append(Gap(gap.kind, gap.grouping, gap.group, gap.start, gap.end, gap.rows, improbability))
    return found


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
    usual = np.nanmean(np.abs(values), axis=1, keepdims=True)
    out_of_place = (values == 0) & (expected >= USUAL_AMOUNT * usual)
    chance = _chance_of_zero(values, expected)
    found = np.zeros(values.shape, dtype=bool)
    for series in np.flatnonzero(out_of_place.any(axis=1)):
        for start, end in _runs(values[series] == 0):
            beside = np.concatenate(
                [
                    values[series, max(0, start - ZERO_LOOKOUT) : start],
                    values[series, end : end + ZERO_LOOKOUT],
                ]
            )
            both_sides = start > 0 and end < values.shape[1]
            if both_sides and end - start <= LONGEST_ZEROS and (beside > 0).sum() >= ZERO_LOOKOUT:
                found[series, start:end] = out_of_place[series, start:end]
    return found, chance


def _chance_of_zero(values: Floats, expected: Floats) -> Floats:
    """Share of zeros among values of about the same expected size: shape as `values`."""
    known = np.isfinite(values) & np.isfinite(expected)
    edges = np.quantile(expected[known], np.linspace(0, 1, 51)[1:-1]) if known.any() else np.array([])
    size = np.searchsorted(edges, np.nan_to_num(expected))
    zeros = np.bincount(size[known], weights=(values[known] == 0).astype(float), minlength=51)
    share = (zeros + 0.5) / (np.bincount(size[known], minlength=51) + 1.0)
    found: Floats = share[size]
    return found


def _runs(cells: Cells) -> Iterator[tuple[int, int]]:
    """Start and end of each unbroken run."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], cells.astype(np.int8), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _grouped(
    kind: Literal["missing", "stopped", "zeros"], cells: Cells, groupings: Sequence[Grouping], share: float
) -> list[Gap]:
    """Runs of cells, each told once: of a whole group where that share of its series has them together."""
    left, found = cells.copy(), []
    for grouping in groupings:
        alone = grouping.level == "series"
        for group in range(grouping.count):
            rows = np.flatnonzero(grouping.group == group)
            together = left[rows].sum(axis=0)
            if not together.any() or (not alone and len(rows) < FEWEST_SERIES):
                continue
            whole = together >= max(1.0, share * len(rows))
            for start, end in _runs(whole):
                if not alone or end - start >= SHORTEST_ALONE:
                    found.append(Gap(kind, grouping, group, start, end, int(together[start:end].sum())))
                left[rows, start:end] = False
    return found


def series_of(gap: Gap) -> Integers:
    """Positions of the series concerned."""
    return np.flatnonzero(gap.grouping.group == gap.group)
