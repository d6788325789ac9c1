"""What training has seen: the range of each feature, beyond which a model only guesses.

What belongs here: making the ranges, and telling which values lie outside. What does not: drift
(monitoring/), which compares distributions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from turnover_assets.core.features import feature_names
from turnover_assets.core.models import Rows
from turnover_assets.core.models.base import Floats
from turnover_assets.panel import PanelSpec

TRAINING = "features.training"


@dataclass(frozen=True)
class Outside:
    """Values of one feature that training has not seen.

    Attributes:
        feature: Its name.
        value: The value that lies farthest outside.
        low: The least one seen; NaN where none was.
        high: The largest one seen.
    """

    feature: str
    value: float
    low: float
    high: float


def ranges_sql(panel: PanelSpec) -> str:
    """SQL for a row of each feature of the training rows: `feature`, `low`, `high`; NULL if never known."""
    names = feature_names(panel)
    columns = {
        "feature": ", ".join(f"'{name}'" for name in names),
        "low": ", ".join(f"min({name})" for name in names),
        "high": ", ".join(f"max({name})" for name in names),
    }
    listed = ", ".join(f"unnest([{values}]) AS {name}" for name, values in columns.items())
    return f"SELECT {listed} FROM {TRAINING}"


def outside(before: Rows | None, after: Rows, ranges: Mapping[str, tuple[float, float]]) -> Iterator[Outside]:
    """The features that a change moved out of what training has seen.

    Args:
        before: The rows without the change, in the same order; None where there are none to compare with.
        after: The rows with it.
        ranges: The least and the largest value seen, by feature; NaN for both where none was. Features that
            are not in it are passed over.
    """
    for i, name in enumerate(after.names):
        if name not in ranges:
            continue
        values, (low, high) = after.x[:, i].astype(np.float64), ranges[name]
        beyond = np.maximum(low - values, values - high)
        if low != low:
            beyond = np.where(np.isnan(values), 0.0, 1.0)
        if before is not None:
            beyond = np.where(_same(before.x[:, i], after.x[:, i]), 0.0, beyond)
        beyond = np.nan_to_num(beyond, nan=0.0)
        if beyond.max(initial=0.0) > 0.0:
            yield Outside(name, float(values[beyond.argmax()]), low, high)


def _same(one: Floats, other: Floats) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (one == other) | (np.isnan(one) & np.isnan(other))
    return found
