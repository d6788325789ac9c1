"""Gradient boosted trees of xgboost on scaled targets, absolute error weighted by the scale.

What belongs here: the candidates made of xgboost. What does not: the regression that one of them starts from
(regression.py), and scikit-learn's trees (histogram.py).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from turnover_assets.core.features import check_row_columns
from turnover_assets.core.models.base import Candidate, Floats, Rows, thinned, training_weights
from turnover_assets.core.models.regression import SeasonalRegression

if TYPE_CHECKING:
    import xgboost

NOT_XGBOOSTS = ("rounds", "memory", "max_rows", "log_offset")  # parameters that the library has no name for
BEFORE_LOGARITHMS: Mapping[str, float] = {"log_offset": 0.0}  # of models that do not say, of earlier releases


def write_parameters(folder: Path, parameters: Mapping[str, Any]) -> None:
    """Write a model's parameters beside its files."""
    (folder / "parameters.json").write_text(json.dumps(dict(parameters), indent=2), "utf-8")


def read_parameters(folder: Path) -> dict[str, Any]:
    """Read what write_parameters wrote; empty for a model of an earlier release, which knew no others."""
    path = folder / "parameters.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


class XGBoost(Candidate):
    """A global xgboost model.

    The trees forecast the logarithm of the value over the series' scale. Seasons, holidays and growth
    multiply turnover, so that what is learned of them in one series holds for those on another level. The
    median of a logarithm is the logarithm of the median, so the best forecast stays the one of least absolute
    error.
    """

    name = "xgboost"
    ROUNDS = 120
    PARAMETERS: Mapping[str, str | int | float] = {
        "objective": "reg:absoluteerror",
        "tree_method": "hist",
        "learning_rate": 0.1,
        "max_depth": 7,
        "min_child_weight": 10.0,
        "subsample": 0.7,
        "colsample_bytree": 0.6,
        "reg_lambda": 1.0,
        "max_bin": 64,
        "memory": 2.0,
        "max_rows": 150_000,
        "log_offset": 0.3,
    }

    def __init__(
        self, parameters: Mapping[str, Any] | None = None, booster: "xgboost.Booster | None" = None
    ) -> None:
        """Args: parameters in place of its own, `rounds` among them; what was fitted before.

        Beyond xgboost's own there are `memory` (see training_weights), `max_rows` (see thinned) and
        `log_offset`: what is added to a value over its scale before its logarithm is taken; 0 for none taken.
        """
        self._parameters = {**self.PARAMETERS, "rounds": self.ROUNDS, **(parameters or {})}
        self._booster = booster

    def fit(self, rows: Rows, *, seed: int, threads: int) -> Self:
        """See Candidate."""
        import xgboost

        own = {name: value for name, value in self._parameters.items() if name not in NOT_XGBOOSTS}
        chosen = self._parameters
        some = thinned(self._learned_from(rows), int(chosen["max_rows"]))
        data = xgboost.QuantileDMatrix(
            some.x,
            label=self._label(some),
            weight=training_weights(some, float(chosen["memory"])),
            feature_names=list(some.names),
            max_bin=int(chosen["max_bin"]),
            nthread=threads,
        )
        settings = {**own, "seed": seed, "nthread": threads}
        self._booster = xgboost.train(settings, data, num_boost_round=int(chosen["rounds"]))
        return self

    def _learned_from(self, rows: Rows) -> Rows:
        """The rows and features to learn from, before they are thinned."""
        return rows

    def _label(self, rows: Rows) -> Floats:
        """What the trees learn, shape (n,)."""
        return self._logged(rows.actual / rows.scale)

    def _logged(self, values: Floats) -> Floats:
        """Values over the scale as the trees see them; those below zero count as zero."""
        offset = float(self._parameters["log_offset"])
        return np.log(np.maximum(values, 0.0) + offset) if offset > 0 else values

    def _unlogged(self, found: Floats) -> Floats:
        """What the trees forecast, as values over the scale."""
        offset = float(self._parameters["log_offset"])
        return np.exp(found) - offset if offset > 0 else found

    def predict(self, rows: Rows) -> Floats:
        """See Candidate."""
        self._check(rows.names)
        return self._unlogged(self._trees(rows.x)) * rows.scale

    def _trees(self, x: Floats) -> Floats:
        """What the trees forecast, shape (n,), of the features that they were trained on, shape (n, f)."""
        predicted: Floats = self._fitted.inplace_predict(x, validate_features=False).astype(np.float64)
        return predicted

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
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(folder / "model.ubj")
        return cls({**BEFORE_LOGARITHMS, **read_parameters(folder)}, booster)

    @property
    def _fitted(self) -> "xgboost.Booster":
        if self._booster is None:
            raise ValueError("the model has not been fitted; call fit or load first")
        return self._booster

    def _check(self, names: Sequence[str]) -> None:
        """Make sure that rows have the features that the trees were trained on."""
        check_row_columns(names, self._fitted.feature_names or ())


class ResidualBoosting(XGBoost):
    """A seasonal regression, and a cautious xgboost model of what that leaves."""

    name = "residual_boosting"
    ROUNDS = 50
    PARAMETERS: Mapping[str, str | int | float] = {
        **XGBoost.PARAMETERS,
        "learning_rate": 0.07,
        "max_depth": 5,
        "min_child_weight": 100.0,
        "log_offset": 0.0,
    }
    _regression = SeasonalRegression()

    def fit(self, rows: Rows, *, seed: int, threads: int) -> Self:
        """See Candidate."""
        self._regression = SeasonalRegression().fit(rows, seed=seed, threads=threads)
        return super().fit(rows, seed=seed, threads=threads)

    def _label(self, rows: Rows) -> Floats:
        """What the regression leaves, divided by the scale, shape (n,)."""
        label: Floats = (rows.actual - self._regression.predict(rows)) / rows.scale
        return label

    def predict(self, rows: Rows) -> Floats:
        """See Candidate."""
        self._check(rows.names)
        return self._trees(rows.x) * rows.scale + self._regression.predict(rows)

    def importance(self, names: Sequence[str]) -> pd.Series:
        """See Candidate; the mean of both."""
        both = (super().importance(names) + self._regression.importance(names)) / 2
        return both.sort_values(ascending=False, kind="stable")

    def save(self, folder: Path) -> None:
        """See Candidate."""
        super().save(folder)
        self._regression.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See Candidate."""
        found = super().load(folder)
        found._regression = SeasonalRegression.load(folder)
        return found
