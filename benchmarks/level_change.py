"""How soon forecasts follow a change of level: WAPE and bias by week since then, beside the peers.

What belongs here: a synthetic retailer all of whose series, or those of one department, sell more by a factor
from one week on, and the end of the case study's block of doubled values. Ours is a blend that was trained
before the change and stays in use, with what it has missed carried on and without; beside it one that is
trained anew at each cutoff, as the peers are. What does not: quiet times (accuracy.py), and how the platform
notices (year.py).
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from ours import plan_of
from peer_windows import DATA, markdown, open_case, peer_forecasts, run_peers, windows

from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.closures import limited
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.level_changes import since_training
from turnover_assets.core.metrics import bias, wape
from turnover_assets.core.models import Blend, Rows
from turnover_assets.core.synthetic import make_retailer
from turnover_assets.core.windows import Window, make_windows_apart
from turnover_assets.panel import default_panel
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.warehouse import Warehouse

PANEL = default_panel()
STORES, DEPARTMENTS, WEEKS = 60, 4, 210
CHANGED = 36  # weeks before the end of the history
FACTOR = 1.5
AFTER = (1, 2, 3, 5, 8, 12, 20)  # weeks of the new level that are known
TRAINED_BEFORE = 4  # weeks before the change, that the model in use was trained
PEERS = ("seasonal_naive_growth", "mstl", "mlforecast_plain", "mlforecast")
BLOCK_END, BLOCK_AFTER = "2016-12-31", (2, 3, 4, 5, 6)  # last week of the case study's block; weeks after it
IN_USE, PLAIN, ANEW = "ours, in use", "the same, nothing carried on", "ours, trained anew"


@dataclass(frozen=True)
class Case:
    """A change of level.

    Attributes:
        title: What is printed over it.
        files: The history.
        change: Index of the first week at the new level.
        after: Weeks of the new level that are known at each cutoff.
        department: The department that is scored; None for all.
    """

    title: str
    files: Sequence[Path]
    change: int
    after: Sequence[int]
    department: int | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument("--peers-python", type=Path, help="a Python with the peers' libraries, see README")
    parser.add_argument("--cache", type=Path, default=Path("var/peers"), help="keeps the peers' forecasts")
    chosen = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="turnover-level-") as temporary:
        for number, case in enumerate(cases(Path(temporary))):
            home = Path(temporary) / f"home-{number}"
            peers = chosen.peers if chosen.peers_python else []
            print(f"\n## {case.title}\n\nWAPE, and bias of the sum, in percent, by weeks since then\n")
            table = judged(case, load_settings(home=home), peers, chosen.peers_python, chosen.cache)
            print(markdown(table), flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f} at the end")
    return 0


def cases(folder: Path) -> list[Case]:
    """The synthetic ones, and the case study's where its data are there."""
    retailer = make_retailer(STORES, DEPARTMENTS, WEEKS)
    weeks = sorted(retailer.turnover["day_id"].unique())
    change = index_of(PANEL, pd.Timestamp(weeks[-CHANGED]).date())
    third = sorted(retailer.turnover["dpt_num_department"].unique())[2]
    found = []
    for department in (None, third):
        own = folder / f"department-{department}"
        own.mkdir()
        turnover = retailer.turnover.copy()
        of_it = turnover["dpt_num_department"] == department if department else True
        later = (turnover["day_id"] >= weeks[-CHANGED]) & of_it
        turnover.loc[later, "turnover"] = (turnover.loc[later, "turnover"] * FACTOR).round(2)
        turnover.to_csv(own / "turnover.csv", index=False)
        retailer.stores.to_csv(own / "stores.csv", index=False)
        what = "all series sell" if department is None else "one department sells"
        files = [own / "stores.csv", own / "turnover.csv"]
        found.append(Case(f"Synthetic: {what} half as much again", files, change, AFTER, department))
    files = [*sorted((DATA / "decathlon/history").glob("*")), *sorted((DATA / "decathlon/weekly").glob("*"))]
    if files:
        end = index_of(PANEL, pd.Timestamp(BLOCK_END).date())
        title = "Case study: two departments are no longer reported at double"
        found.append(Case(title, files, end + 1, BLOCK_AFTER))
    else:
        print(f"No files of the case study in {DATA}; set TURNOVER_TEST_DATA.", file=sys.stderr)
    return found


def judged(
    case: Case, settings: Settings, peers: Sequence[str], python: Path | None, cache: Path
) -> pd.DataFrame:
    """WAPE and bias by forecaster, and by weeks since the change."""
    warehouse = open_case(PANEL, case.files, settings)
    found = ours(case, warehouse, settings)
    if python and peers:
        dates = [pd.Timestamp(label_of(PANEL, case.change - 1 + k)) for k in case.after]
        with warehouse.transaction() as con:
            known = list(windows(con, PANEL, settings, dates, cache / "level-change"))
        run_peers(python, known, peers, "adjusted")
        for k, window in zip(case.after, known, strict=True):
            for peer in peers:
                forecast, _ = peer_forecasts(window, peer, "adjusted")
                table = window.outcomes.assign(forecast=forecast.clip(lower=0.0))
                found[peer, k] = said(table, case)
    return pd.Series(found).unstack(sort=False)


def ours(case: Case, warehouse: Warehouse, settings: Settings) -> dict[tuple[str, int], str]:
    """What ours are, by name and weeks since the change."""
    plan, trained = plan_of(settings), case.change - 1 - TRAINED_BEFORE
    cutoffs = [trained, *(case.change - 1 + k for k in case.after)]
    with warehouse.transaction() as con:
        assert last_period(con, PANEL) >= cutoffs[-1] + PANEL.horizon
    made = make_windows_apart(
        warehouse.transaction, PANEL, cutoffs, plan.limits, plan.repairs, used_since=trained
    )
    old = Blend().fit(next(made).training, seed=plan.seed, threads=plan.threads)
    found: dict[tuple[str, int], str] = {}
    for k, window in zip(case.after, made, strict=False):
        assert window.recent is not None
        assert window.usual is not None
        changes = since_training(PANEL, old, trained, window.recent, window.series, window.usual)
        plain = old.predict(window.scoring)
        anew = Blend().fit(window.training, seed=plan.seed, threads=plan.threads).predict(window.scoring)
        forecasts = {IN_USE: plain * changes.of_rows(window.scoring, window.series), PLAIN: plain, ANEW: anew}
        for name, forecast in forecasts.items():
            shown = limited(PANEL, window.scoring, forecast) * window.scoring.in_force
            found[name, k] = said(outcomes(window, window.scoring).assign(forecast=shown), case)
    return found


def outcomes(window: Window, rows: Rows) -> pd.DataFrame:
    """What was reported, with the keys of each row's series."""
    reported: Mapping[str, pd.Series] = {"actual": rows.identity["reported"]}
    members = window.series.set_index("series_id").loc[rows.identity["series_id"]].reset_index(drop=True)
    return members[list(PANEL.keys)].assign(**reported)


def said(table: pd.DataFrame, case: Case) -> str:
    """WAPE and bias of the rows of a case, as one cell."""
    own = table[table["actual"].notna()]
    if case.department is not None:
        own = own[own["department"] == case.department]
    actual, forecast = own["actual"].to_numpy(float), own["forecast"].to_numpy(float)
    return f"{100 * wape(actual, forecast):.1f} ({100 * bias(actual, forecast):+.0f})"


if __name__ == "__main__":
    sys.exit(main())
