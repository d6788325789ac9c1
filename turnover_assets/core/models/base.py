"""The interface of a candidate model, and the rows it is given.

What belongs here: what all candidates share. What does not: any one model.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Rows:
    """A block of n feature rows.

    Attributes:
        identity: Shape (n, 9): `series_id`, `cutoff`, `horizon`, `t`, `scale`, `in_force`, `actual`,
            `reported`, `season_error`; `in_force` is a ratio, `season_error` a logarithm, `scale`, `actual`
            and `reported` are in units of the target, NaN where not known. Rows to forecast of a panel whose
            periods have a short cycle have `closed`, too; see closures.py.
        x: Shape (n, f), float32: the features; NaN where missing.
        names: Names of the f features.
    """

    identity: pd.DataFrame
    x: Floats
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.identity)

    def column(self, name: str) -> Floats:
        """One feature, shape (n,), float64."""
        return self.x[:, self.names.index(name)].astype(np.float64)

    def where(self, mask: npt.NDArray[np.bool_]) -> "Rows":
        """The rows for which the mask, shape (n,), is true."""
        return Rows(self.identity[mask].reset_index(drop=True), self.x[mask], self.names)

    def with_features(self, names: Sequence[str]) -> "Rows":
        """The same rows with some of the features only, those of the names that they have."""
        kept = tuple(name for name in names if name in self.names)
        return Rows(self.identity, self.x[:, [self.names.index(name) for name in kept]], kept)

    @property
    def scale(self) -> Floats:
        """Scale of each row's series, units of the target, shape (n,)."""
        return self.identity["scale"].to_numpy(np.float64)

    @property
    def in_force(self) -> Floats:
        """Reported over adjusted values at the newest period known: forecasts times it are as reported."""
        return self.identity["in_force"].to_numpy(np.float64)

    @property
    def season_error(self) -> Floats:
        """How far off a season's values usually are at that time of year, as a logarithm; see histories.py.

        Shape (n,), NaN where not known, as in all rows of releases that did not ask.
        """
        found = self.identity.get("season_error", pd.Series(np.nan, self.identity.index))
        return found.to_numpy(np.float64)

    @property
    def closed(self) -> npt.NDArray[np.bool_]:
        """Whether the series does not report on such a day, shape (n,); nowhere where nobody asked."""
        found = self.identity.get("closed", pd.Series(False, self.identity.index))
        return found.to_numpy(np.bool_)

    @property
    def actual(self) -> Floats:
        """Adjusted value at the target period, units of the target, NaN where not known, shape (n,)."""
        return self.identity["actual"].to_numpy(np.float64)


def thinned(rows: Rows, most: int) -> Rows:
    """About so many of the rows, the same ones each time; all of them where there are fewer.

    As many are drawn of each horizon, or all of one that has fewer. Rows of neighbouring cutoffs and of one
    period share most of what they teach, so a share of them is soon as good as all.
    """
    if len(rows) <= most:
        return rows
    drawn = np.random.default_rng(len(rows)).random(len(rows))
    return rows.where(drawn * _crowding(rows) < most / len(rows))


def training_weights(rows: Rows, memory: float) -> Floats:
    """The scales times how recent a row is, over the rows of its horizon, divided by their mean, shape (n,).

    Weighting the absolute error of `value / scale` by the scale makes it the absolute error in units of the
    target, which is what WAPE counts. Every horizon counts alike. With a mean of 1, penalties count rows,
    whatever the currency.

    Args:
        rows: n rows.
        memory: Seasons after which a row counts 1/e of a new one; 0 for no forgetting.
    """
    cutoff = rows.identity["cutoff"].to_numpy(np.float64)
    weights = rows.scale / _crowding(rows)
    if memory > 0:
        weights = weights * np.exp((cutoff - cutoff.max()) / (memory * _season(rows)))
    normed: Floats = weights / weights.mean()
    return normed


def _crowding(rows: Rows) -> Floats:
    """How many rows have the same horizon, over the mean of all horizons that there are, shape (n,)."""
    horizon = rows.identity["horizon"].to_numpy(np.intp)
    count = np.bincount(horizon).astype(np.float64)
    crowding: Floats = (count / count[count > 0].mean())[horizon]
    return crowding


def _season(rows: Rows) -> int:
    """Periods of a season: the longest mean among the features; 1 where they have none."""
    means = [name.removeprefix("mean_") for name in rows.names if name.startswith("mean_")]
    return max((int(length) for length in means if length.isdigit()), default=1)


class Candidate(ABC):
    """A model that may become champion.

    Predictions are in units of the target and may be negative; whoever publishes clips them.

    Attributes:
        name: Name in the registry, in tables and in files.
    """

    name: ClassVar[str]

    @abstractmethod
    def fit(self, rows: Rows, *, seed: int, threads: int) -> Self:
        """Learn from rows whose `actual` is known."""

    @abstractmethod
    def predict(self, rows: Rows) -> Floats:
        """Forecasts, units of the target, shape (n,)."""

    @abstractmethod
    def importance(self, names: Sequence[str]) -> pd.Series:
        """Share of each feature in what the model does, adding up to 1; empty where it has none."""

    @abstractmethod
    def parameters(self) -> dict[str, str | int | float]:
        """Hyper-parameters, for the record."""

    def unfitted(self) -> Self:
        """Another one of the same parameters, not fitted."""
        return type(self)()

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model's files into an existing folder, without pickle."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read what save wrote."""
