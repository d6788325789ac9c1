"""Changes of level that a model in use has not learned: how far sums run away from its forecasts.

What belongs here: measuring it for the total and the widest levels, how much of it is taken over, and the
factors for series. What does not: forecasting (forecasting.py), and defects of the past (anomalies).

A model forecasts at the level of what it was trained on. Where everything sells half as much again from one
week to the next, or a department is reported in another scale, it follows over months, and a new one can be
judged on such weeks only once they are known. So forecasts carry on what the model missed lately: an
intercept correction (Clements and Hendry, 1996, "Intercept corrections and structural change"). It pays where
a level has shifted and costs where weeks were odd by chance. So of the logarithm d of reported over forecast
only the share d^6 / (d^6 + (1.25 s)^6) is taken over. The change s of growth of that sum, from one such
stretch to the next, was exceeded one time in twenty: of half of it nothing is taken over, of s a fifth, of
2 s nearly all.

Invariants:
    - only forecasts count that were made after the model was trained, so a new model is never corrected;
    - the forecast of a sum stays the sum of its parts' forecasts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core.adjustments import series_attributes_sql
from turnover_assets.core.aggregates import TOTAL, member_names
from turnover_assets.core.closures import limited
from turnover_assets.core.histories import GROWTH_LIMITS, WINDOWS
from turnover_assets.core.models.base import Candidate, Floats, Rows
from turnover_assets.panel import PanelSpec

MOST_MEMBERS = 12  # of a level: of many, some are always far off by chance
FEWEST_SERIES = 10  # in a sum: what befalls a few is not common to all
HALF, STEEPNESS = 1.25, 6  # times the usual change, of which half is taken over; how suddenly
UNUSUAL = 0.95  # quantile of changes, beyond which one is out of the ordinary
LEAST_USUAL = 0.02  # however steady a sum has been
NEGLIGIBLE = 0.005  # what is taken over of less than that is nothing, so that quiet forecasts are the model's
SEASONS = 2  # back of which the usual change is known
COLUMNS = ("level", "member", "change", "usual", "factor", "periods")


@dataclass(frozen=True, eq=False)
class LevelChanges:
    """What forecasts are multiplied by, by member of a level.

    Attributes:
        table: The sums that were measured, with COLUMNS: `change` is reported over forecast, after what wider
            levels explain; `usual` how far that goes usually, as a logarithm; `factor` what is taken over,
            beside the factors of wider levels; `periods` how many are compared.
    """

    table: pd.DataFrame

    @cached_property
    def factors(self) -> Mapping[str, Mapping[str, float]]:
        """By level (`total` among them) and member as text; what is not in it has 1."""
        by_level = self.table.groupby("level", sort=False)
        return {str(level): dict(zip(t["member"], t["factor"], strict=True)) for level, t in by_level}

    @property
    def is_none(self) -> bool:
        """Whether nothing is multiplied by anything."""
        return bool((self.table["factor"] == 1.0).all())

    def of(self, members: pd.DataFrame) -> Floats:
        """The factors of n rows with the columns of the levels, shape (n,)."""
        found = np.full(len(members), self.factors.get(TOTAL, {}).get("", 1.0))
        for level, factors in self.factors.items():
            if level != TOTAL:
                found *= member_names(members[level]).map(factors).fillna(1.0).to_numpy(np.float64)
        return found

    def of_rows(self, rows: Rows, series: pd.DataFrame) -> Floats:
        """The factors of n rows whose series are described by `series_id` and a column for each level."""
        if self.is_none:
            return np.ones(len(rows))
        return self.of(series.set_index("series_id").loc[rows.identity["series_id"]].reset_index(drop=True))


NONE = LevelChanges(pd.DataFrame(columns=list(COLUMNS)))


def usual_changes(con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int) -> pd.DataFrame:
    """By how much the growth of sums usually changes from one short stretch to the next.

    Args:
        con: Connection on which relations.prepare_shared was called.
        panel: The panel.
        last: Index of the last period known.

    Returns:
        `level`, `member` (text, empty for the total) and `usual`, which the change of the logarithm of growth
        over a season exceeds one time in twenty, the widest level first; only of sums of FEWEST_SERIES series
        and levels of MOST_MEMBERS members, and where it was seen for half a season.
    """
    season, short = panel.frequency.season, WINDOWS[panel.frequency.every].short
    on = " AND ".join(f"a.{key} = s.{key}" for key in panel.keys)
    found = []
    members = f"series AS s JOIN ({series_attributes_sql(panel)}) AS a ON {on}"
    for level in (TOTAL, *_wide_levels(con, panel, members)):
        member = "''" if level == TOTAL else f"a.{level}"
        sums = con.execute(
            f"SELECT {member} AS member, g.t, sum(g.paired) AS now, sum(g.year_ago) AS before, "
            f"count(g.paired) AS parts FROM grid AS g JOIN ({members}) USING (series_id) "
            "WHERE g.t <= $last AND g.t > $first GROUP BY ALL ORDER BY ALL",
            {"last": last, "first": last - SEASONS * season - 2 * short},
        ).df()
        found.append(_usual(sums.assign(member=member_names(sums["member"])), short, season, level))
    return pd.concat(found, ignore_index=True)


def _wide_levels(con: duckdb.DuckDBPyConnection, panel: PanelSpec, members: str) -> list[str]:
    """Levels of MOST_MEMBERS members at most among the series known, those of the fewest first."""
    attributes = con.execute(f"SELECT a.* FROM {members}").df()
    counts = {level: attributes[level].nunique(dropna=False) for level in panel.level_names}
    return sorted(
        (level for level, n in counts.items() if n <= MOST_MEMBERS), key=lambda level: counts[level]
    )


def _usual(sums: pd.DataFrame, short: int, season: int, level: str) -> pd.DataFrame:
    """The usual change of growth of each member of a level, as usual_changes says."""
    found: dict[str, float] = {}
    for member, own in sums.groupby("member"):
        if own["parts"].tail(short).max() < FEWEST_SERIES:  # of those that are still there
            continue
        by_period = own[own["parts"].cumsum() > 0].set_index("t")[["now", "before"]]
        every = range(int(by_period.index.min()), int(by_period.index.max()) + 1)
        total = by_period.reindex(every).fillna(0.0).rolling(short).sum()  # a closed day sells nothing
        logs = total.where(total > 0).transform(np.log)
        growth = logs["now"] - logs["before"]
        change = growth.diff(short).abs().dropna()
        if len(change) >= season // 2:
            found[str(member)] = float(change.quantile(UNUSUAL))
    table = pd.DataFrame({"level": level, "member": list(found), "usual": list(found.values())})
    return table.astype({"level": object, "member": object, "usual": "float64"})


def measure(recent: pd.DataFrame, usual: pd.DataFrame) -> LevelChanges:
    """Hold recent forecasts against what came of them, the widest level first.

    Args:
        recent: A row for each series, cutoff and horizon whose outcome is known: `t`, `scale`, `forecast`,
            `actual` (in the scale of adjusted values, units of the target) and a column for each level.
        usual: As usual_changes gives it.

    Returns:
        What to multiply the next forecasts by.
    """
    rows = recent[recent["actual"].notna()]
    carried = rows["forecast"].to_numpy(np.float64)
    lines: list[tuple[Any, ...]] = []
    for level, known in usual.groupby("level", sort=False):
        member = pd.Series("", rows.index) if level == TOTAL else member_names(rows[level])
        facts = rows[["t", "scale", "actual"]].assign(forecast=carried, member=member)
        sums = facts.groupby("member").agg(
            actual=("actual", "sum"), forecast=("forecast", "sum"), scale=("scale", "sum"), t=("t", "nunique")
        )
        sums = sums.join(known.set_index("member")["usual"], how="inner")
        sums = sums[(sums["actual"] > 0) & (sums["forecast"] > 0)]
        change = np.log(sums["actual"] / sums["forecast"])
        # In its low season a sum is a matter of chance, and of little weight once that is over.
        limit = sums["usual"].clip(lower=LEAST_USUAL) * np.maximum(1.0, sums["scale"] / sums["forecast"])
        taken = change * taken_over(np.asarray(change), np.asarray(limit))
        taken = np.where(np.abs(taken) >= NEGLIGIBLE, taken, 0.0)
        factor = np.exp(taken).clip(*GROWTH_LIMITS)
        lines += zip([level] * len(sums), sums.index, np.exp(change), limit, factor, sums["t"], strict=True)
        factors = dict(zip(sums.index, factor, strict=True))
        carried = carried * member.map(factors).fillna(1.0).to_numpy(np.float64)
    return LevelChanges(pd.DataFrame(lines, columns=list(COLUMNS)))


def taken_over(change: Floats, usual: Floats) -> Floats:
    """The share of changes that is taken over; see the module.

    Example:
        >>> taken_over(np.array([0.1, -0.2, 0.3, 0.0]), np.full(4, 0.1)).round(2).tolist()
        [0.21, 0.94, 0.99, 0.0]
    """
    size, limit = np.abs(change) ** STEEPNESS, (HALF * usual) ** STEEPNESS
    found: Floats = size / np.maximum(size + limit, np.finfo(float).tiny)
    return found


def since_training(
    panel: PanelSpec,
    candidate: Candidate,
    trained_until: int,
    recent: Rows,
    members: pd.DataFrame,
    usual: pd.DataFrame,
) -> LevelChanges:
    """What a model's forecasts since its training say.

    Args:
        panel: The panel.
        candidate: The model.
        trained_until: Index of the last period that it has seen.
        recent: Rows of past cutoffs whose outcomes are known.
        members: `series_id` and a column for each level.
        usual: As usual_changes gives it.
    """
    later = recent.where((recent.identity["cutoff"] >= trained_until).to_numpy())
    if not len(later) or usual.empty:
        return NONE
    forecast = limited(panel, later, candidate.predict(later))
    facts = later.identity[["series_id", "t", "scale", "actual"]].assign(forecast=forecast)
    return measure(facts.merge(members, on="series_id", how="left", validate="many_to_one"), usual)


def kept_facts(table: pd.DataFrame, **facts: Any) -> pd.DataFrame:
    """The table as it is kept and published, with facts of the forecasts that it is about."""
    types: dict[str, Any] = {"level": "string", "member": "string", "periods": "int64"}
    return table.astype(types | dict.fromkeys(("change", "usual", "factor"), "float64")).assign(**facts)
