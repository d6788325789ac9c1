"""Single values out of all proportion: placeholders, misplaced decimal points, turned signs.

What belongs here: judging one value against its own neighbours in time and its peers. What does not: shifts
that last (blocks.py).

A value is compared with what its peers and its own recent level let expect. How far off values of such a
size usually are, and how far off this very series has been before, sets the scale: a value counts only where
it is beyond anything that the series and its peers have shown.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from turnover_assets.core.anomalies.matrix import (
    Floats,
    Grouping,
    History,
    Integers,
    compare_with_peers,
    row_means,
    row_medians,
)

NEIGHBOURS = 6  # periods on either side that tell the level
USUAL_EXTREME = 0.999  # quantile of deviations among peers
EXTREME_ERRORS = 2.5  # standard errors that it stands for; tails are heavier than a normal one's
SIZES = 10  # classes of expected size, each with its own usual extremes
FEWEST = 2000  # values for a class of size, so that one of them is rare
LARGEST_RUN = 3  # periods; more of them are a block
IN_SEASON = 0.5  # of its mean amount a series must have, or should have, for a value to matter
MANY_PEERS = 20
ROUNDS = 8  # an outlier hides others of its period until it is taken out
LEAST_RATIO = 3.0
DECIMAL = 0.15  # closeness of a factor's decimal logarithm to a whole number


@dataclass(frozen=True)
class Point:
    """One value out of proportion.

    Attributes:
        series: Position of the series.
        period: Column.
        reported: The value.
        expected: What neighbours and peers let expect.
        effect: Logarithm of |reported| over expected.
        error: Standard error: a fixed part of the largest deviation that peers and the series itself show.
        strength: Evidence: deviation over error, less what the highest of so many values has by chance.
    """

    series: int
    period: int
    reported: float
    expected: float
    effect: float
    error: float
    strength: float

    @property
    def factor(self) -> float:
        """Reported over expected."""
        return self.reported / self.expected

    @property
    def decimal_places(self) -> int:
        """How many places the decimal point is off, 0 where that is not what happened."""
        places = np.log10(abs(self.factor))
        near = round(float(places))
        return near if near != 0 and abs(places - near) < DECIMAL and self.reported > 0 else 0


def find_points(history: History, grouping: Grouping, weakest: float) -> list[Point]:
    """Values out of proportion, the strongest first.

    Args:
        history: Reported values.
        grouping: Every series by itself, with its peers.
        weakest: Strength from which a value counts.
    """
    values, found = history.values.copy(), []
    for _ in range(ROUNDS):
        points = _clearest(_judged(values, _expected(values, grouping), grouping, weakest))
        if not points:
            break
        found += points
        for point in points:
            values[point.series, point.period] = np.nan
    return sorted(_lonely(found), key=lambda point: (-point.strength, point.series, point.period))


def _expected(values: Floats, grouping: Grouping) -> Floats:
    """What peers expect, moved to the level of the series beside; NaN where that is nothing."""
    expected = compare_with_peers(values, grouping).expected
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(expected > 0, np.maximum(values, 0.0) / expected, np.nan)
    padded = np.pad(ratio, ((0, 0), (NEIGHBOURS, NEIGHBOURS)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBOURS + 1, axis=1)
    beside = np.delete(windows, NEIGHBOURS, axis=2)
    known = np.isfinite(beside).sum(axis=2)
    level = np.full(ratio.shape, np.nan)
    enough = known >= NEIGHBOURS
    level[enough] = row_medians(beside[enough])
    found = expected * level
    return np.where(found > 0, found, np.nan)


def _clearest(points: Iterable[Point]) -> list[Point]:
    """Of each period those on the side of its strongest; a huge value makes its peers look small."""
    found = sorted(points, key=lambda point: -point.strength)
    side: dict[int, bool] = {}
    return [point for point in found if side.setdefault(point.period, point.effect > 0) == (point.effect > 0)]


def _judged(values: Floats, expected: Floats, grouping: Grouping, weakest: float) -> Iterator[Point]:
    """Values beyond what the series and its peers have shown, above, below, and on the wrong side of zero."""
    size = _size_classes(expected)
    compared = 2.0 * np.log(max(2, np.isfinite(expected).sum()))  # of so many, the highest is high by chance
    usual_amount = row_means(np.abs(values))[:, None]
    matters = np.maximum(np.abs(values), expected) >= IN_SEASON * usual_amount
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = values / expected
        logarithm = np.where(ratio > 0, np.log(ratio), np.nan)
    steady = _steady_beside(np.where(ratio > 0, logarithm, -np.inf), np.isfinite(ratio))
    for deviation, least in (
        (logarithm, np.log(LEAST_RATIO)),
        (-logarithm, np.log(LEAST_RATIO)),
        (np.where(ratio < 0, -ratio, np.nan), 1.0 / LEAST_RATIO),
    ):
        usual = np.maximum(_usual_extremes(deviation, size, ratio), _own_extremes(deviation))
        usual = np.maximum(usual, _at_that_time(deviation, grouping.peers))
        error = np.maximum(usual, least) / EXTREME_ERRORS
        with np.errstate(invalid="ignore"):
            strength = np.sqrt(np.maximum((deviation / error) ** 2 - compared, 0.0))
            beyond = np.argwhere((strength >= weakest) & (deviation >= least) & matters & steady)
        for series, period in beyond:
            reported, awaited = float(values[series, period]), float(expected[series, period])
            effect = float(np.log(abs(reported) / awaited))
            yield Point(
                int(series),
                int(period),
                reported,
                awaited,
                effect,
                float(error[series, period]),
                float(strength[series, period]),
            )


def _steady_beside(logarithm: Floats, known: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether the values just before and just after are as expected; those after may not be known yet."""
    normal = known & (np.abs(logarithm) < np.log(LEAST_RATIO))
    before: npt.NDArray[np.bool_] = _shifted(normal, 1) & _shifted(normal, 2)
    at = np.arange(known.shape[1])
    for ahead in (1, 2):
        before &= _shifted(normal, -ahead) | (at + ahead >= known.shape[1])
    return before


