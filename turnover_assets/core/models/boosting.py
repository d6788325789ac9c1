"""Gradient boosted trees on scaled targets, absolute error weighted by the scale.

What belongs here: the two boosting candidates and how each is stored without pickle. Weighting the
absolute error of `value / scale` by `scale` makes the loss the absolute error in units of the target,
which is what WAPE counts.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import skops.io
import xgboost
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from turnover_assets.core.features import check_row_columns
from turnover_assets.core.models.base import Candidate, Floats, Rows

# What a stored model of ours holds beyond the types skops itself trusts, and nothing else. Never read from
# the file: a list taken from there would trust whatever someone put in.
SKOPS_TRUSTED = ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",)


def _weights(rows: Rows) -> Floats:
    """The scales, divided by their mean.

    Both libraries take the sum of the weights for the hessian of the absolute error. With a mean of 1,
    `min_child_weight` and the penalties count rows, whatever the currency or the size of the retailer.
    """
    weights: Floats = rows.scale / rows.scale.mean()
    return weights


def write_parameters(folder: Path, parameters: Mapping[str, Any]) -> None:
    """Write a model's parameters beside its files."""
    (folder / "parameters.json").write_text(json.dumps(dict(parameters), indent=2), "utf-8")


def read_parameters(folder: Path) -> dict[str, Any]:
    """Read what write_parameters wrote; empty for a model of an earlier release, which knew no others."""
    path = folder / "parameters.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


