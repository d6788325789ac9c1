"""How often outcomes lay within the product's bounds, by level, for benchmarks of accuracy.

What belongs here: that table. What does not: errors (accuracy.py, walmart.py), and the bounds (ours.py).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from ours import Ours

from turnover_assets.core.metrics import coverage


def coverages(tables: Mapping[str, pd.DataFrame], ours: Ours, apart: str | None = None) -> pd.DataFrame:
    """Share of outcomes inside ours' bounds in percent, by level; windows without bounds do not count.

    Args:
        tables: By the label of its cutoff, the rows of each window as add_ours gives them.
        ours: Has the sums, if any.
        apart: Label of a window without which each share is told a second time.
    """
    levels = {"series": pd.concat([table.assign(label=label) for label, table in tables.items()])}
    if len(ours.aggregates):
        levels |= {str(level): table for level, table in ours.aggregates.groupby("level")}
    lines = {}
    for level, table in levels.items():
        parts = {f"{level}, all windows": table}
        if apart:
            parts[f"{level}, without {apart}"] = table[table["label"] != apart]
        for name, part in parts.items():
            lines[name] = {f"{s} %": _covered(part, s) for s in (80, 95)} | {"rows": len(part)}
    return pd.DataFrame(lines).T


def _covered(table: pd.DataFrame, share: int) -> float:
    names = [f"lower_{share}", f"upper_{share}", "actual"]
    if names[0] not in table:
        return float("nan")
    lower, upper, actual = table.dropna(subset=names)[names].to_numpy(np.float64).T
    return 100 * coverage(actual, lower, upper) if len(actual) else float("nan")
