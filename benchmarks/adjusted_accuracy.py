"""Accuracy with and without adjustments, on the same windows.

What belongs here: past cutoffs of the case study, of Walmart's data and of the synthetic retailer with
planted defects; at each, the same candidates on reported and on adjusted values, scored against what was
reported afterwards. What does not: how well defects are found.

Nothing after a cutoff is there when adjustments are decided on and models are fitted: the series table is
cut off, and the outcomes are joined to the forecasts afterwards. Outcomes are scored twice: all of them, and
without those that the detectors of today adjust ("right rows"), since a wrong outcome says little of a
forecast. Where nothing is applied at a cutoff, both forecasts are the same and fitted once.

The real data stand in TURNOVER_TEST_DATA (default ../shared/data beside the repository) and are not part of
the project; without them the script says so, takes the synthetic retailer only, and ends with exit code 2.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core import features, relations
from turnover_assets.core.adjustments import Adjustment, adjust, in_force
from turnover_assets.core.calendar import label_of
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.ledger import Ledger
from turnover_assets.core.metrics import bias, wape
from turnover_assets.core.models import Rows
from turnover_assets.core.models.boosting import XGBoost
from turnover_assets.core.models.naive import SeasonalNaive, SeasonalNaiveGrowth
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.rows import read_rows
from turnover_assets.core.samples import sample_files
from turnover_assets.core.synthetic import make_retailer
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import clean_all, land_path, walmart_like

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TURNOVER_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
CANDIDATES = (SeasonalNaive, SeasonalNaiveGrowth, XGBoost)
CASES = ("case-study", "walmart", "synthetic")
SYNTHETIC_WEEKS = 160  # planted in its middle, so that the windows begin with the doubled weeks
EVERYTHING = "everything"  # the whole cleaned series table; cleaned.<name> is cut off at each cutoff


@dataclass(frozen=True)
class Plan:
    """Which windows to take, and the settings to work with."""

    windows: int
    apart: int
    settings: Settings

    @property
    def repairs(self) -> Repairs:
        """Detectors only; no steward has decided on anything."""
        return Repairs(Ledger(), self.settings.adjustment_strength, self.settings.alive_periods)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--windows", type=int, default=12, help="cutoffs of each case, at most")
    parser.add_argument("--apart", type=int, default=8, help="periods from one cutoff to the next")
    parser.add_argument("--share", type=float, default=0.05, help="share of past cutoffs to train on")
    chosen = parser.parse_args()
    status, began = 0, time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="turnover-accuracy-") as temporary:
        for case in chosen.cases:
            home = Path(temporary) / case
            settings = load_settings(home=home, training_share=chosen.share)
            if not (files := files_of(case, home)):
                print(f"No files of {case} in {DATA}; set TURNOVER_TEST_DATA.", file=sys.stderr)
                status = 2
                continue
            panel = walmart_like() if case == "walmart" else default_panel()
            report(case, panel, files, Plan(chosen.windows, chosen.apart, settings))
    print(f"{time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f} at the end")
    return status


def files_of(case: str, home: Path) -> list[Path]:
    """The files to land, in their order; none where the data are missing."""
    if case == "case-study":
        folder = DATA / "decathlon"
        return [*sorted((folder / "history").glob("*")), *sorted((folder / "weekly").glob("*"))]
    if case == "walmart":
        return sorted((DATA / "walmart").glob("*"))
    (home / "files").mkdir(parents=True)
    sample = sample_files(make_retailer(weeks=SYNTHETIC_WEEKS), defects=True)
    paths = [home / "files" / file.name for file in sample.files]
    for path, file in zip(paths, sample.files, strict=True):
        path.write_bytes(file.content)
    return paths


def report(case: str, panel: PanelSpec, files: Sequence[Path], plan: Plan) -> None:
    """Land a case's files, score every window, print."""
    settings = plan.settings
    settings.home.mkdir(parents=True, exist_ok=True)
    warehouse = Warehouse(settings.warehouse_path, settings.threads, settings.memory_limit)
    for file in files:
        land_path(warehouse, panel, file)
    with warehouse.transaction() as con:
        clean_all(con, panel)
        today = keep_everything(con, panel, plan)
        print(f"## {case}\n\n{heard(panel, today, 'Applied as of today')}\n")
        table = pd.concat(score_windows(con, panel, plan), ignore_index=True)
    print(f"\n{figures(table, ['window', 'model'])}\n\nAll windows:\n\n{figures(table, ['model'])}\n")


def keep_everything(con: duckdb.DuckDBPyConnection, panel: PanelSpec, plan: Plan) -> list[Adjustment]:
    """Set the cleaned series table aside, with `is_suspect` where the detectors of today adjust a row."""
    last = last_period(con, panel)
    today = plan.repairs.as_of(con, panel, last)
    adjust(con, panel, today)
    con.execute(
        f"CREATE TEMP TABLE {EVERYTHING} AS SELECT c.*, a.adjustment_id IS NOT NULL AS is_suspect "
        f"FROM cleaned.{panel.series.name} AS c JOIN adjusted AS a USING ({', '.join(panel.keys)}, t)"
    )
    return today


