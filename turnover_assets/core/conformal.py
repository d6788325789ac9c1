"""Conformal prediction intervals: how large errors usually are, and quantiles of errors in units of that.

What belongs here: one calibration, of whatever was forecast. What does not: series and aggregates of a panel
(intervals.py).

A calibration has two parts. The spread says how large the error of a forecast usually is: a log-linear
function of a few facts that are known beforehand, fitted to the logarithms of past absolute errors (Harvey
1976) but for slopes that are given. Absolute errors in units of the spread are the scores of split conformal
prediction (Lei et al. 2018), and their quantiles make the bounds. Whatever the spread gets wrong only makes
intervals wider than need be in some places and narrower in others; the quantiles keep the coverage on
average. Old errors count less than new ones, because a retailer changes (Barber et al. 2023).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.floating]
LEVELS = (80, 95)
BOUNDS = ("lower_80", "upper_80", "lower_95", "upper_95")

FLOOR = 0.02  # errors below that share of the scale are all small: the logarithm of 0 has no value
NEAR_ZERO = 0.03  # the same for forecasts and deviations, as shares of the scale
SEASON_ERRORS = (0.02, 1.0)  # smaller and larger ones are not told apart
PSEUDO_ROWS = 10.0  # slopes are drawn to 0 as by so many rows that show none
BEYOND_ALL = 1e9  # a bound that no term reaches
EDGE = 0.001  # share of rows at either end beyond which a term goes no further
OWN_QUANTILES = 500  # a horizon with fewer rows has the quantiles of all of them together

# What the spread may depend on. Facts: `horizon`, `forecast` and `scale` (units of the target), and, where
# they are known, `deviation` (of recent values, as a share of the scale), `age` (periods) and `season_error`
# (how far off a season's values usually are at that time of year, as a logarithm).
TERMS: Mapping[str, Callable[[pd.DataFrame], pd.Series]] = {
    "horizon": lambda facts: np.log(facts["horizon"]),
    "forecast": lambda facts: np.log(facts["forecast"].abs() / facts["scale"] + NEAR_ZERO),
    "size": lambda facts: np.log(facts["scale"]),
    "deviation": lambda facts: np.log(facts["deviation"] + NEAR_ZERO),
    "age": lambda facts: np.log(facts["age"].clip(lower=0) + 4),
    "season": lambda facts: np.log(facts["season_error"].clip(*SEASON_ERRORS)),
}
OPTIONAL = {"deviation": "deviation", "age": "age", "season": "season_error"}  # facts of terms
GIVEN = {"season": 0.5}  # slopes; a few windows, which have seen no time of year twice, cannot teach them


@dataclass(frozen=True)
class Term:
    """One term of a spread: slope * (value - centre), the value kept between low and high.

    Attributes:
        name: One of TERMS.
        slope: Change of the spread's logarithm with the term's value.
        centre: The term's mean where it was fitted; a missing value counts as that.
        low: Smallest value that it was fitted on; where the slope was given, one that is never reached.
        high: Largest such value, likewise.
    """

    name: str
    slope: float
    centre: float
    low: float
    high: float

    def values(self, facts: pd.DataFrame) -> Floats:
        """The term's values less their centre, shape (n,); 0 where nothing is known."""
        if not _can_be_made(self.name, facts):
            return np.zeros(len(facts))
        raw = TERMS[self.name](facts).to_numpy(np.float64)
        found: Floats = np.nan_to_num(np.clip(raw, self.low, self.high) - self.centre)
        return found


@dataclass(frozen=True)
class Spread:
    """The usual size of errors, in units of the target. Without terms it is the scale itself.

    Attributes:
        level: Logarithm of the spread over the scale where all terms are at their centres.
        terms: What it depends on.
    """

    level: float = 0.0
    terms: tuple[Term, ...] = ()

    @classmethod
    def fit(cls, facts: pd.DataFrame, error: Floats, weights: Floats, names: Sequence[str]) -> "Spread":
        """Least squares on the logarithms of absolute errors, with a small ridge; slopes of GIVEN stay.

        Args:
            facts: n rows; see TERMS.
            error: Actual less forecast, units of the target, shape (n,).
            weights: Weight of each row, shape (n,).
            names: Terms to use; one that is nowhere known or everywhere the same is left out.
        """
        target = np.log(np.abs(error) / facts["scale"].to_numpy(np.float64) + FLOOR)
        found = [term for name in names if (term := _unfitted(name, facts, weights))]
        given, terms = [t for t in found if t.name in GIVEN], [t for t in found if t.name not in GIVEN]
        for term in given:
            target = target - term.slope * term.values(facts)
        x = np.stack([term.values(facts) for term in terms], axis=1) if terms else np.empty((len(facts), 0))
        level, middle = np.average(target, weights=weights), np.average(x, axis=0, weights=weights)
        x = x - middle
        weighted = x * weights[:, None]
        variance = np.average(x**2, axis=0, weights=weights)
        slopes = np.linalg.solve(
            weighted.T @ x + PSEUDO_ROWS * np.diag(variance), weighted.T @ (target - level)
        )
        fitted = tuple(
            Term(t.name, float(s), t.centre, t.low, t.high) for t, s in zip(terms, slopes, strict=True)
        )
        return cls(float(level - middle @ slopes), (*fitted, *given))

    def of(self, facts: pd.DataFrame) -> Floats:
        """The spread of each row, units of the target, shape (n,), above 0."""
        logarithm = np.full(len(facts), self.level)
        for term in self.terms:
            logarithm += term.slope * term.values(facts)
        found: Floats = np.exp(logarithm) * facts["scale"].to_numpy(np.float64)
        return found


