"""Sums of forecasts over series: by the members of each level, and in total.

What belongs here: adding up rows of series. What does not: bounds of sums (intervals.py), and metrics
(accuracy.py).

Invariants:
    - the forecast of a sum is the sum of its parts' forecasts, so all levels agree with each other;
    - bounds are never added up: errors of parts depend on each other.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

TOTAL = "total"
MISSING = "(none)"  # a member without a name
COMPARABLE_SHARE = 0.98  # of a sum's scale


def aggregate(table: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """Add up rows of series.

    A series that was forecast and did not report sold nothing, where others have reported the period: its
    actual counts as 0. Where nobody has reported the period yet, the sum is not known.

    Args:
        table: A row for each series, cutoff and horizon of one model: `cutoff`, `t`, `horizon`, `scale`,
            `forecast`, `actual` (NaN where not known), a column for each level, and optionally `comparable`
            (see Intervals.calibrate) and `season_error`, the same for all rows of a cutoff and period.
        levels: Names of the levels.

    Returns:
        A row for each level (`total` is the last), member, cutoff and horizon: `level`, `member` (text, empty
        for the total), `cutoff`, `t`, `horizon`, `scale`, `forecast`, `actual` (sums, units of the target),
        `parts` (number of series), and, where given, `season_error` and `comparable`: whether nearly all of
        its scale is.
    """
    rows = pd.DataFrame({name: table[name] for name in ("cutoff", "t", "horizon", "scale", "forecast")})
    others = table["actual"].notna().groupby(table["t"]).transform("any")
    rows["actual"] = table["actual"].where(table["actual"].notna() | ~others, 0.0)
    comparable = table.get("comparable", pd.Series(True, index=table.index)).astype(bool)
    rows["comparable"] = table["scale"].where(comparable, 0.0)
    rows["season_error"] = table.get("season_error", np.nan)
    found = pd.concat([_sums(rows, *level) for level in _members(table, levels)], ignore_index=True)
    return found.drop(columns=[name for name in ("comparable", "season_error") if name not in table])


def _members(table: pd.DataFrame, levels: Sequence[str]) -> Iterator[tuple[str, pd.Series]]:
    """Each level with the member of each row."""
    for level in levels:
        yield level, member_names(table[level])
    yield TOTAL, pd.Series("", index=table.index)


def member_names(values: pd.Series) -> pd.Series:
    """Members as text; whole numbers without decimals, also where a missing one made them fractions.

    Example:
        >>> list(member_names(pd.Series([3.0, None])))
        ['3', '(none)']
    """
    codes, found = pd.factorize(values)
    whole = pd.Series(found).convert_dtypes() if found.dtype.kind == "f" else pd.Series(found)
    names = np.array([*whole.astype("string"), MISSING], dtype=object)
    return pd.Series(names[codes], index=values.index, dtype=object)


def _sums(rows: pd.DataFrame, level: str, member: pd.Series) -> pd.DataFrame:
    grouped = rows.groupby([member.rename("member"), "cutoff", "t", "horizon"], sort=True)
    found = grouped[["scale", "forecast", "actual", "comparable"]].sum(min_count=1)
    found["parts"], found["season_error"] = grouped.size(), grouped["season_error"].first()
    found["comparable"] = found["comparable"] >= COMPARABLE_SHARE * found["scale"]
    found = found.reset_index()
    found.insert(0, "level", level)
    return found
