"""Candidate models behind one small interface.

What belongs here: the interface (base.py), one module for each family, and the registry below; a new
candidate is one class and one line in it. What does not: choosing among them (core/backtest.py) and
tracking (storage/registry.py).
"""

from collections.abc import Mapping
from typing import Any

from turnover_assets.core.models.base import Candidate, Rows
from turnover_assets.core.models.blend import Blend, make_component
from turnover_assets.core.models.boosting import ResidualBoosting, XGBoost
from turnover_assets.core.models.histogram import HistogramBoosting
from turnover_assets.core.models.naive import SeasonalNaive, SeasonalNaiveGrowth
from turnover_assets.core.models.recursive import RecursiveBoosting, SeasonalRecursiveBoosting
from turnover_assets.core.models.regression import SeasonalRegression
from turnover_assets.errors import UnknownNameError

CANDIDATES: tuple[type[Candidate], ...] = (
    SeasonalNaive,
    SeasonalNaiveGrowth,
    SeasonalRegression,
    HistogramBoosting,
    XGBoost,
    ResidualBoosting,
    RecursiveBoosting,
    SeasonalRecursiveBoosting,
    Blend,
)

BASELINE = SeasonalNaive.name


def candidate_class(name: str) -> type[Candidate]:
    """The candidate of that name.

    Raises:
        UnknownNameError: There is none; the message lists those there are.
    """
    for candidate in CANDIDATES:
        if candidate.name == name:
            return candidate
    raise UnknownNameError("candidate model", name, [candidate.name for candidate in CANDIDATES])


def make_candidate(
    kind: type[Candidate],
    tuned: Mapping[str, Mapping[str, Any]] | None = None,
    weights: Mapping[str, float] | None = None,
) -> Candidate:
    """An unfitted candidate.

    Args:
        kind: Its class.
        tuned: Parameters that a search has found, by candidate; its own where there are none.
        weights: Weights of a blend; its prior where left out.
    """
    if issubclass(kind, Blend):
        return kind(tuned, weights or None)
    return make_component(kind, (tuned or {}).get(kind.name))


__all__ = ["BASELINE", "CANDIDATES", "Blend", "Candidate", "Rows", "candidate_class", "make_candidate"]
