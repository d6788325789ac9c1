"""Prediction intervals of series and of their sums, calibrated on out-of-sample errors.

What belongs here: which errors calibrate what. What does not: how (conformal.py), and adding series up
(aggregates.py).

Sums are calibrated on their own errors. Errors of series depend on each other, so that bounds do not follow
from those of the parts: added up they are far too wide, and as if independent far too narrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from turnover_assets.core.aggregates import aggregate
from turnover_assets.core.conformal import BOUNDS, LEVELS, Calibration, Floats, Spread
from turnover_assets.core.models.base import Rows

__all__ = ["BOUNDS", "HELPERS", "LEVELS", "Intervals", "comparable"]

HELPERS = ("deviation", "age")  # features that say something about the size of errors
DECAY = 0.5  # weight of errors relative to those that are one horizon newer
FEWEST_FOR_SLOPE = 2  # members, for the spread to depend on what is forecast
FEWEST_FOR_SIZE = 20  # members, for the spread to depend on their sizes
SAME_SCALE = 1.2  # factors closer than that are one, estimated twice


@dataclass(frozen=True)
class Intervals:
    """Calibrated intervals.

    Attributes:
        quantiles: Of series; see Calibration.
        spread: Of series; see Calibration.
        aggregates: A calibration for each level and for `total`; none where they have not been calibrated.
    """

    quantiles: pd.DataFrame
    spread: Spread = field(default_factory=Spread)
    aggregates: Mapping[str, Calibration] = field(default_factory=dict)

    @classmethod
    def calibrate(cls, errors: pd.DataFrame, levels: Sequence[str]) -> "Intervals":
        """Learn from forecasts of models that had not seen the outcomes.

        Args:
            errors: A row for each series, cutoff and horizon: `series_id`, `cutoff`, `t` (period indices),
                `horizon`, `scale`, `forecast`, `actual` (units of the target, as reported; rows without an
                actual do not count), a column for each level, and optionally `season_error`, the features of
                HELPERS and `comparable`: false where a change in the scale of reported values, as it is known
                by now, lies between what the forecast went by and its outcome. Such errors say nothing about
                the next forecasts and do not count, unless there are no others.
            levels: Names of the levels.

        Raises:
            ValueError: No row has a known actual.
        """
        known = errors[errors["actual"].notna()]
        if known.empty:
            raise ValueError("intervals need at least one row with a known actual")
        series = _calibration(known, int(known["series_id"].nunique()))
        sums = aggregate(errors, levels)
        sums = sums[sums["actual"].notna()]
        aggregates = {
            str(level): _calibration(rows, int(rows["member"].nunique()))
            for level, rows in sums.groupby("level", sort=False)
        }
        return cls(series.quantiles, series.spread, aggregates)

    def bounds(self, rows: Rows, forecast: Floats, *, nonnegative: bool) -> pd.DataFrame:
        """Bounds around forecasts of series; see Calibration.bounds.

        Args:
            rows: n rows.
            forecast: In the scale of adjusted values, units of the target, shape (n,).
            nonnegative: No bound is below 0.

        Returns:
            Shape (n, 4), columns as in BOUNDS, in the scale of adjusted values.
        """
        in_force = rows.in_force
        facts = pd.DataFrame({"horizon": rows.identity["horizon"].to_numpy()})
        facts["scale"], facts["forecast"] = rows.scale * in_force, forecast * in_force
        facts["season_error"] = rows.season_error
        for name in set(HELPERS) & set(rows.names):
            facts[name] = rows.column(name)
        found = Calibration(self.quantiles, self.spread).bounds(facts, nonnegative=nonnegative)
        return found.div(in_force, axis=0)

    def aggregate_bounds(self, table: pd.DataFrame, *, nonnegative: bool) -> pd.DataFrame:
        """Sums with their bounds.

        Args:
            table: As aggregate gives it.
            nonnegative: No bound is below 0.

        Returns:
            The table with the columns of BOUNDS added; NaN for a level that has not been calibrated.
        """
        found = table.assign(**dict.fromkeys(BOUNDS, np.nan))
        for level, calibration in self.aggregates.items():
            own = table["level"] == level
            bounds = calibration.bounds(table[own], nonnegative=nonnegative)
            found.loc[own, list(BOUNDS)] = bounds
        return found

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON, from which from_dict makes exactly the same."""
        aggregates = {level: found.to_dict() for level, found in self.aggregates.items()}
        return Calibration(self.quantiles, self.spread).to_dict() | {"aggregates": aggregates}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "Intervals":
        """From what to_dict gave, or from the quantiles alone that earlier releases kept."""
        series = Calibration.from_dict(facts)
        kept = facts.get("aggregates", {})
        aggregates = {level: Calibration.from_dict(found) for level, found in kept.items()}
        return cls(series.quantiles, series.spread, aggregates)


def _calibration(errors: pd.DataFrame, members: int) -> Calibration:
    """A calibration from the errors of one level, with the terms that so many members allow for."""
    if "comparable" in errors and errors["comparable"].any():
        errors = errors[errors["comparable"].astype(bool)]
    names = ["horizon", "season"]
    names += ["forecast", *HELPERS] if members >= FEWEST_FOR_SLOPE else []
    names += ["size"] if members >= FEWEST_FOR_SIZE else []
    error = (errors["actual"] - errors["forecast"]).to_numpy(np.float64)
    return Calibration.fit(errors, error, _weights(errors), names)


def _weights(errors: pd.DataFrame) -> Floats:
    """Weights that fall with the age of the cutoff, 1 for the newest; shape (n,)."""
    age = (errors["cutoff"].max() - errors["cutoff"]).to_numpy(np.float64)
    found: Floats = DECAY ** (age / errors["horizon"].max())
    return found


def comparable(errors: pd.DataFrame, factors: pd.DataFrame, keys: Sequence[str]) -> pd.Series:
    """Whether the outcome was reported in the scale that the forecast went by, as far as is known by now.

    Args:
        errors: n rows with the series keys, `t`, `in_force` (reported over adjusted values, as the forecast
            had it) and `actual`. One of 0 is 0 in any scale, and where none was reported it has no other one.
        factors: The series keys, `t` and `factor`: reported over adjusted values, as known by now, a row
            where it is not 1; NaN where the value counts as missing.
        keys: Names of the series keys.

    Returns:
        Booleans, shape (n,), index as of the errors.
    """
    on = [*keys, "t"]
    known = errors[[*on, "in_force"]].merge(
        factors, on=on, how="left", validate="many_to_one", indicator=True
    )
    factor = known["factor"].where(known["_merge"] == "both", 1.0).to_numpy(np.float64)
    ratio = factor / known["in_force"].to_numpy(np.float64)
    same = (ratio < SAME_SCALE) & (ratio > 1 / SAME_SCALE)
    without_scale = errors["actual"].fillna(0.0).to_numpy() == 0
    return pd.Series(same | (without_scale & ~np.isnan(factor)), index=errors.index)
