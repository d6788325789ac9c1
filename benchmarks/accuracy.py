"""Accuracy on the case study: the product's forecasts and the peers', side by side on the same rows.

What belongs here: the case study's cutoffs, the scores, and the tables. What does not: the peers (peers.py),
what is known at a cutoff (peer_windows.py), the product's backtest (ours.py).

Forecasts are scored against what was reported, on the series that were alive at the cutoff. Peers forecast
from the history that the product has adjusted as of the cutoff, in the scale in force then; and once from the
reported one. Where the case study's data are missing the script says so and ends with exit code 2.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from bounds import coverages
from ours import Ours, add_ours, cost, hold_backtest, read_exported
from peer_windows import DATA, HISTORIES, Window, markdown, open_case, peer_forecasts, run_peers, windows

from turnover_assets.core.metrics import bias, wape
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets.settings import load_settings

CUTOFFS = tuple((pd.Timestamp("2017-06-10") - pd.Timedelta(weeks=8 * k)).date().isoformat() for k in range(9))
APART = "2016-12-24"  # its window straddles the end of the doubled block
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
DEFAULT_PEERS = tuple(peer for peer in PEERS if peer != "auto_ets")  # no season beyond 24; within mstl
COMPARED_IN_COST = "mlforecast"
RAW_ONLY = ("case_study",)
OURS = "ours"


def main() -> int:
    chosen = arguments()
    files = [*sorted((DATA / "decathlon/history").glob("*")), *sorted((DATA / "decathlon/weekly").glob("*"))]
    if not files:
        print(f"No files of the case study in {DATA}; set TURNOVER_TEST_DATA.", file=sys.stderr)
        return 2
    began, panel = time.perf_counter(), default_panel()
    with tempfile.TemporaryDirectory(prefix="turnover-peers-") as home:
        settings = load_settings(home=Path(home))
        warehouse = open_case(panel, files, settings)
        with warehouse.transaction() as con:
            dates = [pd.Timestamp(cutoff) for cutoff in sorted(chosen.cutoffs)]
            found = list(windows(con, panel, settings, dates, chosen.cache / "case-study"))
            labels = [window.label for window in found]
            costs = cost(con, panel, settings, labels[-1], chosen.model)
        if COMPARED_IN_COST in chosen.peers:  # at once after ours, since the machine's speed changes
            run_peers(chosen.peers_python, found[-1:], [COMPARED_IN_COST], "adjusted", again=True)
        ours = (
            read_exported(chosen.ours)
            if chosen.ours
            else hold_backtest(warehouse.transaction, panel, settings, labels, chosen.model, chosen.evidence)
        )
    for history in HISTORIES:
        names = [p for p in chosen.peers if history == "reported" or p not in RAW_ONLY]
        run_peers(chosen.peers_python, found, names, history)
    report(panel, found, chosen.peers, ours, costs)
    print(f"\n{time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f} at the end")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cutoffs", nargs="+", default=list(CUTOFFS), help="last weeks known")
    parser.add_argument("--model", default="blend", help="the product's candidate")
    parser.add_argument("--evidence", type=int, default=4, help="windows before a cutoff to learn from")
    parser.add_argument("--ours", type=Path, help="forecasts as `turnover backtest --output` writes them")
    parser.add_argument("--peers", nargs="*", default=list(DEFAULT_PEERS), choices=PEERS)
    parser.add_argument(
        "--peers-python", type=Path, required=True, help="a Python with the peers' libraries, see README"
    )
    parser.add_argument("--cache", type=Path, default=Path("var/peers"), help="keeps the peers' forecasts")
    return parser.parse_args()


def report(
    panel: PanelSpec, found: Sequence[Window], peers: Sequence[str], ours: Ours, costs: tuple[float, float]
) -> None:
    """Print every table."""
    for history in HISTORIES:
        names = [p for p in peers if history == "reported" or p not in RAW_ONLY]
        tables, seconds = side_by_side(panel, found, names, history, ours)
        print(f"\n## Peers on the {history} history\n\nWAPE in percent\n")
        print(markdown(errors(tables, names)))
        print(f"\nBias of the total in percent\n\n{markdown(biases(tables, names))}")
        print(f"\nSeconds of the peers, as measured when they were computed\n\n{markdown(seconds)}")
    print(f"\n## Coverage of ours in percent\n\n{markdown(coverages(tables, ours, APART))}")
    print(f"\n## Cost at {found[-1].label}\n\n{told_costs(found[-1], costs)}")


def side_by_side(
    panel: PanelSpec, found: Sequence[Window], peers: Sequence[str], history: str, ours: Ours
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """For each cutoff a table of the rows with a column a forecaster; and the peers' seconds."""
    tables, seconds = {}, pd.DataFrame(index=[w.label for w in found], columns=list(peers), dtype=float)
    for window in found:
        table = add_ours(window.outcomes, panel.keys, window.label, ours)
        for peer in peers:
            forecast, seconds.loc[window.label, peer] = peer_forecasts(window, peer, history)
            table[peer] = forecast.clip(lower=0.0)
        tables[window.label] = table.dropna(subset="actual")
    return tables, seconds.round(1)


def errors(tables: dict[str, pd.DataFrame], peers: Sequence[str]) -> pd.DataFrame:
    """WAPE of everybody at each cutoff, and how far ours lies above (+) or below the best peer."""
    lines = {
        label: {name: 100 * wape(_values(table, "actual"), _values(table, name)) for name in (OURS, *peers)}
        for label, table in tables.items()
    }
    found = pd.DataFrame(lines).T
    means = {"mean of all": found.mean()}
    if APART in found.index and len(found) > 1:
        means[f"mean without {APART}"] = found.drop(index=APART).mean()
    found = pd.concat([found, pd.DataFrame(means).T])
    if peers:
        best = found[list(peers)].min(axis=1)
        found["best peer"] = found[list(peers)].idxmin(axis=1)
        found["ours against it"] = (100 * (found[OURS] / best - 1)).map("{:+.1f} %".format)
    return found


def biases(tables: dict[str, pd.DataFrame], peers: Sequence[str]) -> pd.DataFrame:
    """Relative bias of everybody at each cutoff, and the mean of its absolute values."""
    lines = {
        label: {name: 100 * bias(_values(table, "actual"), _values(table, name)) for name in (OURS, *peers)}
        for label, table in tables.items()
    }
    found = pd.DataFrame(lines).T
    means = {"mean absolute": found.abs().mean()}
    if APART in found.index and len(found) > 1:
        means[f"mean absolute without {APART}"] = found.drop(index=APART).abs().mean()
    return pd.concat([found, pd.DataFrame(means).T])


def _values(table: pd.DataFrame, name: str) -> np.ndarray:
    return table[name].to_numpy(np.float64)


def told_costs(window: Window, costs: tuple[float, float]) -> str:
    """What training and forecasting took, ours beside mlforecast where that was computed."""
    features, fitted = costs
    said = f"Ours: {features:.1f} s features, {fitted:.1f} s fitting and forecasting"
    try:
        _, seconds = peer_forecasts(window, COMPARED_IN_COST, "adjusted")
    except FileNotFoundError:
        return f"{said}."
    return f"{said}; {COMPARED_IN_COST}: {seconds:.1f} s in all; ratio {(features + fitted) / seconds:.1f}."


if __name__ == "__main__":
    sys.exit(main())
