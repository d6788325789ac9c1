"""How time and memory grow with the number of series: 1, 10 and 100 times the case study's.

What belongs here: synthetic retailers of those sizes, and what each step from raw rows to forecasts of the
newest cutoff costs, with the product's settings: cleaning, detectors, features, the fit of the blend, and
forecasts. What does not: landing (ingestion_cost.py), the backtest, which is the same steps once for each
window, and Dagster (case_study_run.py). It needs no data.

Each size is a process of its own, and another one makes its history. Training rows are bounded
(`max_training_rows`), so from some size on the fit costs the same, and the features of fewer cutoffs are
made.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from peer_windows import markdown

from turnover_assets.core import cleaning
from turnover_assets.core.ledger import Ledger
from turnover_assets.core.models import Blend
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.rows import RowLimits, fill_scoring, fill_training, read_rows
from turnover_assets.core.synthetic import make_retailer
from turnover_assets.panel import default_panel
from turnover_assets.settings import load_settings
from turnover_assets.storage import manifest
from turnover_assets.storage.warehouse import Warehouse, row_count

PANEL = default_panel()
STORES, DEPARTMENTS, WEEKS = 350, 4, 233  # about the case study's 1,270 series
SIZES = (1, 10, 100)
STEPS = ("clean", "detect", "training rows", "scoring rows", "read", "fit", "forecast")
BOUNDED = ("read", "fit")  # by max_training_rows, so that they flatter the sum
AIM_GROWTH, AIM_MEGABYTES = 1.2, 16_000  # over linear; of the largest
# Raw tables hold texts; a history comes as one file.
RAW = """
INSERT INTO raw.{table} SELECT {number}, row_number() OVER () + 1, {columns}, NULL FROM frame
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="times the case study")
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--build", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.home:
        print(json.dumps(build(chosen.home, chosen.build) if chosen.build else steps(chosen.home)))
        return 0
    found = {}
    with tempfile.TemporaryDirectory(prefix="turnover-scale-") as temporary:
        for size in chosen.sizes:
            home = ["--home", Path(temporary) / f"{size}x"]
            made = told([*home, "--build", size])
            print(f"{size}x: {made['rows']:,} rows, {made['series']:,} series", file=sys.stderr, flush=True)
            found[size] = told(home) | made
            print(f"{size}x: {found[size]}", file=sys.stderr, flush=True)
    return report(found)


