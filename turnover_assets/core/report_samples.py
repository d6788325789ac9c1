"""Samples of what Evidently's reports compare: rows now, and rows to compare them with, in bounded numbers.

What belongs here: choosing rows. What does not: Evidently itself (storage/evidently_reports.py).

Frames hold numbers only. Evidently writes column names and texts into its files as they are, so nothing that
came out of a file may get there.
"""

from dataclasses import dataclass

import duckdb
import pandas as pd

from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.features import features
from turnover_assets.core.monitoring.drift import LEFT_OUT
from turnover_assets.core.monitoring_page.outcomes import OUTCOMES, prepare
from turnover_assets.core.tables import has_table
from turnover_assets.panel import PanelSpec

MOST_ROWS = 20_000  # of each side
NOW, BEFORE = "features.scoring", "features.year_ago"
TARGET, PREDICTION = "target", "prediction"


@dataclass(frozen=True)
class Samples:
    """What one report compares.

    Attributes:
        current: Rows now.
        reference: Rows to compare with; None where there are none.
        told: What the two are, in words.
    """

    current: pd.DataFrame
    reference: pd.DataFrame | None
    told: str


def feature_samples(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> Samples:
    """Feature rows of the newest cutoff, and of the same one a year before.

    Features without a value on one of the sides are left out, since there is nothing to compare, and so are
    those that core/monitoring/drift.py leaves out.
    """
    names = [feature.name for feature in features(panel) if feature.group not in LEFT_OUT]
    columns = ", ".join(names)
    sides = [
        con.execute(
            f"SELECT {columns} FROM (SELECT *, hash(series_id, horizon) AS place FROM {table}) "
            f"ORDER BY place, series_id, horizon LIMIT {MOST_ROWS}"
        ).df()
        for table in (NOW, BEFORE)
    ]
    known = [name for name in names if all(side[name].notna().any() for side in sides)]
    current, reference = (side[known].astype("float64") for side in sides)
    every = panel.frequency.every
    return Samples(
        current, reference, f"features of the newest cutoff against the same {every}s of last year"
    )


def target_samples(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> Samples:
    """The adjusted values of the newest H periods, and of the same a year before."""
    last, h, season = last_period(con, panel), panel.horizon, panel.frequency.season
    names = ", ".join([*panel.keys, "t"])
    sides = [
        con.execute(
            f"SELECT {panel.target}_adjusted AS {TARGET} FROM cleaned.{panel.series.name} "
            f"WHERE t > $until - {h} AND t <= $until AND {panel.target}_adjusted IS NOT NULL "
            f"ORDER BY hash({names}), {names} LIMIT {MOST_ROWS}",
            {"until": until},
        ).df()
        for until in (last, last - season)
    ]
    every = panel.frequency.every
    told = f"{panel.target} of the last {h} {every}s against the same {every}s of last year"
    return Samples(sides[0], sides[1] if len(sides[1]) else None, told)


def outcome_samples(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, backtest: str, model: str
) -> Samples | None:
    """Outcomes of published forecasts, and the backtest's forecasts of the champion to compare with.

    Where no published forecast has an outcome yet, the backtest's stand alone; None where there is neither.

    Args:
        con: Connection with the cleaned tables.
        panel: The panel.
        backtest: Table of the newest backtest, named as schema.table; it need not be there.
        model: The champion's candidate.
    """
    prepare(con, panel, last_period(con, panel))
    named = f"actual AS {TARGET}, forecast AS {PREDICTION}"
    names = ", ".join([*panel.keys, "cutoff", "horizon"])
    by_place = f"ORDER BY hash({names}), {names} LIMIT {MOST_ROWS}"
    published = con.execute(f"SELECT {named} FROM {OUTCOMES} {by_place}").df()
    promised = pd.DataFrame({TARGET: [], PREDICTION: []})
    if has_table(con, backtest):
        promised = con.execute(
            f"SELECT {named} FROM {backtest} WHERE is_compared AND model = ? AND actual IS NOT NULL "
            f"{by_place}",
            [model],
        ).df()
    if len(published):
        found = f"published forecasts of the last {panel.horizon} {panel.frequency.every}s"
        known = promised if len(promised) else None
        return Samples(published, known, f"{found}{' against the backtest' if known is not None else ''}")
    return (
        Samples(promised, None, "the backtest: no published forecast is known yet") if len(promised) else None
    )
