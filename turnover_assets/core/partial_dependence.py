"""What the model does on the whole: its forecasts as one feature changes and all else stays.

What belongs here: partial dependence (Friedman, 2001), through predictions only, so for any candidate. What
does not: single forecasts (explanations.py), pictures (explanation_pictures.py).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from turnover_assets.core.models import Candidate, Rows
from turnover_assets.core.models.base import Floats

MOST_ROWS = 2000  # enough for a mean
POINTS = 12  # values of a feature
SHOWN = 6  # features
TAILS = 0.02  # share of the known values left out at either end


def partial_dependence(
    candidate: Candidate, rows: Rows, names: Sequence[str], points: int = POINTS
) -> pd.DataFrame:
    """Mean forecast at values of each feature, with all others as they are.

    Args:
        candidate: A fitted model.
        rows: Rows to average over; about MOST_ROWS of them are taken, evenly spread.
        names: Features to vary.
        points: Values of each feature at most; quantiles of those known.

    Returns:
        A row for each feature and value, in the order of `names`: `feature`, `value` (as the feature is),
        `forecast` (sum of forecasts over sum of scales: 1 is the average period of the last season), `known`
        (share of rows whose value is known). A feature that no row knows has none.
    """
    some = _evenly(rows)
    parts = [_of_feature(candidate, some, name, points) for name in names]
    return pd.concat(parts, ignore_index=True) if parts else _table("", np.empty(0), [], 0.0)


def most_important(candidate: Candidate, names: Sequence[str], count: int = SHOWN) -> list[str]:
    """The features that decide most, most important first; none where the candidate does not rank them."""
    shares = candidate.importance(names)
    return [
        str(name) for name in shares[shares > 0].sort_values(ascending=False, kind="stable").index[:count]
    ]


def _evenly(rows: Rows) -> Rows:
    places = np.unique(np.linspace(0, max(0, len(rows) - 1), min(MOST_ROWS, len(rows))).astype(np.intp))
    mask: npt.NDArray[np.bool_] = np.isin(np.arange(len(rows)), places)
    return rows.where(mask)


def _of_feature(candidate: Candidate, rows: Rows, name: str, points: int) -> pd.DataFrame:
    column = rows.names.index(name)
    known = rows.x[:, column][~np.isnan(rows.x[:, column])]
    if not len(known):
        return _table(name, known, [], 0.0)
    grid = np.unique(np.quantile(known, np.linspace(TAILS, 1 - TAILS, points), method="nearest"))
    x, forecasts = rows.x.copy(), []
    for value in grid:
        x[:, column] = value
        predicted = candidate.predict(Rows(rows.identity, x, rows.names))
        forecasts.append(float(predicted.sum() / rows.scale.sum()))
    return _table(name, grid, forecasts, len(known) / max(1, len(rows)))


def _table(name: str, values: Floats, forecasts: list[float], known: float) -> pd.DataFrame:
    table = pd.DataFrame({"value": values.astype(np.float64), "forecast": forecasts, "known": known})
    table.insert(0, "feature", pd.Series([name] * len(values), dtype="str"))
    return table
