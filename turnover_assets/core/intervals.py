"""TEMPORARY by the lead, until the intervals helper's version is here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from turnover_assets.core.aggregates import aggregate
from turnover_assets.core.models.base import Rows

Floats = npt.NDArray[np.floating]
LEVELS = (80, 95)
BOUNDS = ("lower_80", "upper_80", "lower_95", "upper_95")


def _q(e: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    r = ((e["actual"] - e["forecast"]) / e["scale"]).groupby([e[b] for b in by])
    return pd.DataFrame(
        {
            "lower_80": r.quantile(0.1),
            "upper_80": r.quantile(0.9),
            "lower_95": r.quantile(0.025),
            "upper_95": r.quantile(0.975),
        }
    )


@dataclass(frozen=True)
class Intervals:
    """Temporary."""

    quantiles: pd.DataFrame
    sums: pd.DataFrame = field(default_factory=pd.DataFrame)

    @classmethod
    def calibrate(cls, errors: pd.DataFrame, levels: Sequence[str]) -> "Intervals":
        """Temporary."""
        return cls(_q(errors, ["horizon"]), _q(aggregate(errors, levels), ["level", "horizon"]))

    def bounds(self, rows: Rows, forecast: Floats, *, nonnegative: bool) -> pd.DataFrame:
        """Temporary."""
        h = rows.identity["horizon"]
        off = self.quantiles.reindex(self.quantiles.index.union(h.unique())).ffill().bfill().loc[h]
        return self._o(
            pd.DataFrame(off.to_numpy() * rows.scale[:, None] + forecast[:, None], columns=BOUNDS),
            forecast,
            nonnegative,
        )

    @staticmethod
    def _o(found: pd.DataFrame, forecast: Floats, nonnegative: bool) -> pd.DataFrame:
        found["lower_80"] = np.minimum(found["lower_80"], forecast)
        found["upper_80"] = np.maximum(found["upper_80"], forecast)
        found["lower_95"] = np.minimum(found["lower_95"], found["lower_80"])
        found["upper_95"] = np.maximum(found["upper_95"], found["upper_80"])
        return found.clip(lower=0.0)[list(BOUNDS)] if nonnegative else found[list(BOUNDS)]

    def aggregate_bounds(self, table: pd.DataFrame, *, nonnegative: bool) -> pd.DataFrame:
        """Temporary."""
        off = self.sums.reindex(pd.MultiIndex.from_frame(table[["level", "horizon"]])).to_numpy()
        b = pd.DataFrame(
            off * table["scale"].to_numpy()[:, None] + table["forecast"].to_numpy()[:, None], columns=BOUNDS
        )
        return pd.concat([table, self._o(b, table["forecast"].to_numpy(), nonnegative)], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Temporary."""
        f = lambda d: json.loads(d.reset_index().to_json(orient="split", double_precision=15))
        return {"q": f(self.quantiles), "s": f(self.sums)}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "Intervals":
        """Temporary."""
        if "quantiles" in facts:
            return cls(pd.DataFrame(**facts["quantiles"]).rename_axis("horizon"))
        return cls(
            pd.DataFrame(**facts["q"]).set_index("horizon"),
            pd.DataFrame(**facts["s"]).set_index(["level", "horizon"]),
        )