class XGBoost(Candidate):
    """A global xgboost model."""

    name = "xgboost"
    ROUNDS = 200
    PARAMETERS: Mapping[str, str | int | float] = {
        "objective": "reg:absoluteerror",
        "tree_method": "hist",
        "learning_rate": 0.1,
        "max_depth": 7,
        "min_child_weight": 10.0,
        "subsample": 0.7,
        "colsample_bytree": 0.6,
        "reg_lambda": 1.0,
        "max_bin": 128,
    }

    def __init__(
        self, parameters: Mapping[str, Any] | None = None, booster: xgboost.Booster | None = None
    ) -> None:
        """Args: parameters in place of its own, `rounds` among them; what was fitted before."""
        self._parameters = {**self.PARAMETERS, "rounds": self.ROUNDS, **(parameters or {})}
        self._booster = booster

    def fit(self, rows: Rows, *, seed: int, threads: int) -> Self:
        """See Candidate."""
        chosen = dict(self._parameters)
        rounds = int(chosen.pop("rounds"))
        data = xgboost.QuantileDMatrix(
            rows.x,
            label=rows.actual / rows.scale,
            weight=_weights(rows),
            feature_names=list(rows.names),
            max_bin=int(chosen["max_bin"]),
            nthread=threads,
        )
        settings = {**chosen, "seed": seed, "nthread": threads}
        self._booster = xgboost.train(settings, data, num_boost_round=rounds)
        return self

    def predict(self, rows: Rows) -> Floats:
        """See Candidate."""
        predicted: Floats = self._fitted.predict(self._matrix(rows))
        return predicted.astype(np.float64) * rows.scale

    def explain(self, rows: Rows, groups: Mapping[str, str]) -> pd.DataFrame:
        """See Candidate; tree SHAP values of Lundberg et al. (2020), as xgboost computes them."""
        values = self._fitted.predict(self._matrix(rows), pred_contribs=True)
        table = pd.DataFrame(values[:, :-1] * rows.scale[:, None], columns=list(rows.names))
        grouped = table.T.groupby(table.columns.map(groups)).sum().T
        grouped.insert(0, "base", values[:, -1] * rows.scale)
        return grouped

    def importance(self, names: Sequence[str]) -> pd.Series:
        """See Candidate; total gain."""
        gain = pd.Series(self._fitted.get_score(importance_type="total_gain"), dtype=float)
        return (gain.reindex(list(names), fill_value=0.0) / max(gain.sum(), 1e-12)).sort_values(
            ascending=False
        )

    def parameters(self) -> dict[str, str | int | float]:
        """See Candidate."""
        return dict(self._parameters)

    def unfitted(self) -> Self:
        """See Candidate."""
        return type(self)(self._parameters)

    def save(self, folder: Path) -> None:
        """See Candidate."""
        self._fitted.save_model(folder / "model.ubj")
        write_parameters(folder, self._parameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See Candidate."""
        booster = xgboost.Booster()
        booster.load_model(folder / "model.ubj")
        return cls(read_parameters(folder), booster)

    @property
    def _fitted(self) -> xgboost.Booster:
        if self._booster is None:
            raise ValueError("the model has not been fitted; call fit or load first")
        return self._booster

    def _matrix(self, rows: Rows) -> xgboost.DMatrix:
        check_row_columns(rows.names, self._fitted.feature_names or ())
        return xgboost.DMatrix(rows.x, feature_names=list(rows.names))


TYPICAL_ROWS = 20_000  # enough for a median
FEWEST_KNOWN = 50  # values of a feature
WORTH_THREADS = 50_000  # rows; below that, threads wait for one another longer than they work


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
    }

    def __init__(
        self,
        parameters: Mapping[str, Any] | None = None,
        model: HistGradientBoostingRegressor | None = None,
        names: Sequence[str] = (),
    ) -> None:
        """Args: parameters in place of its own; what was fitted before, and on which features."""
        self._parameters = {**self.PARAMETERS, **(parameters or {})}
        self._model, self._names = model, tuple(names)
        self._reference: Floats = np.empty(0)

    def fit(self, rows: Rows, *, seed: int, threads: int) -> Self:
        """See Candidate."""
        self._model = HistGradientBoostingRegressor(**self._parameters, random_state=seed)
        self._names = rows.names
        some = rows.x[:: max(1, len(rows) // TYPICAL_ROWS)]
        self._reference = pd.DataFrame(some).median().to_numpy(np.float64)
        with threadpool_limits(limits=threads, user_api="openmp"):
            self._model.fit(
                _without_empty_columns(rows.x), rows.actual / rows.scale, sample_weight=_weights(rows)
            )
        return self

    def predict(self, rows: Rows) -> Floats:
        """See Candidate."""
        check_row_columns(rows.names, self._names)
        return self._scaled(rows.x) * rows.scale

    def explain(self, rows: Rows, groups: Mapping[str, str]) -> pd.DataFrame:
        """See Candidate.

        The model has no SHAP of its own, so the groups are moved one after the other from a typical row's
        values (medians) to the row's own, and what each step changes is its contribution.
        """
        check_row_columns(rows.names, self._names)
        x = np.tile(self._reference.astype(np.float32), (len(rows), 1))
        before = self._scaled(x)
        table = {"base": before * rows.scale}
        for group in sorted(set(groups.values())):
            members = [i for i, name in enumerate(rows.names) if groups[name] == group]
            x[:, members] = rows.x[:, members]
            after = self._scaled(x)
            table[group], before = (after - before) * rows.scale, after
        return pd.DataFrame(table)

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
        skops.io.dump(self._fitted, folder / "model.skops")
        facts = {
            "names": self._names,
            "reference": [None if np.isnan(v) else float(v) for v in self._reference],
        }
        (folder / "features.json").write_text(json.dumps(facts))
        write_parameters(folder, self._parameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See Candidate; types beyond SKOPS_TRUSTED are refused by skops."""
        facts = json.loads((folder / "features.json").read_text())
        model = skops.io.load(folder / "model.skops", trusted=list(SKOPS_TRUSTED))
        found = cls(read_parameters(folder), model, facts["names"])
        found._reference = np.array([np.nan if v is None else v for v in facts["reference"]])
        return found

    @property
    def _fitted(self) -> HistGradientBoostingRegressor:
        if self._model is None:
            raise ValueError("the model has not been fitted; call fit or load first")
        return self._model

    def _scaled(self, x: Floats) -> Floats:
        with threadpool_limits(limits=1 if len(x) < WORTH_THREADS else None, user_api="openmp"):
            predicted: Floats = self._fitted.predict(x)
        return predicted