def _shifted(cells: npt.NDArray[np.bool_], periods: int) -> npt.NDArray[np.bool_]:
    """What stood so many periods earlier; nothing did before the first."""
    found = np.zeros_like(cells)
    if periods > 0:
        found[:, periods:] = cells[:, :-periods]
    else:
        found[:, :periods] = cells[:, -periods:]
    return found


def _size_classes(expected: Floats) -> Integers:
    """Class of each expected value by its size, -1 where there is none: the smaller, the wilder."""
    known = expected[np.isfinite(expected)]
    count = max(1, min(SIZES, len(known) // FEWEST))
    edges = np.quantile(known, np.linspace(0, 1, count + 1)[1:-1]) if len(known) else np.array([])
    return np.where(np.isfinite(expected), np.searchsorted(edges, expected), -1).astype(np.int64)


def _usual_extremes(deviation: Floats, size: Integers, ratio: Floats) -> Floats:
    """The largest deviation that is not rare among values of the same size."""
    found = np.zeros(deviation.shape)
    for k in range(int(size.max()) + 1):
        inside = size == k
        known = deviation[inside & np.isfinite(deviation)]
        everything = np.concatenate([known, np.zeros(int((inside & np.isfinite(ratio)).sum()) - len(known))])
        if len(everything):
            found[inside] = max(0.0, float(np.quantile(everything, USUAL_EXTREME)))
    return found


def _at_that_time(deviation: Floats, peers: Integers) -> Floats:
    """The deviation that a tenth of the peers exceed in the same period: shape as `deviation`."""
    filled = np.where(np.isfinite(deviation), np.maximum(deviation, 0.0), 0.0)
    found = np.zeros(filled.shape)
    for k in range(int(peers.max()) + 1):
        inside = peers == k
        found[inside] = np.quantile(filled[inside], 0.9 if inside.sum() >= MANY_PEERS else 0.5, axis=0)
    return found


def _own_extremes(deviation: Floats) -> Floats:
    """The largest deviation of the same series in any other period: shape as `deviation`."""
    filled = np.where(np.isfinite(deviation), deviation, 0.0)
    if filled.shape[1] < 2:
        return np.zeros(filled.shape)
    order = np.argsort(filled, axis=1)
    highest, second = order[:, -1], np.take_along_axis(filled, order[:, -2:-1], axis=1)
    found = np.repeat(np.take_along_axis(filled, order[:, -1:], axis=1), filled.shape[1], axis=1)
    np.put_along_axis(found, highest[:, None], second, axis=1)
    own: Floats = np.maximum(found, 0.0)
    return own


def _lonely(points: Sequence[Point]) -> list[Point]:
    """Without those that stand in a row: these are a block, or something real."""
    at = {(point.series, point.period) for point in points}
    return [point for point in points if _run(at, point.series, point.period) <= LARGEST_RUN]


def _run(at: set[tuple[int, int]], series: int, period: int) -> int:
    first = last = period
    while (series, first - 1) in at:
        first -= 1
    while (series, last + 1) in at:
        last += 1
    return last - first + 1
