"""Prediction intervals from out-of-sample residuals, by horizon, in units of the series' scale.

What belongs here: calibrating residual quantiles and turning them into bounds.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from turnover_assets.core.models.base import Rows

Floats = npt.NDArray[np.floating]
LEVELS = (80, 95)
BOUNDS = ("lower_80", "upper_80", "lower_95", "upper_95")


@dataclass(frozen=True)
class Intervals:
    """Scaled residual quantiles.

    Attributes:
        quantiles: Indexed by horizon (1..H), columns `lower_80`, `upper_80`, `lower_95`, `upper_95`:
            quantiles of (actual - forecast) / scale.
    """

    quantiles: pd.DataFrame

    @classmethod
    def calibrate(cls, rows: Rows, forecast: Floats) -> "Intervals":
        """Learn the quantiles from rows that the model has not seen.

        Raises:
            ValueError: No row has a known actual.
        """
        known = ~np.isnan(rows.actual)
        if not known.any():
            raise ValueError("intervals need at least one row with a known actual")
        residual = pd.Series((rows.actual - forecast) / rows.scale)[known]
        by_horizon = residual.groupby(rows.identity["horizon"][known])
        columns = {}
        for level in LEVELS:
            tail = (100 - level) / 200
            columns[f"lower_{level}"] = by_horizon.quantile(tail)
            columns[f"upper_{level}"] = by_horizon.quantile(1 - tail)
        return cls(pd.DataFrame(columns))

    def bounds(self, rows: Rows, forecast: Floats, *, nonnegative: bool) -> pd.DataFrame:
        """Bounds around forecasts, units of the target, ordered: 95 % around 80 % around the forecast.

        A horizon without quantiles of its own has those of the nearest shorter one that has some, else
        of the nearest longer one.

        Returns:
            Shape (n, 4), columns as in BOUNDS, never below zero where `nonnegative`.
        """
        horizons = rows.identity["horizon"]
        every = self.quantiles.index.union(pd.Index(horizons.unique()))
        offsets = self.quantiles.reindex(every).ffill().bfill().loc[horizons]
        table = offsets.to_numpy() * rows.scale[:, None] + forecast[:, None]
        found = pd.DataFrame(table, columns=offsets.columns)
        found["lower_80"] = np.minimum(found["lower_80"], forecast)
        found["upper_80"] = np.maximum(found["upper_80"], forecast)
        found["lower_95"] = np.minimum(found["lower_95"], found["lower_80"])
        found["upper_95"] = np.maximum(found["upper_95"], found["upper_80"])
        return found.clip(lower=0.0)[list(BOUNDS)] if nonnegative else found[list(BOUNDS)]
