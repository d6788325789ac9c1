"""Histogram gradient boosting of scikit-learn on scaled targets, absolute error weighted by the scale.

What belongs here: the candidate, and how it is stored without pickle. What does not: xgboost (boosting.py).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from turnover_assets.core.features import check_row_columns
from turnover_assets.core.models.base import Candidate, Floats, Rows, thinned, training_weights
from turnover_assets.core.models.boosting import read_parameters, write_parameters

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

# What a stored model of ours holds beyond the types skops itself trusts, and nothing else. Never read from
# the file: a list taken from there would trust whatever someone put in.
SKOPS_TRUSTED = ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",)


FEWEST_KNOWN = 50  # values of a feature
BINS = 255  # of a feature, as scikit-learn has by default
WORTH_THREADS = 50_000  # rows; below that, threads wait for one another longer than they work


def binned(x: Floats) -> Floats:
    """The features, each value replaced by the nearest of BINS quantiles of its feature, shape (n, f).

    The trees are of binned values anyway, and split halfway between two of them, so what they forecast for
    the values themselves is the same. The weighted quantiles that scikit-learn 1.9 takes where there are more
    different values cost ten times what fitting does. A feature has some known values.
    """
    found = np.full_like(x, np.nan)
    for column in range(x.shape[1]):
        values = x[:, column]
        known = ~np.isnan(values)
        grid = np.unique(np.quantile(values[known], np.linspace(0, 1, BINS), method="nearest"))
        above = np.searchsorted(grid, values[known]).clip(1, max(len(grid) - 1, 1))
        low, high = grid[above - 1], grid[np.minimum(above, len(grid) - 1)]
        found[known, column] = np.where(values[known] - low <= high - values[known], low, high)
    return found


def _without_empty_columns(x: Floats) -> Floats:
    """The features, with zeros for those that are hardly ever known.

    scikit-learn cannot put a feature into bins whose values are all missing, or all in rows that it does
    not sample for that. A constant feature is never split on, so what it holds later does not matter.
    """
    empty = (~np.isnan(x)).sum(axis=0) < FEWEST_KNOWN
    return np.where(empty, np.float32(0.0), x) if empty.any() else x


class HistogramBoosting(Candidate):
    """scikit-learn's histogram gradient boosting."""

    name = "histogram_boosting"
    PARAMETERS: Mapping[str, Any] = {
        "loss": "absolute_error",
        "learning_rate": 0.12,
        "max_iter": 100,
        "max_leaf_nodes": 31,
        "min_samples_leaf": 50,
        "l2_regularization": 1.0,
        "early_stopping": False,
        "memory": 2.0,
        "max_rows": 20_000,
    }

    def __init__(
        self,
        parameters: Mapping[str, Any] | None = None,
        model: "HistGradientBoostingRegressor | None" = None,
        names: Sequence[str] = (),
    ) -> None:
        """Args: parameters in place of its own; what was fitted before, and on which features."""
        self._parameters = {**self.PARAMETERS, **(parameters or {})}
        self._model, self._names = model, tuple(names)

    def fit(self, rows: Rows, *, seed: int, threads: int) -> Self:
        """See Candidate."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        chosen = dict(self._parameters)
        memory, most = float(chosen.pop("memory")), int(chosen.pop("max_rows"))
        self._model = HistGradientBoostingRegressor(**chosen, random_state=seed)
        self._names = rows.names
        some = thinned(rows, most)
        with threadpool_limits(limits=1 if len(some) < WORTH_THREADS else threads, user_api="openmp"):
            self._model.fit(
                binned(_without_empty_columns(some.x)),
                some.actual / some.scale,
                sample_weight=training_weights(some, memory),
            )
        return self

    def predict(self, rows: Rows) -> Floats:
        """See Candidate."""
        check_row_columns(rows.names, self._names)
        return self._scaled(rows.x) * rows.scale

    def importance(self, names: Sequence[str]) -> pd.Series:
        """See Candidate; total gain of the splits."""
        gain = np.zeros(len(names))
        for (tree,) in self._fitted._predictors:
            splits = tree.nodes[tree.nodes["is_leaf"] == 0]
            np.add.at(gain, splits["feature_idx"].astype(int), np.maximum(splits["gain"], 0.0))
        return pd.Series(gain / max(gain.sum(), 1e-12), index=list(names)).sort_values(ascending=False)

    def parameters(self) -> dict[str, str | int | float]:
        """See Candidate."""
        return dict(self._parameters)

    def unfitted(self) -> Self:
        """See Candidate."""
        return type(self)(self._parameters)

    def save(self, folder: Path) -> None:
        """See Candidate."""
        import skops.io

        skops.io.dump(self._fitted, folder / "model.skops")
        (folder / "features.json").write_text(json.dumps({"names": self._names}))
        write_parameters(folder, self._parameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See Candidate; types beyond SKOPS_TRUSTED are refused by skops."""
        import skops.io

        facts = json.loads((folder / "features.json").read_text())
        model = skops.io.load(folder / "model.skops", trusted=list(SKOPS_TRUSTED))
        return cls(read_parameters(folder), model, facts["names"])

    @property
    def _fitted(self) -> "HistGradientBoostingRegressor":
        if self._model is None:
            raise ValueError("the model has not been fitted; call fit or load first")
        return self._model

    def _scaled(self, x: Floats) -> Floats:
        with threadpool_limits(limits=1 if len(x) < WORTH_THREADS else None, user_api="openmp"):
            predicted: Floats = self._fitted.predict(x)
        return predicted
