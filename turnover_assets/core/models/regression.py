"""Linear regression on simple forecasts: the features that forecast the target by themselves, combined.

What belongs here: the candidate `seasonal_regression`, and the least absolute deviations fit behind it. What
does not: the simple forecasts (features.py), and combinations of candidates (blend.py).

Shocks hit all series of a period together, so even a million rows hold only as many independent observations
as there are periods. That is why the weights are drawn to equal ones: it costs little and carries over.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from turnover_assets.core.features import FORECASTING, check_row_columns
from turnover_assets.core.models.base import Candidate, Floats, Rows, thinned, training_weights

STEPS = 12  # of reweighting; the weights have settled by then
CLOSEST = 0.02  # scaled error below which rows count alike, or a perfect hit would count without bound
MOST_ROWS = 60_000  # enough for some dozens of weights


def least_absolute(x: Floats, y: Floats, weight: Floats, ridge: float) -> Floats:
    """Coefficients of the smallest weighted absolute error, drawn to equal ones that add up to 1.

    Iteratively reweighted least squares (Schlossmacher 1973), with a ridge penalty on the distance to equal
    coefficients.

    Args:
        x: Shape (n, f).
        y: Shape (n,).
        weight: Shape (n,), at least 0.
        ridge: Strength of the penalty, as a share of the mean diagonal of the normal equations.

    Returns:
        Shape (f,).
    """
    equal = np.full(x.shape[1], 1.0 / x.shape[1])
    found = equal
    for _ in range(STEPS):
        counts = weight / np.maximum(np.abs(y - x @ found), CLOSEST)
        weighted = x * counts[:, None]
        left, right = weighted.T @ x, weighted.T @ y
        penalty = ridge * np.trace(left) / len(equal) + 1e-12
        found = np.linalg.solve(left + penalty * np.eye(len(equal)), right + penalty * equal)
    return found


def simple_forecasts(rows: Rows) -> tuple[tuple[str, ...], Floats]:
    """Names and values of the features that forecast by themselves, divided by the scale, shape (n, k).

    What is missing is the mean of those that a row has; zero where it has none.
    """
    names = tuple(name for name in rows.names if name.startswith(FORECASTING))
    found = rows.x[:, [rows.names.index(name) for name in names]].astype(np.float64)
    known = ~np.isnan(found)
    filled = np.where(known, found, 0.0)
    mean = filled.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return names, np.where(known, found, mean[:, None])


class SeasonalRegression(Candidate):
    """Simple forecasts, weighted so that their combination had the smallest absolute error."""

    name = "seasonal_regression"
    PARAMETERS: Mapping[str, str | int | float] = {"ridge": 0.03, "memory": 2.0}

    def __init__(self, parameters: Mapping[str, str | int | float] | None = None) -> None:
        self._parameters = {**self.PARAMETERS, **(parameters or {})}
        self._names: tuple[str, ...] = ()
        self._coefficients: Floats = np.empty(0)

    def fit(self, rows: Rows, *, seed: int, threads: int) -> Self:  # noqa: ARG002
        """See Candidate; in one thread, which is the same to the last bit everywhere."""
        some = thinned(rows, MOST_ROWS)
        self._names, x = simple_forecasts(some)
        weight = training_weights(some, float(self._parameters["memory"]))
        with threadpool_limits(limits=1, user_api="blas"):
            self._coefficients = least_absolute(
                x, some.actual / some.scale, weight, float(self._parameters["ridge"])
            )
        return self

    def predict(self, rows: Rows) -> Floats:
        """See Candidate."""
        self._check_fitted()
        names, x = simple_forecasts(rows)
        check_row_columns(names, self._names)
        predicted: Floats = (x @ self._coefficients) * rows.scale
        return predicted

    def importance(self, names: Sequence[str]) -> pd.Series:
        """See Candidate; size of the coefficients, which all stand on the same scale."""
        size = pd.Series(np.abs(self._coefficients), index=list(self._names))
        shares = size.reindex(list(names), fill_value=0.0) / max(size.sum(), 1e-12)
        return shares.sort_values(ascending=False, kind="stable")

    def parameters(self) -> dict[str, str | int | float]:
        """See Candidate."""
        return dict(self._parameters)

    def unfitted(self) -> Self:
        """See Candidate."""
        return type(self)(self._parameters)

    def save(self, folder: Path) -> None:
        """See Candidate."""
        self._check_fitted()
        facts = {
            "parameters": self._parameters,
            "coefficients": dict(zip(self._names, map(float, self._coefficients), strict=True)),
        }
        (folder / "regression.json").write_text(json.dumps(facts, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See Candidate."""
        facts = json.loads((folder / "regression.json").read_text())
        found = cls(facts["parameters"])
        found._names = tuple(facts["coefficients"])
        found._coefficients = np.array(list(facts["coefficients"].values()))
        return found

    def _check_fitted(self) -> None:
        if not self._names:
            raise ValueError("the model has not been fitted; call fit or load first")
