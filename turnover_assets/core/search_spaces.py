"""What a search for hyper-parameters looks through, for each candidate.

What belongs here: parameters and where they are searched, as plain data; a new parameter is one line. What
does not: their default values, which the candidates have (models), and the search (tuning.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from turnover_assets.errors import UnknownNameError


@dataclass(frozen=True)
class Range:
    """Where a parameter is searched: from low to high, both included.

    Attributes:
        low: Lowest value.
        high: Highest value.
        log: Whether ratios count rather than differences.
        whole: Whether it takes whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def with_values(self, values: Iterable[float]) -> "Range":
        """The range, widened where it must be to hold some values."""
        known = list(values)
        return Range(min(self.low, *known), max(self.high, *known), self.log, self.whole)


_MEMORY = Range(0.5, 8.0, log=True)  # seasons
_TREES: Mapping[str, Range] = {
    "learning_rate": Range(0.02, 0.3, log=True),
    "max_depth": Range(3, 9, whole=True),
    "min_child_weight": Range(1.0, 300.0, log=True),
    "subsample": Range(0.5, 1.0),
    "colsample_bytree": Range(0.3, 1.0),
    "reg_lambda": Range(0.1, 30.0, log=True),
    "memory": _MEMORY,
}
# By candidate. The upper ends of rounds, depth and leaves bound what a training may cost.
SPACES: Mapping[str, Mapping[str, Range]] = {
    "xgboost": {"rounds": Range(60, 360, log=True, whole=True), **_TREES},
    "residual_boosting": {"rounds": Range(20, 200, log=True, whole=True), **_TREES},
    "histogram_boosting": {
        "max_iter": Range(50, 300, log=True, whole=True),
        "learning_rate": Range(0.03, 0.3, log=True),
        "max_leaf_nodes": Range(15, 127, log=True, whole=True),
        "min_samples_leaf": Range(10, 300, log=True, whole=True),
        "l2_regularization": Range(0.1, 30.0, log=True),
        "memory": _MEMORY,
    },
    "seasonal_regression": {"ridge": Range(0.001, 1.0, log=True), "memory": _MEMORY},
}


def search_space(name: str) -> Mapping[str, Range]:
    """What is searched for a candidate, by parameter.

    Raises:
        UnknownNameError: Nothing is; the message lists the candidates for which something is.
    """
    if name not in SPACES:
        raise UnknownNameError("candidate with a search space", name, list(SPACES))
    return SPACES[name]
