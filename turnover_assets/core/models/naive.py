"""Seasonal naive baselines: last year's value, and last year's value times recent growth.

What belongs here: baselines without fitted parameters, against which every model must show its worth.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from turnover_assets.core.models.base import Candidate, Floats, Rows

# The value itself, or the nearest thing to it that is known, best first.
FALLBACKS = ("year_ago_same", "around_1_narrow", "around_1_wide", "lag_0")


def _first_known(rows: Rows) -> Floats:
    """Scaled value of the same period last year, or the best stand-in for it; shape (n,)."""
    shortest_mean = next(name for name in rows.names if name.startswith("mean_"))
    found = rows.column(FALLBACKS[0])
    for name in (*FALLBACKS[1:], shortest_mean):
        found = np.where(np.isnan(found), rows.column(name), found)
    return np.nan_to_num(found, nan=0.0)


class SeasonalNaive(Candidate):
    """The value of the same period last year; for younger series, of the nearest period known."""

    name = "seasonal_naive"

    def fit(self, rows: Rows, *, seed: int, threads: int) -> Self:  # noqa: ARG002
        """Nothing to learn."""
        return self

    def predict(self, rows: Rows) -> Floats:
        """See Candidate."""
        return _first_known(rows) * rows.scale

    def importance(self, names: Sequence[str]) -> pd.Series:  # noqa: ARG002
        """See Candidate."""
        return pd.Series(dtype=float)

    def parameters(self) -> dict[str, str | int | float]:
        """See Candidate."""
        return {}

    def save(self, folder: Path) -> None:
        """See Candidate; there is nothing but the name, which the caller writes."""

    @classmethod
    def load(cls, folder: Path) -> Self:  # noqa: ARG003
        """See Candidate."""
        return cls()


class SeasonalNaiveGrowth(SeasonalNaive):
    """Seasonal naive times the series' growth against last year over the medium window."""

    name = "seasonal_naive_growth"

    def predict(self, rows: Rows) -> Floats:
        """See Candidate."""
        grown = rows.column("year_ago_grown")
        return np.where(np.isnan(grown), _first_known(rows), grown) * rows.scale
