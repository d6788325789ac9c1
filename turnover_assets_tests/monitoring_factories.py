"""Warehouses with published forecasts, their outcomes, and the tables of schema monitoring, for tests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core.calendar import label_of
from turnover_assets.core.features import feature_names
from turnover_assets.core.forecast_history import BASELINE, CHAMPION, keep_forecasts
from turnover_assets.core.monitoring import tables
from turnover_assets.core.monitoring_page import Made
from turnover_assets.panel import PanelSpec

MADE_AT = datetime(2030, 6, 1, 12, tzinfo=UTC)
RUNS = (
    "run_id VARCHAR, job VARCHAR, status VARCHAR, cause VARCHAR, attempt INTEGER, started_at TIMESTAMPTZ, "
    "ended_at TIMESTAMPTZ, seconds DOUBLE, warnings INTEGER"
)
STEPS = "run_id VARCHAR, asset VARCHAR, seconds DOUBLE, rows BIGINT, bytes BIGINT, status VARCHAR"


def made(panel: PanelSpec, last: int, **changes: Any) -> Made:
    """What a page is of whose newest period is `last`."""
    known = {"cutoff": label_of(panel, last), "model": "xgboost", "version": 3, "made_at": MADE_AT}
    return Made(**{**known, "release": "1.2.3", **changes})


def newest(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> int:
    """Index of the newest cleaned period."""
    return int(con.execute(f"SELECT max(t) FROM cleaned.{panel.series.name}").fetchall()[0][0])


def keep_published(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoffs: Sequence[int]) -> None:
    """Keep forecasts of these cutoffs: 10 % too high at each horizon; the naive ones 20 % too low.

    The bounds are 0.85 and 1.3 times what comes (80 %), and 0.5 and 2 times (95 %).
    """
    keys = list(panel.keys)
    history = con.execute(
        f"SELECT {', '.join(keys)}, t, {panel.time}, {panel.target} AS y FROM cleaned.{panel.series.name}"
    ).df()
    usual = history.groupby(keys)["y"].mean().rename("usual")
    for cutoff in cutoffs:
        ahead = usual.reset_index().merge(pd.DataFrame({"horizon": range(1, panel.horizon + 1)}), how="cross")
        ahead["t"] = ahead["horizon"] + cutoff
        ahead = ahead.merge(history[[*keys, "t", "y"]], on=[*keys, "t"], how="left")
        ahead["y"] = ahead["y"].fillna(ahead["usual"])
        ahead[panel.time] = [label_of(panel, int(t)) for t in ahead["t"]]
        ahead["cutoff"], ahead["model_version"] = label_of(panel, cutoff), 3
        for name, factor in (("lower_80", 0.85), ("upper_80", 1.3), ("lower_95", 0.5), ("upper_95", 2.0)):
            ahead[name] = factor * ahead["y"]
        own = ahead.assign(forecast=1.1 * ahead["y"])
        naive = ahead.assign(forecast=0.8 * ahead["y"], model_version=0)
        keep_forecasts(con, panel, {CHAMPION: own, BASELINE: naive})


def insert(con: duckdb.DuckDBPyConnection, table: str, *rows: Mapping[str, Any]) -> None:
    """Add rows to a table by the names of its columns; what is not named is empty."""
    con.register("rows_to_insert", pd.DataFrame(list(rows)))
    con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows_to_insert")
    con.unregister("rows_to_insert")


def measure(con: duckdb.DuckDBPyConnection, cutoff: date, level: str, member: str, **values: float) -> None:
    """Add measures of a member as seen at a cutoff."""
    place = {"level": level, "member": member, "cutoff": cutoff}
    insert(con, tables.MEASURES, *({**place, "measure": name, "value": v} for name, v in values.items()))


def fill_monitoring(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoffs: Sequence[int], members: Sequence[str]
) -> None:
    """Fill every table of schema monitoring with plausible figures of these cutoffs, the newest last."""
    tables.prepare(con, panel)
    con.execute(f"CREATE OR REPLACE TABLE monitoring.runs ({RUNS})")
    con.execute(f"CREATE OR REPLACE TABLE monitoring.steps ({STEPS})")
    for number, cutoff in enumerate(cutoffs):
        _fill_cutoff(con, panel, cutoff, number, members)
    _fill_drift(con, panel, label_of(panel, cutoffs[-1]), members)


def _fill_cutoff(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: int, number: int, members: Sequence[str]
) -> None:
    label, wave = label_of(panel, cutoff), 0.02 * float(np.sin(number))
    figures = {"wape": 0.231 + wave, "wape_seasonal_naive": 0.31 + wave, "wape_promised": 0.225}
    others = {"bias": 0.021, "tracking_signal": 1.5, "coverage_80": 0.81, "coverage_95": 0.94}
    seen = {**figures, **others, "wape_over_promised": 1.03, "stability": 0.042 + wave / 2}
    measure(con, label, "total", "", **seen, drifted_share=0.02, target_psi=0.03, missing_share=0.01)
    for i, member in enumerate(members):
        own = {**seen, "wape": 0.2 + 0.03 * i}
        measure(con, label, panel.report_level, member, **own)
    judged = {"level": "total", "member": "", "basis": "series", "model_version": 3, "rows": 40, "periods": 8}
    insert(
        con,
        tables.ACCURACY,
        *(
            {**judged, "cutoff": label, "horizon": horizon, **figures, **others, "updated_at": MADE_AT}
            for horizon in (None, *range(1, panel.horizon + 1))
        ),
    )
    moved = {"forecast": 1020.0, "previous_forecast": 1000.0, "change": 0.05, "shift": 0.02}
    insert(
        con,
        tables.STABILITY,
        *(
            {
                "cutoff": label,
                "previous_cutoff": label_of(panel, cutoff - 1),
                panel.time: label_of(panel, cutoff + ahead),
                "level": level,
                "member": member,
                **moved,
            }
            for ahead in range(1, panel.horizon)
            for level, member in (("total", ""), *((panel.report_level, member) for member in members))
        ),
    )
    started = MADE_AT - timedelta(days=7 * (20 - number))
    insert(con, tables.INPUTS, _inputs(label, f"run {number}", started))
    ended = {"ended_at": started + timedelta(seconds=60), "seconds": 60.0 + number, "warnings": 2}
    run = {"run_id": f"run {number}", "job": "refresh", "status": "SUCCESS", "cause": "a new file"}
    insert(con, "monitoring.runs", {**run, "attempt": 1, "started_at": started, **ended})
    step = {"run_id": f"run {number}", "rows": 320, "bytes": 4096, "status": "SUCCESS"}
    longest = {**step, "asset": "forecasts/latest", "seconds": 12.5}
    insert(con, "monitoring.steps", longest, {**step, "asset": "cleaned/turnover", "seconds": 3.25})


def _inputs(cutoff: date, run_id: str, made_at: datetime) -> dict[str, Any]:
    return {
        "cutoff": cutoff,
        "run_id": run_id,
        "made_at": made_at,
        "series_expected": 12,
        "series_missing": 1,
        "missing_share": 1 / 12,
        "rows_landed": 400,
        "rows_rejected": 4,
        "quarantine_rate": 0.01,
        "files_accepted": 1,
        "files_refused": 2,
        "bytes": 12345,
    }


def _fill_drift(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: date, members: Sequence[str]
) -> None:
    sides = {"rows": 96, "reference_rows": 90, "missing_share": 0.0, "reference_missing_share": 0.05}
    means = {"wasserstein": 0.2, "mean": 1.1, "reference_mean": 1.0}
    of = {"cutoff": cutoff, "level": "total", "member": "", **means, **sides}
    psi = {name: 0.4 / (1 + i) for i, name in enumerate(feature_names(panel))}
    features = (
        {**of, "kind": "feature", "name": n, "psi": x, "is_drifted": x >= 0.2} for n, x in psi.items()
    )
    target = {**of, "kind": "target", "name": panel.target, "psi": 0.031, "is_drifted": False}
    own = ({**target, "level": panel.report_level, "member": member} for member in members)
    insert(con, tables.DRIFT, *features, target, *own)
    first = con.execute(f"SELECT {', '.join(panel.keys)} FROM cleaned.{panel.series.name} LIMIT 1").df()
    keys = {key: first[key].tolist()[0] for key in panel.keys}
    insert(con, tables.MISSING_SERIES, {"cutoff": cutoff, **keys, "last_reported": cutoff})