def told(arguments: list[object]) -> dict[str, float]:
    """What this script prints as JSON in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(said.stdout.splitlines()[-1]))


def warehouse_of(home: Path) -> Warehouse:
    settings = load_settings(home=home)
    return Warehouse(settings.warehouse_path, settings.threads, settings.memory_limit)


def build(home: Path, size: int) -> dict[str, float]:
    """A warehouse with a history as it would be after landing it."""
    retailer = make_retailer(STORES * size, DEPARTMENTS, WEEKS)
    frames = {"turnover": retailer.turnover, "stores": retailer.stores}
    with warehouse_of(home).transaction() as con:
        manifest.prepare(con, PANEL)
        for number, (table, frame) in enumerate(frames.items(), start=1):
            con.execute(
                "INSERT INTO raw.files (file_no, digest, name, path, row_count, status, table_name, format, "
                "delimiter, final, panel_digest, reader_version, landed_at) "
                "VALUES (?, ?, ?, ?, ?, 'accepted', ?, 'csv', ',', true, ?, ?, now())",
                [number, table, table, table, len(frame), table, PANEL.digest, manifest.READER_VERSION],
            )
            con.register("frame", frame)
            columns = ", ".join(f"CAST({name} AS VARCHAR)" for name in PANEL.tables[table].values())
            con.execute(RAW.format(table=table, number=number, columns=columns))
            con.unregister("frame")
    series = frames["turnover"].groupby(["but_num_business_unit", "dpt_num_department"]).ngroups
    return {"rows": len(frames["turnover"]), "series": series}


def steps(home: Path) -> dict[str, float]:
    """Seconds, processor seconds and peak megabytes so far of each step, by `<step> <what>`."""
    found: dict[str, float] = {}
    settings, warehouse = load_settings(home=home), warehouse_of(home)
    limits = RowLimits(settings.training_share, settings.max_training_rows, settings.alive_periods)
    repairs = Repairs(Ledger(), settings.adjustment_strength, settings.alive_periods)
    with measured(found, "clean"), warehouse.transaction() as con:
        cleaning.clean_all(con, PANEL)
    with measured(found, "detect"), warehouse.transaction() as con:
        repairs.write(con, PANEL)
    with measured(found, "training rows"), warehouse.transaction() as con:
        fill_training(con, PANEL, limits)
    with measured(found, "scoring rows"), warehouse.transaction() as con:
        fill_scoring(con, PANEL, limits)
    with measured(found, "read"), warehouse.transaction() as con:
        training, scoring = read_rows(con, PANEL, "training"), read_rows(con, PANEL, "scoring")
        assert row_count(con, "features.scoring") == len(scoring)
    with measured(found, "fit"):
        fitted = Blend().fit(training, seed=settings.seed, threads=settings.threads)
    with measured(found, "forecast"):
        fitted.predict(scoring)
    return found | {"training": len(training), "scoring": len(scoring)}


@contextmanager
def measured(found: dict[str, float], step: str) -> Iterator[None]:
    """Add what a block costs to `found`."""
    began = (time.perf_counter(), time.process_time())
    yield
    found[f"{step} seconds"] = time.perf_counter() - began[0]
    found[f"{step} processor"] = time.process_time() - began[1]
    divisor = 1024**2 if sys.platform == "darwin" else 1024
    found[f"{step} megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / divisor


def report(found: dict[int, dict[str, float]]) -> int:
    """Print a line a step, and how time grew; 1 where the aim is missed."""
    small, large = min(found), max(found)
    lines = {}
    for step in STEPS:
        seconds = {size: found[size][f"{step} seconds"] for size in found}
        lines[step] = {f"{size}x": f"{value:,.1f} s" for size, value in seconds.items()}
        lines[step]["growth over linear"] = f"{grown(found, f'{step} seconds'):.2f}"
        lines[step]["in processor seconds"] = f"{grown(found, f'{step} processor'):.2f}"
        peaks = (f"{found[size][f'{step} megabytes']:,.0f}" for size in found)
        lines[step]["peak memory so far, MB"] = ", ".join(peaks)
    total = {size: sum(found[size][f"{step} seconds"] for step in STEPS) for size in found}
    growth = total[large] / total[small] / ratio(found)
    lines["all"] = {f"{size}x": f"{value:,.1f} s" for size, value in total.items()}
    lines["all"]["growth over linear"] = f"{growth:.2f}"
    unbounded = {
        size: value - sum(found[size][f"{s} seconds"] for s in BOUNDED) for size, value in total.items()
    }
    print(markdown(pd.DataFrame(lines).T.fillna("")))
    rest = unbounded[large] / unbounded[small] / ratio(found)
    print(f"Without {' and '.join(BOUNDED)}: {rest:.2f} over linear")
    print()
    for size, facts in found.items():
        print(
            f"{size}x: {facts['rows']:,} rows of {facts['series']:,} series, "
            f"{facts['training']:,} training rows, {facts['scoring']:,} scoring rows"
        )
    peak = max(found[large][f"{step} megabytes"] for step in STEPS)
    met = growth <= AIM_GROWTH and peak < AIM_MEGABYTES
    print(
        f"Aim, time at most {AIM_GROWTH} times linear and less than {AIM_MEGABYTES:,} MB: "
        f"{'met' if met else 'MISSED'} ({growth:.2f}, {peak:,.0f} MB)"
    )
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the end")
    return 0 if met else 1


def ratio(found: dict[int, dict[str, float]]) -> float:
    """How many times as many rows of history the largest has."""
    return found[max(found)]["rows"] / found[min(found)]["rows"]


def grown(found: dict[int, dict[str, float]], name: str) -> float:
    """How much a cost grew from the smallest to the largest, over how much the history did."""
    return found[max(found)][name] / found[min(found)][name] / ratio(found)


if __name__ == "__main__":
    sys.exit(main())
