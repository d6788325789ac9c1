"""The metrics of metrics.py for many groups of rows at once, in a few passes over arrays.

What belongs here: that computation, which knows no panel. What does not: which groups are judged
(accuracy.py), what the metrics mean (metrics.py, against which this is tested).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from turnover_assets.core.metrics import QUANTILES

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

METRICS = (
    "wape",
    "bias",
    "mase",
    "rmsse",
    "pinball",
    "coverage_80",
    "coverage_95",
    "width_80",
    "width_95",
)
SCALES = {"mase": "naive_mae", "rmsse": "naive_mse"}
MISSING = "(none)"  # a member without a name


@dataclass(frozen=True)
class Factor:
    """A column as whole numbers from 0 in the order of its values, missing ones last, and the values."""

    codes: Codes
    values: pd.Index

    @classmethod
    def of(cls, column: pd.Series) -> Self:
        """Number the values of a column."""
        codes, values = pd.factorize(column, sort=True)
        missing = codes < 0
        if missing.any():
            codes = np.where(missing, len(values), codes)
            values = pd.Index([*values, None], dtype=object)
        return cls(codes.astype(np.int64), pd.Index(values))

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class JudgedRows:
    """Rows with what each of them adds to a group's metrics.

    Attributes:
        model: The model of each row.
        cutoff: Its cutoff.
        unit: A number for each model, series and cutoff, shape (n,).
        sums: Arrays of shape (n,), 0 where the row does not count.
        scales: `naive_mae` and `naive_mse` of each row, shape (n,), NaN where there is none.
    """

    model: Factor
    cutoff: Factor
    unit: Codes
    sums: dict[str, Floats]
    scales: dict[str, Floats]

    @classmethod
    def of(cls, rows: pd.DataFrame, keys: list[str]) -> Self:
        """Prepare n rows.

        Args:
            rows: `model`, `cutoff`, `actual`, `forecast`, and bounds and naive errors where there are any.
            keys: The columns that identify a series.
        """
        model, cutoff = Factor.of(rows["model"]), Factor.of(rows["cutoff"])
        unit = model.codes * len(cutoff) + cutoff.codes
        for key in keys:
            factor = Factor.of(rows[key])
            unit = _numbered(unit * len(factor) + factor.codes)[0]
        scales = {name: _column(rows, name) for name in SCALES.values()}
        return cls(model, cutoff, unit, _contributions(rows), scales)

    def table(self, members: pd.Series) -> pd.DataFrame:
        """The metrics of each model's members, over all cutoffs and for each.

        Args:
            members: The member of each row, shape (n,).

        Returns:
            `model`, `member` (text), `cutoff` (missing for all together), `rows`, `bounded_rows`,
            `abs_actual` (the sum that WAPE and bias are shares of), METRICS.
        """
        member = Factor.of(members)
        group = self.model.codes * len(member) + member.codes
        scaled = self._scaled(group)
        whole = self._groups(group, member, scaled)
        by_cutoff = self._groups(group * len(self.cutoff) + self.cutoff.codes, member, scaled, by_cutoff=True)
        return pd.concat([whole, by_cutoff], ignore_index=True)

    def _groups(
        self, codes: Codes, member: Factor, scaled: "_Scaled", *, by_cutoff: bool = False
    ) -> pd.DataFrame:
        present = np.flatnonzero(np.bincount(codes))
        found = pd.DataFrame({name: v[present] for name, v in self._metrics(codes, scaled).items()})
        cutoffs = len(self.cutoff) if by_cutoff else 1
        owner, cutoff = present // cutoffs, self.cutoff.values.take(present % cutoffs)
        found["model"] = self.model.values.take(owner // len(member)).to_numpy()
        found["member"] = names_of(pd.Series(member.values.take(owner % len(member)))).to_numpy()
        found["cutoff"] = pd.Series(cutoff if by_cutoff else pd.NA, index=found.index, dtype="Int64")
        return found

    def _metrics(self, group: Codes, scaled: "_Scaled") -> dict[str, npt.NDArray[np.generic]]:
        """Each metric by group code, shape (largest code + 1,)."""
        total = {name: _added(group, values) for name, values in self.sums.items()}
        bounded, size = total["bounded_rows"], total["abs_bounded"]
        found: dict[str, npt.NDArray[np.generic]] = {
            "rows": total["rows"].astype(np.int64),
            "bounded_rows": bounded.astype(np.int64),
            "abs_actual": total["abs_actual"],
            "wape": _ratio(total["abs_error"], total["abs_actual"]),
            "bias": _ratio(total["error"], total["abs_actual"]),
            "pinball": _ratio(total["pinball"], size),
        }
        for level in (80, 95):
            found[f"coverage_{level}"] = _ratio(total[f"inside_{level}"], bounded)
            found[f"width_{level}"] = _ratio(total[f"width_{level}"], size)
        return found | scaled.means(group)

    def _scaled(self, group: Codes) -> "_Scaled":
        """MASE and RMSSE of each series and cutoff within its group."""
        unit, first = _numbered(self.unit * (int(group.max(initial=0)) + 1) + group)
        count = _added(unit, self.sums["rows"])
        errors = {
            "mase": _ratio(_added(unit, self.sums["abs_error"]), count),
            "rmsse": _ratio(_added(unit, self.sums["squared_error"]), count),
        }
        values, counts = {}, {}
        for name, error in errors.items():
            scale = self.scales[SCALES[name]][first]
            counts[name] = (scale > 0) & (count > 0)
            values[name] = _ratio(error, np.where(counts[name], scale, 0.0))
        values["rmsse"] = np.sqrt(values["rmsse"])
        return _Scaled(first, values, counts)


@dataclass(frozen=True)
class _Scaled:
    """Scaled errors by series and cutoff, the first row of each, and whether it counts."""

    first: Codes
    values: dict[str, Floats]
    counts: dict[str, Flags]

    def means(self, group: Codes) -> dict[str, Floats]:
        """Their means by group code."""
        owner, size = group[self.first], int(group.max(initial=-1)) + 1
        found = {}
        for name, values in self.values.items():
            counts = self.counts[name]
            sums = _added(owner[counts], values[counts], size)
            found[name] = _ratio(sums, _added(owner[counts], np.ones(counts.sum()), size))
        return found


def names_of(values: pd.Series) -> pd.Series:
    """Members as text; whole numbers without decimals, also where a missing one made them fractions."""
    return values.convert_dtypes().astype("string").fillna(MISSING).astype(object)


def _contributions(rows: pd.DataFrame) -> dict[str, Floats]:
    """What each row adds to the sums from which metrics are made."""
    actual, forecast = _column(rows, "actual"), _column(rows, "forecast")
    known = ~np.isnan(actual)
    error = np.where(known, forecast - actual, 0.0)
    found: dict[str, Floats] = {
        "rows": known.astype(np.float64),
        "abs_actual": np.abs(np.where(known, actual, 0.0)),
        "error": error,
        "abs_error": np.abs(error),
        "squared_error": error**2,
    }
    return found | _bound_contributions(actual, {name: _column(rows, name) for name in QUANTILES})


def _bound_contributions(actual: Floats, bounds: dict[str, Floats]) -> dict[str, Floats]:
    """What rows with a known actual and all bounds add."""
    bounded = ~np.isnan(np.sum([actual, *bounds.values()], axis=0))
    losses = np.zeros(len(actual))
    for name, quantile in QUANTILES.items():
        short = actual - bounds[name]
        losses += np.maximum(quantile * short, (quantile - 1) * short) / len(QUANTILES)
    found: dict[str, Floats] = {
        "bounded_rows": bounded.astype(np.float64),
        "abs_bounded": np.where(bounded, np.abs(actual), 0.0),
        "pinball": np.where(bounded, losses, 0.0),
    }
    for level in (80, 95):
        lower, upper = bounds[f"lower_{level}"], bounds[f"upper_{level}"]
        found[f"inside_{level}"] = (bounded & (actual >= lower) & (actual <= upper)).astype(np.float64)
        found[f"width_{level}"] = np.where(bounded, upper - lower, 0.0)
    return found


def _column(rows: pd.DataFrame, name: str) -> Floats:
    """A column as floats; NaN throughout where the rows have no such column, as sums have no bounds."""
    if name not in rows:
        return np.full(len(rows), np.nan)
    return np.asarray(rows[name].to_numpy(np.float64, na_value=np.nan), dtype=np.float64)


def _numbered(codes: Codes) -> tuple[Codes, Codes]:
    """Codes numbered from 0 in order of appearance, and the position where each appears first."""
    numbers = pd.factorize(codes)[0].astype(np.int64)
    first = np.zeros(int(numbers.max(initial=-1)) + 1, dtype=np.int64)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    return numbers, first


def _added(codes: Codes, values: Floats, size: int = 0) -> Floats:
    """Sums of values by code, shape (largest code + 1,) or at least `size`."""
    return np.bincount(codes, weights=values, minlength=size).astype(np.float64)


def _ratio(part: Floats, whole: Floats) -> Floats:
    found: Floats = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return found
