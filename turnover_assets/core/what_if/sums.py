"""Sums in a what-if answer: the total and the members of levels that a question reaches.

What belongs here: which sums a question is about, and setting them beside the baseline. What does not: adding
up, and bounds of sums (core/forecasting.py).

A sum has series that nobody asked for. They are forecast too, with the changes and without: sums of levels
are among their features, so what is changed of some series can move the forecasts of others.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from turnover_assets.core.aggregates import TOTAL, member_names
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.what_if.newcomers import Placed
from turnover_assets.core.what_if.overlay import Overlay

FIGURES = ("forecast", *BOUNDS)
BASELINE = ("baseline", *(f"baseline_{bound}" for bound in BOUNDS))


Members = Mapping[str, frozenset[str]]  # by level, as text; see aggregates.aggregate


def reach_sums(overlay: Overlay, levels: Sequence[str], placed: Sequence[Placed]) -> Members:
    """Find the members of levels that series asked for, or newcomers, belong to, and forecast them whole."""
    if not levels:
        return {}
    keys = list(overlay.panel.keys)
    table = overlay.con.execute(f"SELECT * FROM ({overlay.members_sql()}) ORDER BY ALL").df()
    asked = overlay.asked().assign(is_asked=True)
    is_asked = table[keys].merge(asked, on=keys, how="left")["is_asked"].notna().to_numpy()
    new = pd.DataFrame([{**one.attributes, **one.keys} for one in placed], columns=table.columns)
    found: dict[str, frozenset[str]] = {}
    chosen = np.full(len(table), False)
    for level in levels:
        names = _members(table, level)
        found[level] = frozenset({*names[is_asked], *_members(new, level)})
        chosen |= names.isin(found[level]).to_numpy()
    overlay.also(table.loc[chosen, keys])
    return found


def compared_sums(members: Members, made: pd.DataFrame, unchanged: pd.DataFrame) -> pd.DataFrame:
    """Sums with the changes beside those without.

    Args:
        members: Whose sums.
        made: Sums of the forecasts with the changes; see forecasting.aggregate_table.
        unchanged: Without; empty where all series are new.
    """
    on = ["level", "member", "horizon"]
    own = [(made["level"] == level) & made["member"].isin(names) for level, names in members.items()]
    names = dict(zip(FIGURES, BASELINE, strict=True))
    base = unchanged[[*on, *names]].rename(columns=names)
    found = made[np.any(own, axis=0)].merge(base, on=on, how="left", validate="one_to_one")
    return found.assign(difference=found["forecast"] - found["baseline"])


def _members(table: pd.DataFrame, level: str) -> pd.Series:
    return pd.Series("", index=table.index) if level == TOTAL else member_names(table[level])
