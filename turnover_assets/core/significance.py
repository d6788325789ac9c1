"""Whether one model forecasts better than another by more than chance: the Diebold-Mariano test.

What belongs here: losses per period and the test on them. What does not: what is decided from it (gate.py).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.floating]

MINIMUM_SPANS = (
    2  # horizons' worth of periods; with fewer, the test's small-sample correction is all there is
)


@dataclass(frozen=True)
class LossComparison:
    """The Diebold-Mariano test of a challenger's losses against a champion's.

    Attributes:
        difference: Mean loss of the champion minus that of the challenger; above 0 where the challenger is
            better. NaN without a period.
        statistic: The corrected statistic, above 0 where the challenger is better; NaN where not `enough`.
        p_value: One-sided: how probable a statistic as high is where both forecast equally well. 1 where the
            losses are identical, NaN where not `enough`.
        periods: Periods with a loss of both.
        needed: Periods that the test needs.
    """

    difference: float
    statistic: float
    p_value: float
    periods: int
    needed: int

    @property
    def enough(self) -> bool:
        """Whether there are enough periods for a verdict."""
        return self.periods >= self.needed


def period_losses(rows: pd.DataFrame, forecast: str = "forecast") -> pd.Series:
    """The loss of each target period: sum of |actual - forecast| over sum of |actual|, over all series.

    A period is one observation, whatever number of cutoffs forecast it. Where windows do not overlap that is
    the same as one for each cutoff and period. Where they do, forecasts of one period from several cutoffs
    miss by the same surprise and are no independent evidence; pooled, the losses stay one time series, as the
    test wants it. Each period counts alike, so that a few large ones do not decide alone.

    Args:
        rows: Backtest rows of one model: `t`, `actual` and the column named by `forecast`.
        forecast: The column to judge.

    Returns:
        Indexed by `t`, ascending; periods without a known actual (or only zeros) are left out.
    """
    known = rows[rows["actual"].notna()]
    error = (known["actual"] - known[forecast]).abs().groupby(known["t"]).sum(skipna=False)
    total = known["actual"].abs().groupby(known["t"]).sum()
    return (error / total)[total > 0]


def diebold_mariano(champion: pd.Series, challenger: pd.Series, horizon: int) -> LossComparison:
    """Test whether the challenger's losses are lower than the champion's.

    Diebold & Mariano (1995) with the variance of Newey & West (1987) (Bartlett weights, lags up to
    `horizon` - 1 and less than the number of periods; lags are counted in periods, also across gaps), the
    small-sample correction of Harvey, Leybourne & Newbold (1997), and Student's t with n - 1 degrees of
    freedom.

    Forecasts of one cutoff share its surprises, so losses are dependent within a window. Where that
    dependence is strong the test rejects about twice as often as its level says (simulated: at 5 %, 8 to
    11 % of cases with 4 to 13 windows of 8 periods, 10 to 13 % with 3, and up to 16 % with 2); choose the
    level with that in mind. It does not know that a challenger may be the best of several candidates on the
    same windows.

    Args:
        champion: Losses indexed by period; only periods of both count.
        challenger: As `champion`.
        horizon: Longest horizon of the forecasts, in periods.

    Raises:
        ValueError: The horizon is below 1, or a loss is not a finite number.
    """
    if horizon < 1:
        raise ValueError(f"the horizon must be at least 1 period, not {horizon}")
    gain = (champion - challenger).loc[champion.index.intersection(challenger.index)].sort_index()
    values = gain.to_numpy(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{int((~np.isfinite(values)).sum())} of {len(values)} losses are not finite numbers"
        )
    n, needed = len(values), MINIMUM_SPANS * horizon
    if n < max(needed, 2):
        mean = float(values.mean()) if n else float("nan")
        return LossComparison(mean, float("nan"), float("nan"), n, max(needed, 2))
    statistic = _corrected(values, gain.index.to_numpy(np.int64), horizon)
    return LossComparison(float(values.mean()), statistic, _p_value(statistic, n), n, max(needed, 2))


def _corrected(values: Floats, t: npt.NDArray[np.int64], horizon: int) -> float:
    """The statistic; 0 where all values are 0, infinite where they are all alike otherwise."""
    n, mean = len(values), float(values.mean())
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        return float(np.sign(mean) * np.inf) if mean else 0.0
    variance = long_run_variance(values, t, horizon - 1)
    if variance <= 0:
        variance = float(values.var())
    shrink = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    return mean / float(np.sqrt(variance / n)) * float(np.sqrt(shrink))


def _p_value(statistic: float, n: int) -> float:
    from scipy import stats

    return 1.0 if statistic == 0 else float(stats.t.sf(statistic, n - 1))


def long_run_variance(values: Floats, t: npt.NDArray[np.int64], lags: int) -> float:
    """Newey-West variance of a time series: n times the variance of its mean, dependence included.

    Args:
        values: Shape (n,).
        t: Shape (n,), their periods, ascending; a missing period adds nothing to any product.
        lags: Lags with a Bartlett weight above 0; reduced to n - 1.

    Returns:
        Above or equal to 0 but for rounding.
    """
    n = len(values)
    deviations = np.zeros(int(t[-1] - t[0]) + 1)
    deviations[t - t[0]] = values - values.mean()
    lags = min(lags, n - 1, len(deviations) - 1)
    variance = float(deviations @ deviations)
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(deviations[lag:] @ deviations[:-lag])
    return variance / n
