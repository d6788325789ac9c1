"""A blend: the weighted mean of other candidates, with weights learned on backtest windows.

What belongs here: learning weights, and the blend as a candidate. What does not: its components.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from turnover_assets.core.models.base import Candidate, Floats, Rows
from turnover_assets.core.models.boosting import ResidualBoosting, XGBoost
from turnover_assets.core.models.recursive import RecursiveBoosting, SeasonalRecursiveBoosting
from turnover_assets.core.models.regression import SeasonalRegression
from turnover_assets.core.side_by_side import side_by_side

COMPONENTS: tuple[type[Candidate], ...] = (
    SeasonalRegression,
    ResidualBoosting,
    XGBoost,
    RecursiveBoosting,
    SeasonalRecursiveBoosting,
)
# Of a long history and of a short one: what comes after the next period is learned from years of seasons.
LONG, SHORT = 3.0, 2.0  # seasons
PRIOR: Mapping[str, float] = {
    "seasonal_regression": 0.15,
    "residual_boosting": 0.05,
    "xgboost": 0.1,
    "recursive_boosting": 0.35,
    "seasonal_recursive_boosting": 0.35,
}
SHORT_PRIOR: Mapping[str, float] = {
    "seasonal_regression": 0.2,
    "residual_boosting": 0.2,
    "xgboost": 0.15,
    "recursive_boosting": 0.05,
    "seasonal_recursive_boosting": 0.4,
}
PULL = 0.2  # penalty on the squared distance from the prior, in units of WAPE
SMOOTH = 1e-3  # |e| becomes sqrt(e^2 + SMOOTH^2) in units of the mean actual, so that it has a slope at 0
Evidence = tuple[Mapping[str, Floats], Rows]


def prior_of(seasons: float) -> dict[str, float]:
    """The weights without evidence: PRIOR from LONG on, SHORT_PRIOR up to SHORT, in between part of each.

    Args:
        seasons: Of history.

    Example:
        >>> [round(prior_of(seasons)["recursive_boosting"], 2) for seasons in (1.2, 2.5, 4.0)]
        [0.05, 0.2, 0.35]
    """
    share = min(1.0, max(0.0, (seasons - SHORT) / (LONG - SHORT)))
    return {name: share * PRIOR[name] + (1 - share) * SHORT_PRIOR[name] for name in PRIOR}


def learn_weights(evidence: Iterable[Evidence], names: Sequence[str], prior: Mapping[str, float]) -> Floats:
    """Convex weights with the lowest WAPE on past windows, pulled towards a prior.

    Each window counts alike, so that one large or hard window does not decide alone.

    Args:
        evidence: For each window the components' forecasts (scale of adjusted values, units of the target)
            and the rows they are for, all with known outcomes.
        names: The components.
        prior: Their weights without evidence.

    Returns:
        Shape (number of components,), not below 0, adding up to 1.
    """
    start = np.array([prior[name] for name in names])
    start /= start.sum()
    windows = []
    for forecasts, rows in evidence:
        reported = rows.identity["reported"].to_numpy(np.float64)
        matrix = np.column_stack([forecasts[name] for name in names]) * rows.in_force[:, None]
        if (total := float(np.abs(reported).mean())) > 0:
            windows.append((matrix / total, reported / total))
    if not windows:
        return start

    def loss(weights: Floats) -> tuple[float, Floats]:
        value, slope = PULL * float(((weights - start) ** 2).sum()), 2 * PULL * (weights - start)
        for matrix, reported in windows:
            error = matrix @ weights - reported
            size = np.sqrt(error**2 + SMOOTH**2)
            value += float(size.mean()) / len(windows)
            slope = slope + matrix.T @ (error / size) / (len(error) * len(windows))
        return value, slope

    from scipy.optimize import minimize

    found = minimize(
        loss,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(names),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
        options={"maxiter": 100, "ftol": 1e-9},
    )
    weights = np.clip(np.round(found.x, 6), 0.0, None)
    normed: Floats = weights / weights.sum()
    return normed


class Blend(Candidate):
    """The weighted mean of the components.

    Without evidence the weights are those of a long history; `learned` gives a blend with others.
    """

    name = "blend"

    def __init__(
        self,
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        weights: Mapping[str, float] | None = None,
        parts: Sequence[Candidate] = (),
    ) -> None:
        """Args: parameters of components by name; weights by name; fitted components."""
        tuned = parameters or {}
        self._parts = list(parts) or [make_component(kind, tuned.get(kind.name)) for kind in COMPONENTS]
        self.weights = dict(weights or {name: PRIOR[name] for name in self.components})

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the components."""
        return tuple(part.name for part in self._parts)

    def learned(self, evidence: Iterable[Evidence], seasons: float) -> "Blend":
        """The same blend, not fitted, with weights learned on past windows; see learn_weights.

        Args:
            evidence: The past windows.
            seasons: Of history; see prior_of.
        """
        weights = learn_weights(evidence, self.components, prior_of(seasons))
        named = dict(zip(self.components, map(float, weights), strict=True))
        return Blend(None, named, [part.unfitted() for part in self._parts])

    def combine(self, forecasts: Mapping[str, Floats]) -> Floats:
        """The weighted mean of the components' forecasts, by name."""
        parts = [self.weights[name] * forecasts[name] for name in self.components]
        combined: Floats = np.sum(parts, axis=0)
        return combined

    def fit(self, rows: Rows, *, seed: int, threads: int) -> Self:
        """See Candidate."""
        parts = reversed(self._parts)  # the longest first
        side_by_side([partial(_fit, part, rows, seed) for part in parts], threads)
        return self

    def predict(self, rows: Rows) -> Floats:
        """See Candidate."""
        return self.combine({part.name: part.predict(rows) for part in self._parts})

    def importance(self, names: Sequence[str]) -> pd.Series:
        """See Candidate; the weighted mean over the components that have one."""
        shares = {part.name: part.importance(names) for part in self._parts}
        known = {name: share for name, share in shares.items() if len(share) and self.weights[name] > 0}
        if not known:
            return pd.Series(dtype=float)
        total = sum(self.weights[name] for name in known)
        parts = [known[name].reindex(list(names)) * (self.weights[name] / total) for name in known]
        return pd.concat(parts, axis=1).sum(axis=1).sort_values(ascending=False)

    def parameters(self) -> dict[str, str | int | float]:
        """See Candidate; those of the components, by `component.parameter`."""
        return {f"{part.name}.{k}": v for part in self._parts for k, v in part.parameters().items()}

    def unfitted(self) -> Self:
        """See Candidate; with the weights that it has."""
        return type(self)(None, self.weights, [part.unfitted() for part in self._parts])

    def save(self, folder: Path) -> None:
        """See Candidate; each component in a folder of its own."""
        (folder / "blend.json").write_text(json.dumps({"weights": self.weights}, indent=2), "utf-8")
        for part in self._parts:
            (folder / part.name).mkdir()
            part.save(folder / part.name)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See Candidate."""
        weights = json.loads((folder / "blend.json").read_text("utf-8"))["weights"]
        known = {kind.name: kind for kind in COMPONENTS}
        return cls(None, weights, [known[name].load(folder / name) for name in weights])


def _fit(part: Candidate, rows: Rows, seed: int, threads: int) -> None:
    part.fit(rows, seed=seed, threads=threads)


def make_component(kind: type[Candidate], parameters: Mapping[str, Any] | None) -> Candidate:
    """A candidate with other parameters than its own, where some are given."""
    return kind(parameters) if parameters else kind()  # type: ignore[call-arg]
