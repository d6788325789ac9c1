"""Forecast accuracy: the metrics, each in one function.

What belongs here: definitions. What does not: choosing rows or windows.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def wape(actual: Floats, forecast: Floats) -> float:
    """Weighted absolute percentage error: sum of |actual - forecast| over sum of |actual|.

    Pairs with a missing actual do not count. Source: Kolassa & Schütz (2007), as MAD/mean ratio.

    Returns:
        A share, 0 for a perfect forecast; NaN where the actuals add up to nothing.

    Example:
        >>> wape(np.array([10.0, 30.0]), np.array([12.0, 28.0]))
        0.1
    """
    known = ~np.isnan(actual)
    total = np.abs(actual[known]).sum()
    return float(np.abs(actual - forecast)[known].sum() / total) if total > 0 else float("nan")


def bias(actual: Floats, forecast: Floats) -> float:
    """Relative bias: sum of (forecast - actual) over sum of |actual|; above 0 where too high.

    Example:
        >>> bias(np.array([10.0, 30.0]), np.array([12.0, 30.0]))
        0.05
    """
    known = ~np.isnan(actual)
    total = np.abs(actual[known]).sum()
    return float((forecast - actual)[known].sum() / total) if total > 0 else float("nan")


def coverage(actual: Floats, lower: Floats, upper: Floats) -> float:
    """Share of known actuals inside their bounds; NaN where none is known.

    Example:
        >>> coverage(np.array([1.0, 5.0]), np.array([0.0, 0.0]), np.array([2.0, 4.0]))
        0.5
    """
    known = ~np.isnan(actual)
    inside = (actual >= lower) & (actual <= upper)
    return float(inside[known].mean()) if known.any() else float("nan")
