"""How much forecasts of the same period moved from one published cutoff to the next.

What belongs here: the table monitoring.stability and the figures of one cutoff. What does not: why they moved
(explanations), and how right they were (accuracy.py).
"""

from collections.abc import Collection
from datetime import date

import duckdb
import pandas as pd

from turnover_assets.core.accuracy import ALL, TOTAL
from turnover_assets.core.adjustments import series_attributes_sql
from turnover_assets.core.aggregates import member_names
from turnover_assets.core.forecast_history import CHAMPION, HISTORY
from turnover_assets.core.monitoring.tables import STABILITY, replace_cutoffs
from turnover_assets.panel import PanelSpec

CELL = ["level", "member"]


def keep_stability(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoffs: Collection[date]) -> None:
    """Compare the forecasts of some cutoffs (labels) with those of the cutoff before, and keep the rows."""
    for cutoff in sorted(cutoffs):
        pairs = read_pairs(con, panel, cutoff)
        table = moved(pairs, ["previous_cutoff", panel.time]).assign(cutoff=cutoff)
        replace_cutoffs(con, STABILITY, table, [cutoff])


def read_pairs(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: date) -> pd.DataFrame:
    """The champion's forecasts of a cutoff beside those of the cutoff before, by level and member.

    Series and periods that only one of the two forecast are left out: they have not moved.

    Returns:
        A row for each series, period and level: `previous_cutoff`, the time column (dates), `level`, `member`
        (text), `forecast`, `previous` (units of the target); none at the first cutoff.
    """
    members = list(dict.fromkeys([*panel.keys, *panel.level_names]))
    both = [*panel.keys, panel.time]
    same = " AND ".join(f"n.{name} = o.{name}" for name in both)
    rows = con.execute(
        f"SELECT {', '.join(f'a.{name}' for name in members)}, o.cutoff AS previous_cutoff, n.{panel.time}, "
        f"n.forecast, o.forecast AS previous FROM "
        f"(FROM {HISTORY} WHERE role = $role AND cutoff = $cutoff) AS n "
        f"JOIN (FROM {HISTORY} WHERE role = $role AND cutoff = "
        f"(SELECT max(cutoff) FROM {HISTORY} WHERE role = $role AND cutoff < $cutoff)) AS o ON {same} "
        f"LEFT JOIN ({series_attributes_sql(panel)}) AS a "
        f"ON {' AND '.join(f'n.{key} = a.{key}' for key in panel.keys)}",
        {"role": CHAMPION, "cutoff": cutoff},
    ).df()
    kept = ["previous_cutoff", panel.time, "forecast", "previous"]
    parts = [rows[kept].assign(level=TOTAL, member=ALL)]
    parts += [rows[kept].assign(level=level, member=member_names(rows[level])) for level in panel.level_names]
    return pd.concat(parts, ignore_index=True)


def moved(pairs: pd.DataFrame, by: Collection[str] = ()) -> pd.DataFrame:
    """How much forecasts moved.

    Args:
        pairs: As read_pairs gives them.
        by: Columns beside level and member that make a group.

    Returns:
        A row for each group: `forecast` and `previous_forecast` (sums), `change` (sum over series of
        |new - old| over sum of |old|) and `shift` ((new - old) / |old| of the sums); NaN over nothing.
    """
    sizes = pairs.assign(moved=(pairs["forecast"] - pairs["previous"]).abs(), size=pairs["previous"].abs())
    found = sizes.groupby([*by, *CELL], sort=False).agg(
        forecast=("forecast", "sum"),
        previous_forecast=("previous", "sum"),
        moved=("moved", "sum"),
        size=("size", "sum"),
    )
    base = found["previous_forecast"].abs()
    found["change"] = found["moved"] / found["size"].where(found["size"] > 0)
    found["shift"] = (found["forecast"] - found["previous_forecast"]) / base.where(base > 0)
    return found.drop(columns=["moved", "size"]).reset_index()
