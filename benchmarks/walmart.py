"""Accuracy on Walmart's data: the product's forecasts and the peers', fold by fold, on the same rows.

What belongs here: the folds, the weighted error, and the tables. What does not: the peers (peers.py), what is
known at a cutoff (peer_windows.py), the product's backtest (ours.py).

Folds are pairs of calendar months from March 2011 on, eight or nine weeks each. Everything before a fold is
known, and covariates (holiday flag, temperature) for its weeks too. WMAE is the mean absolute error with
weight 5 in holiday weeks, over every row reported in the fold. Rows of series that had stopped before it, or
were not there yet, get last year's value or else 0, the same for all. Forecasts are clipped at 0, ours too.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from bounds import coverages
from ours import Ours, add_ours, hold_backtest, read_exported
from peer_windows import (
    DATA,
    HISTORIES,
    Window,
    id_sql,
    markdown,
    open_case,
    peer_forecasts,
    run_peers,
    windows,
)

from turnover_assets.core.calendar import label_sql
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import load_settings
from turnover_assets_tests.factories import walmart_like

FIRST_FOLD = pd.Timestamp("2011-03-01")
MONTHS = 2
LONGEST_FOLD = 9  # weeks
SEASON = 52
HOLIDAY_WEIGHT = 5.0
PEERS = (
    "seasonal_naive",
    "seasonal_naive_growth",
    "mstl",
    "auto_theta",
    "auto_ets",
    "mlforecast",
    "mlforecast_plain",
    "case_study",
)
DEFAULT_PEERS = tuple(peer for peer in PEERS if peer != "auto_ets")
RAW_ONLY = ("case_study",)
OURS = "ours"


def main() -> int:
    chosen = arguments()
    files = sorted((DATA / "walmart").glob("*"))
    if not files:
        print(f"No files of Walmart in {DATA}; set TURNOVER_TEST_DATA.", file=sys.stderr)
        return 2
    began, panel = time.perf_counter(), walmart_like().model_copy(update={"horizon": LONGEST_FOLD})
    with tempfile.TemporaryDirectory(prefix="turnover-peers-") as home:
        settings = load_settings(home=Path(home))
        warehouse = open_case(panel, files, settings)
        with warehouse.transaction() as con:
            actuals = reported(con, panel)
            cutoffs = [fold_cutoff(fold) for fold in range(count_folds(actuals["ds"].max()))]
            found = list(windows(con, panel, settings, cutoffs, chosen.cache / "walmart"))
            labels = [window.label for window in found]
        ours = (
            read_exported(chosen.ours)
            if chosen.ours
            else hold_backtest(warehouse.transaction, panel, settings, labels, chosen.model, chosen.evidence)
        )
    for history in HISTORIES:
        peers = [p for p in chosen.peers if history == "reported" or p not in RAW_ONLY]
        run_peers(chosen.peers_python, found, peers, history)
        print(f"\n## Walmart, peers on the {history} history, WMAE\n")
        print(markdown(weighted_errors(panel, found, peers, history, ours, actuals)))
    tables = {w.label: add_ours(w.outcomes, panel.keys, w.label, ours).dropna(subset="actual") for w in found}
    print(f"\n## Coverage of ours in percent\n\n{markdown(coverages(tables, ours))}")
    print(f"\n{time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f} at the end")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="blend", help="the product's candidate")
    parser.add_argument("--evidence", type=int, default=4, help="windows before a fold to learn from")
    parser.add_argument("--ours", type=Path, help="forecasts as `turnover backtest --output` writes them")
    parser.add_argument("--peers", nargs="*", default=list(DEFAULT_PEERS), choices=PEERS)
    parser.add_argument(
        "--peers-python", type=Path, required=True, help="a Python with the peers' libraries, see README"
    )
    parser.add_argument("--cache", type=Path, default=Path("var/peers"), help="keeps the peers' forecasts")
    return parser.parse_args()


def fold_start(fold: int) -> pd.Timestamp:
    return FIRST_FOLD + pd.DateOffset(months=MONTHS * fold)


def fold_cutoff(fold: int) -> pd.Timestamp:
    """The last Friday before a fold, numbered from 0."""
    return fold_start(fold) - pd.offsets.Week(weekday=4)


def count_folds(last: pd.Timestamp) -> int:
    """Folds that are reported to their last Friday."""
    fold = 0
    while fold_cutoff(fold + 1) <= last:
        fold += 1
    return fold


def reported(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> pd.DataFrame:
    """Every row of the history.

    Returns:
        `unique_id`, `ds`, `actual`, `weight`, and `year_ago`, what was reported 52 weeks before (0 where
        nothing was).
    """
    name, target, week = panel.series.name, panel.target, f"CAST({label_sql(panel, 'r.t')} AS TIMESTAMP)"
    same = " AND ".join(f"y.{key} = r.{key}" for key in panel.keys)
    return con.execute(
        f"SELECT {id_sql(panel, 'r')} AS unique_id, {week} AS ds, r.{target} AS actual, "
        f"CASE WHEN f.is_holiday THEN {HOLIDAY_WEIGHT} ELSE 1.0 END AS weight, "
        f"coalesce(y.{target}, 0.0) AS year_ago FROM cleaned.{name} AS r "
        f"LEFT JOIN cleaned.{name} AS y ON y.t = r.t - {SEASON} AND {same} "
        "JOIN cleaned.features AS f ON f.store = r.store AND f.t = r.t ORDER BY 1, 2"
    ).df()


def weighted_errors(
    panel: PanelSpec,
    found: Sequence[Window],
    peers: Sequence[str],
    history: str,
    ours: Ours,
    actuals: pd.DataFrame,
) -> pd.DataFrame:
    """WMAE of everybody in each fold and on average, and the share of rows where all get the same."""
    lines = {}
    for fold, window in enumerate(found):
        table = add_ours(window.outcomes, panel.keys, window.label, ours)
        for peer in peers:
            table[peer], _ = peer_forecasts(window, peer, history)
        names = [OURS, *peers]
        rows = actuals[(actuals["ds"] > window.label) & (actuals["ds"] < fold_start(fold + 1))]
        rows = rows.merge(table[["unique_id", "ds", *names]], on=["unique_id", "ds"], how="left")
        line: dict[str, float] = {name: wmae(rows, name) for name in names}
        lines[f"{rows['ds'].min():%Y-%m-%d}"] = line | {"same for all, %": 100 * rows[OURS].isna().mean()}
    table = pd.DataFrame(lines).T
    table.loc["mean"] = table.mean()
    if peers:
        best = table[list(peers)].min(axis=1)
        table["best peer"] = table[list(peers)].idxmin(axis=1)
        table["ours against it"] = (100 * (table[OURS] / best - 1)).map("{:+.1f} %".format)
    return table


def wmae(rows: pd.DataFrame, name: str) -> float:
    """Mean absolute error, weighted; the target's units."""
    forecast = rows[name].clip(lower=0.0).fillna(rows["year_ago"])
    return float(np.average((forecast - rows["actual"]).abs(), weights=rows["weight"]))


if __name__ == "__main__":
    sys.exit(main())
