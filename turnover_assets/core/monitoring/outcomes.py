"""Published forecasts beside what was reported since, as rows to judge.

What belongs here: reading those rows, their sums, and a fingerprint of what they are made from. What does
not: metrics (judging.py) and what is kept of them (accuracy.py).
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import Self

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core.adjustments import series_attributes_sql
from turnover_assets.core.aggregates import aggregate
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.forecast_history import AGGREGATE_HISTORY, BASELINE, CHAMPION, HISTORY
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.monitoring.tables import PROMISES
from turnover_assets.core.tables import has_table
from turnover_assets.panel import PanelSpec

SAME_SUM = 1e-6  # relative; beyond it a published sum was one of other series
VERSION = "1"  # raise it when rows are judged otherwise, so that all are judged again


@dataclass(frozen=True)
class Outcomes:
    """The champion's forecasts of some cutoffs whose target period counts as reported.

    Attributes:
        rows: Series keys and levels, `cutoff` and `t` (period indices), `horizon`, `model_version`, `actual`
            (as reported, NaN where the series did not report), `forecast`, bounds, and `naive` (the seasonal
            naive forecast made beside it, NaN where there is none).
        sums: The same by `level` and `member` in place of the keys, `actual` as aggregates.aggregate has it;
            bounds are those published for the sum, NaN where none were kept.
    """

    rows: pd.DataFrame
    sums: pd.DataFrame

    @classmethod
    def read(
        cls, con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoffs: Collection[date], last: int
    ) -> Self:
        """Read the forecasts of some cutoffs (labels), with what was reported up to the period `last`."""
        members = list(dict.fromkeys([*panel.keys, *panel.level_names]))
        same = " AND ".join(f"h.{name} = b.{name}" for name in (*panel.keys, "cutoff", "horizon"))
        reported = " AND ".join(f"h.{name} = s.{name}" for name in (*panel.keys, panel.time))
        rows = con.execute(
            f"SELECT {', '.join(f'a.{name}' for name in members)}, h.cutoff, h.horizon, h.model_version, "
            f"s.{panel.target} AS actual, h.forecast, {', '.join(f'h.{bound}' for bound in BOUNDS)}, "
            f"b.forecast AS naive FROM (FROM {HISTORY} WHERE role = '{CHAMPION}' "
            f"AND cutoff IN (SELECT unnest(CAST($cutoffs AS DATE[]))) AND {panel.time} <= $last) AS h "
            f"LEFT JOIN (FROM {HISTORY} WHERE role = '{BASELINE}') AS b ON {same} "
            f"LEFT JOIN cleaned.{panel.series.name} AS s ON {reported} "
            f"LEFT JOIN ({series_attributes_sql(panel)}) AS a "
            f"ON {' AND '.join(f'h.{key} = a.{key}' for key in panel.keys)} "
            f"ORDER BY h.cutoff, h.horizon, {', '.join(f'h.{key}' for key in panel.keys)}",
            {"cutoffs": list(cutoffs), "last": label_of(panel, last)},
        ).df()
        rows["cutoff"] = rows["cutoff"].map(_indices(panel, rows["cutoff"])).astype(np.int64)
        rows["t"] = rows["cutoff"] + rows["horizon"]
        return cls(rows, _sums(con, panel, rows))

    def within(self, after: int) -> Self:
        """Only those of target periods after the period `after`."""
        return type(self)(*(table[table["t"] > after] for table in (self.rows, self.sums)))


def _indices(panel: PanelSpec, labels: pd.Series) -> dict[object, int]:
    return {label: index_of(panel, pd.Timestamp(label).date()) for label in labels.unique()}


def _sums(con: duckdb.DuckDBPyConnection, panel: PanelSpec, rows: pd.DataFrame) -> pd.DataFrame:
    by = ["level", "member", "cutoff", "horizon"]
    parts = rows.assign(scale=1.0)
    found = aggregate(parts, panel.level_names).drop(columns=["scale", "parts"])
    found["naive"] = aggregate(parts.assign(forecast=rows["naive"]), panel.level_names)["forecast"]
    found["model_version"] = found["cutoff"].map(rows.groupby("cutoff")["model_version"].first())
    if not has_table(con, AGGREGATE_HISTORY):
        return found.assign(**dict.fromkeys(BOUNDS, np.nan))
    labels = {cutoff: label_of(panel, int(cutoff)) for cutoff in rows["cutoff"].unique()}
    published = con.execute(
        f"SELECT {', '.join([*by, *BOUNDS])}, forecast AS published FROM {AGGREGATE_HISTORY} "
        "WHERE cutoff IN (SELECT unnest(CAST(? AS DATE[])))",
        [list(labels.values())],
    ).df()
    published["cutoff"] = published["cutoff"].map(_indices(panel, published["cutoff"])).astype(np.int64)
    found = found.merge(published, on=by, how="left")
    same = np.isclose(found["forecast"], found.pop("published"), rtol=SAME_SUM)
    found.loc[~same, list(BOUNDS)] = np.nan
    return found


def fingerprints(con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int) -> dict[date, tuple[str, str]]:
    """What the outcomes of each kept cutoff are made from, so that only those that changed are judged again.

    Args:
        con: Connection with the cleaned tables and the forecast history.
        panel: The panel.
        last: The last period that counts as reported.

    Returns:
        For each cutoff of the forecast history (label), oldest first: a hash of its forecasts, what was
        reported for their periods, and what was promised (empty where none of its periods was reported yet),
        and one of its forecasts and those of the cutoff before.
    """
    made = con.execute(
        f"SELECT cutoff, max(made_at)::VARCHAR, count(*), max(model_version) FROM {HISTORY} "
        "GROUP BY cutoff ORDER BY cutoff"
    ).fetchall()
    reported = _contents(con, panel, last)
    promised = dict(con.execute(f"SELECT model_version, count(*) FROM {PROMISES} GROUP BY 1").fetchall())
    members = _members(con, panel)
    found, before = {}, ""
    for cutoff, *facts, version in made:
        own, first = _hashed(facts, VERSION), index_of(panel, cutoff) + 1
        periods = [reported.get(t) for t in range(first, min(last, first + panel.horizon - 1) + 1)]
        outcomes = _hashed(own, members.get(cutoff), promised.get(version), periods) if periods else ""
        found[cutoff] = (outcomes, _hashed(own, before))
        before = own
    return found


def _contents(con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int) -> dict[int, str]:
    """A hash of what each period reported."""
    columns = ", ".join([*panel.keys, panel.target])
    found = con.execute(
        f"SELECT t, sum(CAST(hash({columns}) AS HUGEINT))::VARCHAR FROM cleaned.{panel.series.name} "
        "WHERE t <= ? GROUP BY t",
        [last],
    ).fetchall()
    return dict(found)


def _members(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> dict[date, str]:
    """A hash of what levels the series of each cutoff belong to; series that came later do not matter."""
    found = con.execute(
        f"SELECT h.cutoff, sum(CAST(hash(a) AS HUGEINT))::VARCHAR FROM ({series_attributes_sql(panel)}) AS a "
        f"JOIN {HISTORY} AS h USING ({', '.join(panel.keys)}) WHERE h.role = ? GROUP BY h.cutoff",
        [CHAMPION],
    ).fetchall()
    return dict(found)


def _hashed(*facts: object) -> str:
    return sha256(repr(facts).encode()).hexdigest()[:16]
