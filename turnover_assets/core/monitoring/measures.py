"""The figures of the newest periods, by level and member: the table monitoring.measures.

What belongs here: one figure for each measure as it is seen at a published cutoff, for alert rules and
operators. What does not: the tables that they summarise.

Invariant: a measure of a cutoff is made from what was known when it was published, and is replaced only where
the same cutoff is published again.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core.accuracy import ALL, OF_SERIES, TOTAL
from turnover_assets.core.monitoring.drift import FEATURE, TARGET, drifted_share
from turnover_assets.core.monitoring.judging import CELL, judge_series, promised_like, tracking_signals
from turnover_assets.core.monitoring.outcomes import Outcomes
from turnover_assets.core.monitoring.stability import moved
from turnover_assets.core.monitoring.tables import MEASURES
from turnover_assets.core.run_records import RUNS
from turnover_assets.core.tables import has_table
from turnover_assets.panel import PanelSpec

OF_ACCURACY = (
    *("wape", "wape_seasonal_naive", "wape_promised", "wape_over_promised", "bias", "tracking_signal"),
    *("coverage_80", "coverage_95"),
)
OF_TARGET = ("psi", "wasserstein")
WHERE = ["level", "member"]
COLUMNS = ["measure", *WHERE, "value"]


def accuracy_measures(outcomes: Outcomes, promises: pd.DataFrame, panel: PanelSpec) -> pd.DataFrame:
    """How the champion's forecasts of the newest periods turned out, whatever cutoff they were made at.

    `wape_over_promised` is the ratio of WAPE to that of seasonal naive, over the same ratio in the backtest:
    periods differ in how hard they are, the ratio differs less. 1 is as promised, above 1 is worse.

    Args:
        outcomes: The forecasts whose target period is among the newest.
        promises: As promises.read_promises gives them.
        panel: The panel.

    Returns:
        COLUMNS for each of OF_ACCURACY that is known.
    """
    rows, sums = (table.assign(group=0) for table in (outcomes.rows, outcomes.sums))
    judged = judge_series(rows, panel)
    if judged.empty:
        return pd.DataFrame(columns=COLUMNS)
    found = judged[judged["horizon"].isna()]
    by_version = judge_series(rows.assign(group=rows["model_version"]), panel)
    by_version = by_version.rename(columns={"group": "model_version"}).assign(basis=OF_SERIES)
    found = found.merge(promised_like(by_version, promises, WHERE), on=WHERE, how="left")
    found = found.merge(tracking_signals(sums)[[*CELL, "tracking_signal"]], on=CELL, how="left")
    naive, promised = found["wape_seasonal_naive"], found["wape_seasonal_naive_promised"]
    ratio = found["wape"] / naive.where(naive > 0)
    promise = found["wape_promised"] / promised.where(promised > 0)
    found["wape_over_promised"] = ratio / promise.where(promise > 0)
    return _tidy(found, OF_ACCURACY)


def stability_measures(pairs: pd.DataFrame) -> pd.DataFrame:
    """`stability`: how much the forecasts moved against the cutoff before, as a share of their sum."""
    return _tidy(moved(pairs).rename(columns={"change": "stability"}), ["stability"])


def drift_measures(drift: pd.DataFrame) -> pd.DataFrame:
    """`drifted_share` and `largest_psi` of features; `target_psi`, `target_wasserstein` and `target_drifted`.

    The last is 1 where the target has drifted, else 0; PSI alone says little of a few series.
    """
    of_features = drift[drift["kind"] == FEATURE]
    overall = {"drifted_share": drifted_share(drift), "largest_psi": of_features["psi"].max()}
    target = drift[drift["kind"] == TARGET].rename(
        columns={name: f"target_{name}" for name in OF_TARGET} | {"is_drifted": "target_drifted"}
    )
    told = _tidy(target, [*(f"target_{name}" for name in OF_TARGET), "target_drifted"])
    return joined(of_total(overall), told)


def of_total(values: Mapping[str, Any]) -> pd.DataFrame:
    """Measures that only the total has; those that are not known are left out."""
    return _tidy(pd.DataFrame([{"level": TOTAL, "member": ALL, **values}]), list(values))


def run_measures(con: duckdb.DuckDBPyConnection, jobs: tuple[str, ...]) -> dict[str, Any]:
    """`run_seconds` and `run_warnings` of the newest run of some jobs that has ended; empty without one."""
    if not has_table(con, RUNS):
        return {}
    found = con.execute(
        f"SELECT seconds, warnings FROM {RUNS} WHERE ended_at IS NOT NULL AND job IN (SELECT unnest(?)) "
        "ORDER BY ended_at DESC LIMIT 1",
        [list(jobs)],
    ).fetchall()
    return {"run_seconds": found[0][0], "run_warnings": found[0][1]} if found else {}


def measure_at(con: duckdb.DuckDBPyConnection, measure: str, cutoff: date) -> float:
    """A measure of the total at a cutoff (label); NaN where it is not known."""
    if not has_table(con, MEASURES):
        return float("nan")
    found = con.execute(
        f"SELECT value FROM {MEASURES} WHERE measure = ? AND level = ? AND cutoff = ?",
        [measure, TOTAL, cutoff],
    ).fetchall()
    return float(found[0][0]) if found else float("nan")


def joined(*tables: pd.DataFrame) -> pd.DataFrame:
    """Measures of several kinds as one table."""
    kept = [table for table in tables if len(table)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=COLUMNS)


def _tidy(table: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """A row for each measure that is known, with COLUMNS."""
    long = table.melt(WHERE, list(measures), var_name="measure", value_name="value")
    long["value"] = long["value"].astype(np.float64)
    kept: pd.DataFrame = long.loc[np.isfinite(long["value"]), COLUMNS]
    return kept
