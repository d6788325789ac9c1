"""Windows that move along the periods of many histories at once.

What belongs here: lags, sums, means and deviations over a number of periods, as arrays. What does not: which
of them are features (features.py), and the histories (histories.py).

Histories have a row each and a column a period, NaN where nothing is known. A window of length n at a period
is that period and the n - 1 before it; what is not known does not count, and a window in which nothing is
known has no value. The sum over a long window is put together from those over shorter ones, so its rounding
depends on what is inside the window and on nothing else. Where values cancel out, it is zero: to a tree
what rounding leaves is another value than zero, on one side of it or the other.
"""

from collections.abc import Callable
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CANCELLED = 1e-12  # of the amounts in a window: a sum that is less is what rounding has left of nothing
_Parts = tuple[Floats, ...]  # of windows: counts, sums, and sums of amounts or of squared deviations
_Join = Callable[[_Parts, _Parts, int], _Parts]


class Moving:
    """The windows of some histories; what several of them have in common is made once.

    Args:
        values: Shape (histories, periods), NaN where nothing is known.

    Example:
        >>> sold = Moving(np.array([[1.0, 3.0, np.nan, 5.0]]))
        >>> sold.lag(1)
        array([[nan,  1.,  3., nan]])
        >>> sold.total(2)
        array([[1., 4., 3., 5.]])
        >>> sold.mean(3, before=1)
        array([[nan,  1.,  2.,  2.]])
    """

    def __init__(self, values: Floats) -> None:
        self.values = values
        known = ~np.isnan(values)
        filled = np.where(known, values, 0.0)
        self._sums: dict[int, _Parts] = {1: (known.astype(np.float64), filled, np.abs(filled))}
        self._means: dict[int, Floats] = {}

    def lag(self, periods: int) -> Floats:
        """The value so many periods earlier."""
        return lagged(self.values, periods)

    def total(self, length: int) -> Floats:
        """Sums over windows of a length."""
        count, total = self._summed(length)
        return np.where(count > 0, total, np.nan)

    def mean(self, length: int, before: int = 0) -> Floats:
        """Means over windows of a length that end so many periods before."""
        if length not in self._means:
            count, total = self._summed(length)
            self._means[length] = ratio(total, count)
        return lagged(self._means[length], before)

    def amount(self, length: int) -> Floats:
        """Means of absolute values over windows of a length."""
        count, _, amounts = _over(length, self._sums, _added)
        return ratio(amounts, count)

    def deviation(self, length: int) -> Floats:
        """Standard deviations (of the population) over windows of a length."""
        count, _, squares = _over(length, self._squares, _spread)
        return np.sqrt(ratio(squares, count))

    def _summed(self, length: int) -> tuple[Floats, Floats]:
        """Counts and sums over windows of a length; what cancels out is zero."""
        count, total, amounts = _over(length, self._sums, _added)
        return count, np.where(np.abs(total) <= CANCELLED * amounts, 0.0, total)

    @cached_property
    def _squares(self) -> dict[int, _Parts]:
        count, total, _ = self._sums[1]
        return {1: (count, total, np.zeros_like(total))}

    def last_known(self) -> Floats:
        """The column of the last value known up to each period."""
        columns = np.where(np.isnan(self.values), -np.inf, np.arange(self.values.shape[1]))
        found = np.maximum.accumulate(columns, axis=1)
        return np.where(np.isfinite(found), found, np.nan)


def lagged(values: Floats, periods: int, missing: float = np.nan) -> Floats:
    """What stood so many columns earlier; before the first there is what stands for missing."""
    if periods == 0:
        return values
    found = np.full_like(values, missing)
    found[:, periods:] = values[:, : max(0, values.shape[1] - periods)]
    return found


def ratio(value: Floats, other: Floats) -> Floats:
    """One over the other; NaN where that is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(other == 0, np.nan, value / other)


def _over(length: int, parts: dict[int, _Parts], join: _Join) -> _Parts:
    """What windows of a length hold, put together from those whose lengths are powers of two.

    Args:
        length: The length, in periods.
        parts: What windows hold by their length, of which 1 is there; others are added.
        join: Of what a window and the one so many periods before it hold, what both hold.
    """
    widths = [1 << bit for bit in range(length.bit_length())]
    for half, width in pairwise(widths):
        if width not in parts:
            parts[width] = join(parts[half], parts[half], half)
    first, *others = [width for width in widths if length & width]
    found, reach = parts[first], first
    for width in others:
        found, reach = join(found, parts[width], reach), reach + width
    return found


def _added(parts: _Parts, earlier: _Parts, before: int) -> _Parts:
    """Counts and sums of both, part by part."""
    return tuple(_plus(part, other, before) for part, other in zip(parts, earlier, strict=True))


def _spread(parts: _Parts, earlier: _Parts, before: int) -> _Parts:
    """Counts, sums and squared deviations from the mean of both (Chan, Golub & LeVeque 1983)."""
    counts, sums = (lagged(part, before, 0.0) for part in earlier[:2])
    count, total, squares = _added(parts, earlier, before)
    apart = ratio(sums, counts) - ratio(parts[1], parts[0])
    return count, total, squares + np.nan_to_num(apart**2 * ratio(parts[0] * counts, count))


def _plus(values: Floats, earlier: Floats, before: int) -> Floats:
    found = values.copy()
    found[:, before:] += earlier[:, : max(0, earlier.shape[1] - before)]
    return found
