"""How fast feature rows are made on the case study, and how fast mlforecast makes its own.

What belongs here: the time of making every training row there can be (a share of 1.0: all cutoffs, all
horizons) as float32 arrays, its steps, and peak memory; beside it, in the same run, the peer's `preprocess`
on the same history (peers.py). What does not: fitting and forecasting (accuracy.py).

Rows are made twice in a process of their own. The first time it is given its memory, which a virtual machine
may do slowly; the rates are of the second time, and the first is told beside it, of both.

A row of ours is a series, a cutoff and a horizon. A row of the peer is a series and a week, since its model
is recursive, and has fewer features; so values (rows times features) are compared too.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
from peer_windows import DATA, markdown, open_case, windows

from turnover_assets.core import relations
from turnover_assets.core.calendar import label_of
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.row_arrays import select_rows
from turnover_assets.panel import default_panel
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.warehouse import Warehouse

PANEL = default_panel()
EVERY_ROW = 10**9
STEPS = ("prepare", "choose", "fill")
AIM = 1_000_000  # rows a second


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each, of which medians")
    parser.add_argument("--peers-python", type=Path, help="a Python with the peers' libraries, see README")
    parser.add_argument("--one-round", type=Path, metavar="HOME", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one_round:
        print(json.dumps(one_round(chosen.one_round)))
        return 0
    files = [*sorted((DATA / "decathlon/history").glob("*")), *sorted((DATA / "decathlon/weekly").glob("*"))]
    if not files:
        print(f"No files of the case study in {DATA}; set TURNOVER_TEST_DATA.", file=sys.stderr)
        return 2
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="turnover-features-") as temporary:
        home = Path(temporary)
        settings = load_settings(home=home)
        with open_case(PANEL, files, settings).transaction() as con:
            newest = pd.Timestamp(label_of(PANEL, last_period(con, PANEL)))
            folder = next(windows(con, PANEL, settings, [newest], home / "peers")).folder
        for _ in range(chosen.rounds):  # in turn, since the machine's speed changes
            ours.append(told([sys.executable, __file__, "--one-round", home]))
            if chosen.peers_python:
                peers = Path(__file__).with_name("peers.py")
                theirs += told([chosen.peers_python, peers, folder, "--features"])
    report(pd.DataFrame(ours), pd.DataFrame(theirs))
    print(f"\n{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the end, medians of {len(ours)}")
    return 0


def told(command: list[object]) -> Any:
    """What a process of its own prints as JSON."""
    said = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(said.stdout.splitlines()[-1])


def one_round(home: Path) -> dict[str, float]:
    """Make every row, twice: seconds by step, rows, features, and peak megabytes of the process."""
    settings = load_settings(home=home)
    warehouse = Warehouse(settings.warehouse_path, settings.threads, settings.memory_limit)
    with warehouse.transaction() as con:
        first = make_rows(con, settings)
        again = make_rows(con, settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024**2 if sys.platform == "darwin" else 1024
    )
    return {**again, "first_seconds": first["seconds"], "megabytes": peak}


def make_rows(con: duckdb.DuckDBPyConnection, settings: Settings) -> dict[str, float]:
    """Make every row: seconds by step and of all, those of the processors, rows and features."""
    last, clock = last_period(con, PANEL), [(time.perf_counter(), time.process_time())]
    relations.prepare(con, PANEL, last)
    clock.append((time.perf_counter(), time.process_time()))
    relations.choose_training_pairs(con, PANEL, 1.0, EVERY_ROW, settings.alive_periods)
    clock.append((time.perf_counter(), time.process_time()))
    rows = select_rows(con, PANEL, known=True)
    clock.append((time.perf_counter(), time.process_time()))
    steps = {step: clock[i + 1][0] - clock[i][0] for i, step in enumerate(STEPS)}
    seconds, processor = (clock[-1][i] - clock[0][i] for i in (0, 1))
    return {
        **steps,
        "rows": len(rows),
        "features": len(rows.names),
        "seconds": seconds,
        "processor": processor,
    }


def report(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Print the rates and the share of each step."""
    lines = {"ours": rates(ours)} | ({"mlforecast": rates(theirs)} if len(theirs) else {})
    print(markdown(pd.DataFrame(lines)))
    share = ours[list(STEPS)].div(ours["seconds"], axis=0).median()
    print("\n" + ", ".join(f"{step} {part:.0%}" for step, part in share.items()))
    ideal = (ours["rows"] / ours["processor"]).median() * (os.cpu_count() or 1)
    print(f"{ideal:,.0f} rows/s, were all processors free and busy; the aim is {AIM:,}")


def rates(rounds: pd.DataFrame) -> dict[str, str]:
    """Medians of the rounds, as text."""
    speed = (rounds["rows"] / rounds["seconds"]).median()
    return {
        "rows": f"{rounds['rows'].median():,.0f}",
        "features": f"{rounds['features'].median():.0f}",
        "seconds, the first time": f"{rounds['first_seconds'].median():.2f}",
        "seconds": f"{rounds['seconds'].median():.2f}",
        "rows/s": f"{speed:,.0f}",
        "million values/s": f"{speed * rounds['features'].median() / 1e6:.1f}",
        "peak memory, MB": f"{rounds['megabytes'].median():,.0f}",
    }


if __name__ == "__main__":
    sys.exit(main())