def score_windows(con: duckdb.DuckDBPyConnection, panel: PanelSpec, plan: Plan) -> Iterator[pd.DataFrame]:
    """For each cutoff, every forecast with and without adjustments beside what was reported."""
    first, last = con.execute(f"SELECT min(t), max(t) FROM {EVERYTHING}").fetchall()[0]
    newest, earliest = last - panel.horizon, first + panel.frequency.season
    cutoffs = [newest - plan.apart * number for number in reversed(range(plan.windows))]
    for cutoff in (t for t in cutoffs if t >= earliest):
        con.execute(
            f"CREATE OR REPLACE TABLE cleaned.{panel.series.name} AS "
            f"SELECT * EXCLUDE (is_suspect) FROM {EVERYTHING} WHERE t <= {cutoff}"
        )
        decided = plan.repairs.as_of(con, panel, cutoff)
        label = label_of(panel, cutoff).isoformat()
        print(heard(panel, decided, label), flush=True)
        without = forecasts(con, panel, cutoff, (), plan.settings)
        applied = any(a.status == "applied" for a in decided)
        adjusted = forecasts(con, panel, cutoff, decided, plan.settings) if applied else without
        both = without.assign(adjusted=adjusted["forecast"])
        yield both.assign(window=label)


def forecasts(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    cutoff: int,
    decided: Iterable[Adjustment],
    settings: Settings,
) -> pd.DataFrame:
    """Forecasts of every candidate as they would be published, with what was reported afterwards.

    Returns:
        A row for each candidate and scoring row: `model`, `forecast`, `reported` (units of the target),
        `is_suspect`.
    """
    decided = list(decided)
    adjust(con, panel, decided, cutoff)
    scale = in_force(con, panel, decided, cutoff)
    relations.prepare(con, panel, cutoff, adjusted="adjusted", in_force=scale)
    relations.choose_training_pairs(
        con, panel, settings.training_share, settings.max_training_rows, settings.alive_periods
    )
    training = rows_of(con, panel, "training", "WHERE actual IS NOT NULL")
    relations.choose_scoring_pairs(con, panel, cutoff, settings.alive_periods)
    scoring = rows_of(con, panel, "scoring", "")
    outcomes = con.execute(
        f"SELECT e.{panel.target} AS reported, coalesce(e.is_suspect, false) AS is_suspect "
        f"FROM features.scoring AS r JOIN series AS s USING (series_id) LEFT JOIN {EVERYTHING} AS e "
        f"ON e.t = r.t AND {' AND '.join(f'e.{key} = s.{key}' for key in panel.keys)} "
        "ORDER BY r.series_id, r.cutoff, r.horizon"
    ).df()
    found = []
    for candidate in CANDIDATES:
        fitted = candidate().fit(training, seed=settings.seed, threads=settings.threads)
        predicted = fitted.predict(scoring)
        if panel.series.target.nonnegative:
            predicted = predicted.clip(min=0.0)
        found.append(outcomes.assign(model=candidate.name, forecast=predicted * scoring.in_force))
    return pd.concat(found, ignore_index=True)


def rows_of(con: duckdb.DuckDBPyConnection, panel: PanelSpec, name: str, where: str) -> Rows:
    con.execute(
        f"CREATE OR REPLACE TABLE features.{name} AS SELECT * FROM ({features.rows_sql(panel)}) {where}"
    )
    return read_rows(con, panel, name)


def heard(panel: PanelSpec, decided: Iterable[Adjustment], when: str) -> str:
    """What was applied, in a line."""
    said = [
        f"{', '.join(f'{k} {v}' for k, v in a.where.items())} {a.kind} from {label_of(panel, a.since)} "
        + ("on" if a.until is None else f"to {label_of(panel, a.until)}")
        + (f" / {a.factor:.2f}" if a.factor else "")
        for a in decided
        if a.status == "applied"
    ]
    return f"{when}: {'; '.join(said) or 'nothing'}"


def figures(table: pd.DataFrame, by: Sequence[str]) -> str:
    """WAPE and bias in percent, without and with adjustments, as a Markdown table."""
    lines = [
        [
            *by,
            "WAPE without",
            "with",
            "ratio",
            "bias without",
            "with",
            "right rows",
            "without",
            "with",
            "ratio",
        ]
    ]
    lines.append(["---"] * len(lines[0]))
    for names, group in table.dropna(subset="reported").groupby(list(by), sort=False):
        right = group[~group["is_suspect"]]
        share = len(right) / len(group)
        lines.append([*map(str, names), *scores(group, True), f"{share:.0%}", *scores(right, False)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scores(group: pd.DataFrame, with_bias: bool) -> list[str]:
    actual = group["reported"].to_numpy(np.float64)
    pairs = [group[name].to_numpy(np.float64) for name in ("forecast", "adjusted")]
    without, adjusted = (wape(actual, forecast) for forecast in pairs)
    found = [f"{without:.1%}", f"{adjusted:.1%}", f"{adjusted / without:.2f}"]
    return [*found, *(f"{bias(actual, forecast):+.1%}" for forecast in pairs)] if with_bias else found


if __name__ == "__main__":
    sys.exit(main())
