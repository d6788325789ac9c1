"""How much groups of series move by themselves: a noise model estimated from the history, robustly.

What belongs here: the covariance of a group's log ratio over time. What does not: looking for shifts.

The model is a Gaussian process: a level that wanders (random walk), a season that repeats and slowly
changes, disturbances that last some periods (first-order autoregression), and white noise. Its variances
are taken from the semivariogram (Cressie & Hawkins 1980, here by median absolute deviations, so that the
shifts to be found do not count as noise), with the season taken out by differences of a year.
"""

from dataclasses import dataclass

import numpy as np

from turnover_assets.core.anomalies.matrix import MAD_TO_DEVIATION, Floats, row_medians

PERSISTENCE = 0.8  # of a disturbance, from one period to the next
LAGS = (1, 8, 26)
FEW_GROUPS = 30  # groups so few that each has a noise of its own
FEWEST = 20  # differences for a scale of its own
SEASON_WIDTH = 2.0  # periods over which a season is alike
SEASON_YEARS = 12.0  # years over which it changes; what changes faster is in the other components
ANY_LEVEL = 25.0  # variance of the unknown level of a logarithm


@dataclass(frozen=True)
class Noise:
    """Variances of the components, in squared logarithms.

    Attributes:
        white: Of one period.
        lasting: Of disturbances that last.
        wandering: Of the change of level from one period to the next.
        seasonal: Of the season.
        season: Periods of a year.
        has_season: Whether the history is long enough to know the season.
    """

    white: float
    lasting: float
    wandering: float
    seasonal: float
    season: int
    has_season: bool

    def covariance(self, periods: int, *, free_season: bool = False) -> Floats:
        """Covariance of a log ratio: shape (periods, periods).

        Args:
            periods: Number of periods.
            free_season: Take any season as likely, for groups that have one unlike all others.
        """
        at = np.arange(periods)
        lag = at.astype(float)
        by_lag = self.lasting * PERSISTENCE**lag + ANY_LEVEL
        by_lag[0] += self.white
        if self.has_season:
            phase = 2.0 * np.pi / self.season
            alike = np.exp(-((np.sin(np.pi * lag / self.season) / (phase * SEASON_WIDTH / 2.0)) ** 2))
            alike += 0.25 * (at % self.season == 0)
            by_lag += self.seasonal * alike * np.exp(-lag / (SEASON_YEARS * self.season))
            if free_season:
                by_lag += alike
        found: Floats = by_lag[np.abs(np.subtract.outer(at, at))]
        found += 2.0 * self.wandering * np.minimum.outer(at, at)
        return found

    def of_jump(self, periods: int) -> float:
        """Standard deviation of the difference of the means of so many periods after and before a moment."""
        lasting = self.lasting * (1.0 - PERSISTENCE**periods)
        return float(np.sqrt(2.0 * (self.white / periods + lasting)))


def estimate(ratios: Floats, season: int) -> tuple[list[Noise], Floats]:
    """The noise of each group: that of all groups of the level together, or its own where they are few.

    Args:
        ratios: Log ratios, shape (groups, periods), NaN where not known.
        season: Periods of a year.

    Returns:
        The noise of each group, and how strong it is there, as a standard deviation relative to it: shape
        (groups,).
    """
    has_season = ratios.shape[1] > season + season // 2
    common = _semivariances(ratios, season, has_season)
    if len(ratios) > FEW_GROUPS:
        pooled = _components(common, season, has_season)
        return [pooled] * len(ratios), _scales(ratios, season if has_season else 0)
    found = []
    for own in ratios:
        known = int(np.isfinite(own).sum())
        weight = known / (known + season)
        mixed = weight * np.nan_to_num(_semivariances(own[None, :], season, has_season), nan=0.0)
        found.append(_components(mixed + (1.0 - weight) * common, season, has_season))
    return found, np.ones(len(ratios))


def _semivariances(ratios: Floats, season: int, has_season: bool) -> Floats:
    """At LAGS, the season taken out; and how much more there is with it, at a quarter and half a year."""
    found = [_semivariance(ratios, lag, season if has_season else 0) for lag in LAGS]
    more = 0.0
    if has_season:
        parts = [
            _semivariance(ratios, k, 0) - _semivariance(ratios, k, season) for k in (season // 4, season // 2)
        ]
        known = [part for part in parts if np.isfinite(part)]
        more = sum(known) / len(known) if known else 0.0
    return np.array([*found, more])


def _components(semivariances: Floats, season: int, has_season: bool) -> Noise:
    """The variances whose semivariogram has these values."""
    short, middle, long, more = (float(value) for value in semivariances)
    at_short, at_middle = 1.0 - PERSISTENCE ** LAGS[0], 1.0 - PERSISTENCE ** LAGS[1]
    lasting = max(0.0, (middle - short) / (at_middle - at_short))
    white = max(short - lasting * at_short, 0.25 * short, 1e-6)
    wandering = max(0.0, (long - middle) / (LAGS[2] - LAGS[1])) if np.isfinite(long) else lasting / season
    seasonal = max(0.0, more) if np.isfinite(more) else 0.0
    return Noise(white, lasting, wandering, seasonal, season, has_season)


def _scales(ratios: Floats, season: int) -> Floats:
    """Noise of each group relative to that of all, as a standard deviation: shape (groups,)."""
    pooled = _semivariance(ratios, 1, season)
    steps = np.diff(ratios[:, season:] - ratios[:, : ratios.shape[1] - season] if season else ratios, axis=1)
    count = np.isfinite(steps).sum(axis=1)
    spread = MAD_TO_DEVIATION * row_medians(np.abs(steps - row_medians(steps)[:, None]))
    variance = spread**2 * (0.25 if season else 0.5)
    enough = (count > FEWEST) & (pooled > 0)
    relative = (count * np.where(enough, variance, 0.0) / (pooled if pooled > 0 else 1.0) + FEWEST) / (
        count + FEWEST
    )
    return np.where(enough, np.sqrt(relative), 1.0)


def _semivariance(ratios: Floats, lag: int, season: int) -> float:
    """Half the variance of differences over `lag` periods, of the series or of its yearly differences."""
    if season:
        ratios = ratios[:, season:] - ratios[:, :-season]
    if ratios.shape[1] <= lag:
        return float("nan")
    variance = robust_variance((ratios[:, lag:] - ratios[:, :-lag]).ravel())
    return variance * (0.25 if season else 0.5)


def robust_variance(values: Floats) -> float:
    """Variance from the median absolute deviation, ignoring NaN; NaN where too few are known."""
    known = values[np.isfinite(values)]
    if len(known) <= FEWEST:
        return float("nan")
    return float((MAD_TO_DEVIATION * np.median(np.abs(known - np.median(known)))) ** 2)
