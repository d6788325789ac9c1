"""Forecast accuracy: the metrics, each in one function, and the scale of scaled errors.

What belongs here: definitions, for the rows of one model. What does not: choosing rows or windows, and the
same metrics for many groups at once (accuracy.py, which is tested against the functions here).

In all of them a row without a known actual does not count, while a missing forecast of a known actual makes
the result NaN: it is never hidden. Per series they agree with `utilsforecast.losses` (a test).
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Codes = npt.NDArray[np.integer]

# The bounds of the central intervals are quantiles of the forecast's distribution.
QUANTILES: Mapping[str, float] = {"lower_95": 0.025, "lower_80": 0.1, "upper_80": 0.9, "upper_95": 0.975}

MINIMUM_SEASONAL_PAIRS = 8  # fewer pairs a season apart say little about a series

# In-sample errors of the seasonal naive forecast, the scale of MASE and RMSSE.
#
# Reads two relations of the connection: `history` (series_id, t, value: what was known, no row or NULL where
# nothing was) and `origins` (series_id, cutoff). Bound parameter $season: periods in a season.
#
# Gives a row for each origin: series_id, cutoff, naive_mae (units of the target) and naive_mse (its square),
# means over all pairs of values one season apart up to the cutoff, with nothing after it. Where there are
# fewer than MINIMUM_SEASONAL_PAIRS such pairs, over pairs one period apart; NULL where there is none of these
# either, and where all errors are 0 (nothing can be scaled by that).
NAIVE_ERRORS_SQL = f"""
WITH differences AS (
  SELECT h.series_id, h.t, h.value - s.value AS seasonal, h.value - l.value AS last
  FROM history AS h
  LEFT JOIN history AS s ON s.series_id = h.series_id AND s.t = h.t - CAST($season AS INTEGER)
  LEFT JOIN history AS l ON l.series_id = h.series_id AND l.t = h.t - 1
),
running AS (
  SELECT series_id, t,
    count(seasonal) OVER past >= {MINIMUM_SEASONAL_PAIRS} AS has_season,
    avg(abs(seasonal)) OVER past AS seasonal_mae, avg(seasonal * seasonal) OVER past AS seasonal_mse,
    avg(abs(last)) OVER past AS last_mae, avg(last * last) OVER past AS last_mse
  FROM differences
  WINDOW past AS (PARTITION BY series_id ORDER BY t)
)
SELECT o.series_id, o.cutoff,
  nullif(CASE WHEN r.has_season THEN r.seasonal_mae ELSE r.last_mae END, 0) AS naive_mae,
  nullif(CASE WHEN r.has_season THEN r.seasonal_mse ELSE r.last_mse END, 0) AS naive_mse
