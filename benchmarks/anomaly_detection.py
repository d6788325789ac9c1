"""How well defects of known place, factor and length are found: recall, precision, factor error, delay.

What belongs here: planting defects into a synthetic retailer and, where its folder is there, the case
study's history, and counting what the detectors make of them. What does not: the effect on forecasts.

Every panel is first repaired with what the detectors find in it and apply by themselves; what they still
apply then is named, and counted neither for nor against. A block is planted where its group has reported
for at least a year before and in nine of ten periods since; one block a run. A finding matches a planted one
where it names the same members, has the same direction, and shares more than half of its periods. Applied
means strength of at least 4, the default of the setting `adjustment_strength`, and a remedy. Runs for blocks
of departments and stores leave out the search in single series, whose blocks are never applied.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: one process a core is quicker

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core.anomalies import Finding
from turnover_assets.core.anomalies.detect import findings_in
from turnover_assets.core.anomalies.matrix import History, groupings, read_history
from turnover_assets.core.calendar import index_of
from turnover_assets.core.synthetic import make_retailer
from turnover_assets.panel import default_panel

PANEL = default_panel()
ALIVE = 4
APPLIED = 4.0  # default of the setting adjustment_strength
FACTORS = (0.5, 1.3, 1.5, 2.0, 10.0, 100.0)
LENGTHS = (4, 8, 16, 30, 60)
LATER = (4, 8, 12, 16, 26)  # periods after the onset of a block that goes on
YEAR = 52
POINTS: dict[str, Callable[[float], float]] = {
    "placeholder": lambda _: 1_000_000.0,
    "x 10": lambda value: 10.0 * value,
    "x 100": lambda value: 100.0 * value,
    "/ 10": lambda value: value / 10.0,
    "sign": lambda value: -value,
}
TOGETHER = 20  # series or values with a defect in one run
SHOWN = ("synthetic", "case study")


@dataclass(frozen=True)
class Planted:
    """One defect: members, first column, the column after the last, factor."""

    where: dict[str, object]
    start: int
    end: int
    factor: float

    def matches(self, finding: Finding, first: int) -> bool:
        """Whether a finding is this defect."""
        since, until = finding.since - first, finding.until - first + 1
        common = min(until, self.end) - max(since, self.start)
        whole = max(until, self.end) - min(since, self.start)
        return (
            dict(finding.where) == self.where
            and finding.factor is not None
            and (finding.factor > 1) == (self.factor > 1)
            and common > 0.5 * whole
        )


@dataclass(frozen=True)
class Trial:
    """One run of the detectors: a panel, and what is planted in it."""

    panel: str
    level: str
    factor: float
    length: int
    number: int
    later: int = 0  # where set, the block goes on and the cutoff is so many periods after its onset
    kind: str = ""  # of single values


@dataclass(frozen=True)
class Result:
    """What became of a trial: planted, found at all, applied, errors of logarithms, applied beside them."""

    trial: Trial
    planted: int
    found: int
    applied: int
    errors: Sequence[float] = ()
    beside: Sequence[str] = field(default_factory=list)


# Panels ------------------------------------------------------------------------------------------


def synthetic() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Turnover and stores of an invented retailer, in canonical columns."""
    retailer = make_retailer(stores=60, departments=4, weeks=200, seed=11)
    return retailer.turnover, retailer.stores


def case_study() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The case study's history."""
    folder = data_folder() / "decathlon" / "history"
    return pd.read_csv(folder / "train.csv.gz"), pd.read_csv(folder / "bu_feat.csv.gz")


def data_folder() -> Path:
    """Where the real data are."""
    root = Path(__file__).resolve().parents[1]
    return Path(os.environ.get("TURNOVER_TEST_DATA", root.parent / "shared" / "data"))


def history_of(turnover: pd.DataFrame, stores: pd.DataFrame) -> History:
    """The matrix that the detectors read."""
    turnover = turnover.set_axis(["week", "store", "department", "turnover"], axis=1)
    days = {day: index_of(PANEL, pd.Timestamp(day).date()) for day in turnover["week"].unique()}
    turnover = turnover.assign(t=turnover["week"].map(days))
    names = {"but_num_business_unit": "store", "but_region_idr_region": "region"}
    stores = stores.rename(columns=names)[list(names.values())]
    with duckdb.connect() as con:
        con.execute("CREATE SCHEMA cleaned")
        con.execute("CREATE TABLE cleaned.turnover AS SELECT * FROM turnover")
        con.execute("CREATE TABLE cleaned.stores AS SELECT * FROM stores")
        return read_history(con, PANEL, int(turnover["t"].max()))


