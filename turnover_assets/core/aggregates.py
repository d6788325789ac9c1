"""TEMPORARY by the lead, until the intervals helper's version is here."""

from collections.abc import Sequence

import pandas as pd

TOTAL = "total"


def aggregate(table: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """Sums by level; see prompt."""
    parts = []
    for level in (TOTAL, *levels):
        member = table[level].astype(str) if level != TOTAL else pd.Series("", index=table.index)
        by = [member.rename("member"), *(table[n] for n in ("cutoff", "t", "horizon"))]
        sums = table[["forecast", "scale", "actual"]].groupby(by).sum(min_count=1)
        sums["parts"] = table["forecast"].groupby(by).count()
        parts.append(sums.reset_index().assign(level=level))
    return pd.concat(parts, ignore_index=True)