FROM origins AS o
ASOF LEFT JOIN running AS r ON r.series_id = o.series_id AND r.t <= o.cutoff
"""


def wape(actual: Floats, forecast: Floats) -> float:
    """Weighted absolute percentage error: sum of |actual - forecast| over sum of |actual|.

    Source: Kolassa & Schütz (2007), as MAD/mean ratio; `nd` of utilsforecast.

    Returns:
        A share, 0 for a perfect forecast; NaN where the actuals add up to nothing.

    Example:
        >>> wape(np.array([10.0, 30.0]), np.array([12.0, 28.0]))
        0.1
    """
    known = ~np.isnan(actual)
    return _share(np.abs(actual - forecast)[known].sum(), np.abs(actual[known]).sum())


def bias(actual: Floats, forecast: Floats) -> float:
    """Relative bias: sum of (forecast - actual) over sum of |actual|; above 0 where too high.

    Source: `bias` of utilsforecast over the mean of |actual|.

    Example:
        >>> bias(np.array([10.0, 30.0]), np.array([12.0, 30.0]))
        0.05
    """
    known = ~np.isnan(actual)
    return _share((forecast - actual)[known].sum(), np.abs(actual[known]).sum())


def mase(actual: Floats, forecast: Floats, naive_mae: Floats, series: Codes) -> float:
    """Mean absolute scaled error: per series the mean |error| over `naive_mae`, then the mean over series.

    Series without a positive `naive_mae` do not count. Source: Hyndman & Koehler (2006).

    Args:
        actual: Shape (n,), units of the target.
        forecast: Shape (n,).
        naive_mae: Shape (n,), the same in all rows of a series; see NAIVE_ERRORS_SQL.
        series: Shape (n,), whole numbers from 0, one for each series (and cutoff, where there are several,
            because the scale is the one known at the cutoff).

    Returns:
        1 where errors are as large as the seasonal naive forecast's were; NaN where no series counts.
    """
    return _mean_over_series(np.abs(actual - forecast) / _positive(naive_mae), actual, naive_mae, series)


def rmsse(actual: Floats, forecast: Floats, naive_mse: Floats, series: Codes) -> float:
    """Root mean squared scaled error: per series the root of MSE over `naive_mse`, then the mean over series.

    Series without a positive `naive_mse` do not count. Source: Makridakis et al. (2022), the M5 competition,
    here with a season's lag and unweighted. Arguments as in `mase`.
    """
    scaled = (actual - forecast) ** 2 / _positive(naive_mse)
    return _mean_over_series(scaled, actual, naive_mse, series, root=True)


def pinball(actual: Floats, bound: Floats, quantile: float) -> float:
    """Pinball loss of a forecast quantile relative to the mean of |actual|.

    Rows without a bound do not count. Source: Koenker & Bassett (1978); `quantile_loss` of utilsforecast over
    the mean of |actual|.

    Args:
        actual: Shape (n,), units of the target.
        bound: Shape (n,), the forecast quantile; NaN where there is none.
        quantile: Its probability, between 0 and 1.

    Example:
        >>> pinball(np.array([10.0, 30.0]), np.array([20.0, 20.0]), 0.9)
        0.25
    """
    known = ~np.isnan(actual) & ~np.isnan(bound)
    short = (actual - bound)[known]
    loss = np.maximum(quantile * short, (quantile - 1) * short)
    return _share(loss.sum(), np.abs(actual[known]).sum())


def coverage(actual: Floats, lower: Floats, upper: Floats) -> float:
    """Share of known actuals inside their bounds; NaN where none is known. Rows without bounds do not count.

    Example:
        >>> coverage(np.array([1.0, 5.0]), np.array([0.0, 0.0]), np.array([2.0, 4.0]))
        0.5
    """
    known = _bounded(actual, lower, upper)
    inside = (actual >= lower) & (actual <= upper)
    return float(inside[known].mean()) if known.any() else float("nan")


def width(actual: Floats, lower: Floats, upper: Floats) -> float:
    """Mean width of intervals relative to the mean of |actual|. Rows without bounds do not count.

    Example:
        >>> width(np.array([10.0, 30.0]), np.array([5.0, 15.0]), np.array([15.0, 45.0]))
        1.0
    """
    known = _bounded(actual, lower, upper)
    return _share((upper - lower)[known].sum(), np.abs(actual[known]).sum())


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _bounded(actual: Floats, lower: Floats, upper: Floats) -> npt.NDArray[np.bool_]:
    return ~(np.isnan(actual) | np.isnan(lower) | np.isnan(upper))


def _positive(scale: Floats) -> Floats:
    return np.where(scale > 0, scale, np.nan)


def _mean_over_series(
    scaled: Floats, actual: Floats, scale: Floats, series: Codes, *, root: bool = False
) -> float:
    """The mean over series of each one's mean, of its root where `root`."""
    counts = ~np.isnan(actual) & (scale > 0)
    rows = np.bincount(series[counts])
    sums = np.bincount(series[counts], weights=scaled[counts])
    means = sums[rows > 0] / rows[rows > 0]
    if not len(means):
        return float("nan")
    return float(np.sqrt(means).mean() if root else means.mean())