@cache
def repaired(panel: str) -> tuple[History, list[Finding], list[Finding]]:
    """A panel with what the detectors apply by themselves; these findings, and those applied afterwards."""
    history = history_of(*{"synthetic": synthetic, "case study": case_study}[panel]())
    applied = applied_in(history)
    values = history.values.copy()
    for finding in applied:
        inside = cells(history, finding)
        changed = values[inside] / finding.factor if finding.remedy == "divide" else finding.value
        values[inside] = np.nan if finding.remedy == "empty" else changed
    history = replace(history, values=values)
    return history, applied, applied_in(history)


def applied_in(history: History) -> list[Finding]:
    """What would be applied by itself."""
    found = findings_in(PANEL, history, ALIVE, alone=False)
    return [f for f in found if f.strength >= APPLIED and f.remedy != "none"]


def cells(history: History, finding: Finding) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a finding, as an index."""
    rows = np.flatnonzero((history.members[list(finding.where)] == pd.Series(finding.where)).all(axis=1))
    return rows[:, None], np.arange(finding.since - history.first, finding.until - history.first + 1)


# Trials ------------------------------------------------------------------------------------------


def trials(panels: Iterable[str], times: int) -> Iterator[Trial]:
    """All of them, those that belong together next to each other."""
    for panel in panels:
        for level, factor, length in product(("department", "store"), FACTORS, LENGTHS):
            yield from (Trial(panel, level, factor, length, n) for n in range(times))
        for level, factor, later in product(("department", "store"), FACTORS, LATER):
            yield from (Trial(panel, level, factor, 0, n, later=later) for n in range(times))
        for factor, length in product(FACTORS, LENGTHS if times > 1 else (8, 30)):
            yield Trial(panel, "series", factor, length, 0)
        yield from (Trial(panel, "value", 0.0, 1, 0, kind=kind) for kind in POINTS)


def run(trial: Trial) -> Result:
    """Plant, detect, count."""
    history, _, left = repaired(trial.panel)
    seed = (trial.number, trial.length, int(100 * trial.factor), len(trial.level))
    rng = np.random.default_rng(seed if not trial.later else seed[:1])  # the same block at every cutoff
    if trial.level == "value":
        changed, planted = with_values(history, trial, rng)
    else:
        changed, planted = with_blocks(history, trial, rng)
    found = findings_in(PANEL, changed, ALIVE, alone=trial.level == "series")
    shapes = [f for f in found if f.kind == ("point" if trial.level == "value" else "block")]
    strong = [f for f in found if f.strength >= APPLIED and f.remedy != "none"]
    known = {(f.kind, str(dict(f.where))) for f in left}
    matched = [[f for f in shapes if p.matches(f, history.first)] for p in planted]
    right = {f.finding_id for some in matched for f in some}
    return Result(
        trial,
        len(planted),
        sum(bool(some) for some in matched),
        sum(any(f in strong for f in some) for some in matched),
        [abs(np.log(some[0].factor / p.factor)) for some, p in zip(matched, planted, strict=True) if some],
        [
            f.sentence
            for f in strong
            if f.finding_id not in right and (f.kind, str(dict(f.where))) not in known
        ],
    )


def with_blocks(history: History, trial: Trial, rng: np.random.Generator) -> tuple[History, list[Planted]]:
    """The history with one block of a group, or blocks of many single series."""
    level = next(g for g in groupings(PANEL, history) if g.level == trial.level)
    length = trial.later or trial.length
    wanted = TOGETHER if trial.level == "series" else 1
    planted: list[Planted] = []
    values = history.values.copy()
    order = rng.permutation(level.count)
    for group in [*order, *order, *order]:
        rows = level.group == group
        some = np.flatnonzero(np.nansum(values[rows] > 0, axis=0) > 0)
        room = max(LATER) if trial.later else length
        if len(some) == 0 or some[0] + YEAR > history.periods - room or len(planted) == wanted:
            continue
        start = int(rng.integers(some[0] + YEAR, history.periods - room + 1))
        span = np.arange(some[0], start + length)
        where = dict(level.names[group])
        if np.isin(span, some).mean() >= 0.9 and where not in [p.where for p in planted]:
            values[rows, start : start + length] *= trial.factor
            planted.append(Planted(where, start, start + length, trial.factor))
    last = planted[0].end if trial.later else history.periods
    return replace(history, values=values[:, :last]), planted


def with_values(history: History, trial: Trial, rng: np.random.Generator) -> tuple[History, list[Planted]]:
    """The history with single values, of series of at least middling size, out of proportion."""
    level = groupings(PANEL, history)[-1]
    planted: list[Planted] = []
    values = history.values.copy()
    middling = np.nanmedian(np.nanmean(values, axis=1))
    periods = rng.permutation(np.arange(YEAR, history.periods))
    for group, period in zip(rng.permutation(level.count), np.resize(periods, level.count), strict=True):
        row = int(np.flatnonzero(level.group == group)[0])
        before = values[row, period - YEAR : period]
        value = values[row, period]
        if len(planted) == TOGETHER or np.isnan(before).any() or np.nanmean(before) < middling:
            continue
        if value >= 0.5 * before.mean():
            values[row, period] = POINTS[trial.kind](value)
            factor = values[row, period] / value
            planted.append(Planted(dict(level.names[group]), int(period), int(period) + 1, factor))
    return replace(history, values=values), planted


# Tables ------------------------------------------------------------------------------------------


def show(panel: str, results: Sequence[Result]) -> None:
    """The tables of one panel."""
    _, applied, left = repaired(panel)
    print(f"\n## {panel}\n\nApplied in the panel as it is, and repaired: {len(applied)}")
    print("".join(f"- {f.sentence}\n" for f in applied), end="")
    print(f"\nStill applied afterwards, not counted: {len(left)}")
    print("".join(f"- {f.sentence}\n" for f in left))
    mine = [r for r in results if r.trial.panel == panel]
    for level in ("department", "store", "series"):
        some = [r for r in mine if r.trial.level == level and not r.trial.later]
        what = "found (never applied)" if level == "series" else "applied (found at all)"
        rows = [[ratio(r for r in some if key(r) == (f, n)) for n in LENGTHS] for f in FACTORS]
        table(f"{level}: blocks {what}", "factor", FACTORS, [f"{n} weeks" for n in LENGTHS], rows)
    for level in ("department", "store"):
        some = [r for r in mine if r.trial.level == level and r.trial.later]
        rows = [
            [ratio(r for r in some if (r.trial.factor, r.trial.later) == (f, n)) for n in LATER]
            for f in FACTORS
        ]
        table(f"{level}: applied while going on", "factor", FACTORS, [f"after {n}" for n in LATER], rows)
    rows = [
        [
            ratio(r for r in mine if r.trial.kind == kind),
            str(sum(len(r.beside) for r in mine if r.trial.kind == kind)),
        ]
        for kind in POINTS
    ]
    table("single values: applied (found at all)", "kind", list(POINTS), ["recall", "applied beside"], rows)
    summary(mine)


def key(result: Result) -> tuple[float, int]:
    """What a cell of a table is about."""
    return result.trial.factor, result.trial.length


def ratio(results: Iterable[Result]) -> str:
    """`applied/planted (found)`, of single series `found/planted`."""
    some = list(results)
    planted, found = sum(r.planted for r in some), sum(r.found for r in some)
    if not some:
        return ""
    if some[0].trial.level == "series":
        return f"{found}/{planted}"
    return f"{sum(r.applied for r in some)}/{planted} ({found})"


def table(
    title: str, corner: str, names: Sequence[object], heads: Sequence[str], rows: list[list[str]]
) -> None:
    """A Markdown table."""
    print(f"\n{title}\n\n| {corner} | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name, cells_ in zip(names, rows, strict=True):
        print(f"| {name} | {' | '.join(cells_)} |")


def summary(results: Sequence[Result]) -> None:
    """Recall and precision over what the aim speaks of, and over everything."""
    blocks = [r for r in results if r.trial.level in ("department", "store") and not r.trial.later]
    aim = [r for r in blocks if (r.trial.factor >= 1.5 or r.trial.factor <= 1 / 1.5) and r.trial.length >= 8]
    for name, some in (("factor at least 1.5 (or 0.5), at least 8 weeks", aim), ("all blocks", blocks)):
        applied, planted = sum(r.applied for r in some), sum(r.planted for r in some)
        beside = sum(len(r.beside) for r in some)
        errors = [e for r in some for e in r.errors]
        print(
            f"\n{name}: recall {applied / planted:.3f} ({applied}/{planted}), precision "
            f"{applied / max(1, applied + beside):.3f} ({beside} beside); factor off by "
            f"{np.expm1(np.median(errors)):.1%} (median), of ten nine by less than "
            f"{np.expm1(np.quantile(errors, 0.9)):.1%}"
        )
        for level in ("department", "store"):
            of = [r for r in some if r.trial.level == level]
            print(f"- {level}: {sum(r.applied for r in of) / sum(r.planted for r in of):.3f}, beside "
                  f"{sum(len(r.beside) for r in of)}")  # fmt: skip
    for text in sorted({t for r in results for t in r.beside})[:15]:
        print(f"- applied beside: {text}")


def main() -> int:
    """Run all trials and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one trial a cell; about 2 minutes")
    parser.add_argument("--times", type=int, default=2, help="trials a cell (default: 2)")
    parser.add_argument("--panel", choices=SHOWN, help="one panel only")
    arguments = parser.parse_args()
    panels = [p for p in SHOWN if p == (arguments.panel or p)]
    if not data_folder().is_dir():
        print(f"no real data in {data_folder()}: synthetic panel only", file=sys.stderr)
        panels = [p for p in panels if p != "case study"]
    began = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(run, trials(panels, 1 if arguments.quick else arguments.times), chunksize=4))
    for panel in panels:
        show(panel, results)
    print(f"\n{len(results)} runs in {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