def _can_be_made(name: str, facts: pd.DataFrame) -> bool:
    """Whether the facts have what a term is made of."""
    return name not in OPTIONAL or OPTIONAL[name] in facts


def _unfitted(name: str, facts: pd.DataFrame, weights: Floats) -> Term | None:
    """A term with its range and centre, and no slope yet but a given one; None where it says nothing."""
    if not _can_be_made(name, facts):
        return None
    values = TERMS[name](facts).to_numpy(np.float64)
    known = ~np.isnan(values)
    if not known.any():
        return None
    if name in GIVEN:
        centre = np.average(values[known], weights=weights[known])
        return Term(name, GIVEN[name], float(centre), -BEYOND_ALL, BEYOND_ALL)
    low, high = np.quantile(values[known], [EDGE, 1 - EDGE])
    if high - low < 1e-9:
        return None
    centre = np.average(np.clip(values[known], low, high), weights=weights[known])
    return Term(name, 0.0, float(centre), float(low), float(high))


def conformal_quantile(scores: Floats, weights: Floats, level: float) -> float:
    """The score that a new one does not exceed with the probability `level`.

    The smallest score at or below which a share of level * (1 + 1/n) of the weight lies, n being the
    effective number of rows (Kish 1965); the largest one where that share exceeds 1. With equal weights it is
    the quantile of split conformal prediction (Lei et al. 2018, algorithm 2).

    Args:
        scores: Shape (n,).
        weights: Shape (n,), above 0.
        level: Between 0 and 1.

    Example:
        >>> conformal_quantile(np.arange(1.0, 10.0), np.ones(9), 0.8)
        8.0
    """
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    effective = weights.sum() ** 2 / (weights**2).sum()
    place = np.searchsorted(reached, level * (1 + 1 / effective) - 1e-12)
    return float(scores[order][min(int(place), len(scores) - 1)])


@dataclass(frozen=True)
class Calibration:
    """What makes bounds of forecasts.

    Attributes:
        quantiles: Indexed by horizon, columns as in BOUNDS: quantiles of (actual - forecast) / spread.
        spread: The usual size of errors.
    """

    quantiles: pd.DataFrame
    spread: Spread = Spread()

    @classmethod
    def fit(cls, facts: pd.DataFrame, error: Floats, weights: Floats, names: Sequence[str]) -> "Calibration":
        """Learn from out-of-sample errors; arguments as of Spread.fit."""
        spread = Spread.fit(facts, error, weights, names)
        scores, horizons = np.abs(error) / spread.of(facts), facts["horizon"].to_numpy()
        rows = {}
        for horizon in np.unique(horizons):
            own = horizons == horizon
            own = own if own.sum() >= OWN_QUANTILES else np.full(len(own), True)
            rows[int(horizon)] = _symmetric(scores[own], weights[own])
        table = pd.DataFrame.from_dict(rows, orient="index", columns=list(BOUNDS))
        return cls(table.rename_axis("horizon"), spread)

    def bounds(self, facts: pd.DataFrame, *, nonnegative: bool) -> pd.DataFrame:
        """Bounds, units of the target, ordered: 95 % around 80 % around the forecast.

        A horizon without quantiles of its own has those of the nearest shorter one that has some, else of
        the nearest longer one.

        Args:
            facts: n rows; see TERMS.
            nonnegative: No bound is below 0.

        Returns:
            Shape (n, 4), columns as in BOUNDS, index as of the facts.
        """
        horizons, forecast = facts["horizon"], facts["forecast"].to_numpy(np.float64)
        every = self.quantiles.index.union(pd.Index(horizons.unique()))
        offsets = self.quantiles.reindex(every).ffill().bfill().loc[horizons, list(BOUNDS)]
        lower_80, upper_80, lower_95, upper_95 = (
            offsets.to_numpy(np.float64) * self.spread.of(facts)[:, None] + forecast[:, None]
        ).T
        inner = np.minimum(lower_80, forecast), np.maximum(upper_80, forecast)
        outer = np.minimum(lower_95, inner[0]), np.maximum(upper_95, inner[1])
        found = pd.DataFrame(np.stack([*inner, *outer], axis=1), facts.index, list(BOUNDS))
        return found.clip(lower=0.0) if nonnegative else found

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {"quantiles": self.quantiles.to_dict(orient="split"), "spread": asdict(self.spread)}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "Calibration":
        """From what to_dict gave; without a spread, as earlier releases kept it, the scale is the spread."""
        quantiles = pd.DataFrame(**facts["quantiles"]).rename_axis("horizon")
        spread = facts.get("spread", {"level": 0.0, "terms": ()})
        return cls(quantiles, Spread(spread["level"], tuple(Term(**term) for term in spread["terms"])))


def _symmetric(scores: Floats, weights: Floats) -> tuple[float, ...]:
    """Quantiles of scores as offsets on both sides, in the order of BOUNDS."""
    found = [conformal_quantile(scores, weights, level / 100) for level in LEVELS]
    return tuple(side * offset for offset in found for side in (-1.0, 1.0))
