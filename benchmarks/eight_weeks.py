"""How published forecasts turned out on the case study, week by week as its weekly files land.

What belongs here: landing the weekly files one by one, each with a `turnover run` of its own, and printing
what the platform then says of its earlier forecasts. What does not: accuracy beside peers (accuracy.py).

The data stand in TURNOVER_TEST_DATA (default ../shared/data beside the repository) and are not part of the
project; without them the script says so and ends with exit code 2.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from case_study_run import DATA, measured, with_history

from turnover_assets.storage.snapshots import current

SHOWN = ["periods", "wape", "wape_seasonal_naive", "wape_promised", "bias", "coverage_80", "coverage_95"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="a home where the history was published; it is copied")
    parser.add_argument("--basis", choices=["series", "sums"], default="series", help="errors of what")
    chosen = parser.parse_args()
    weekly = sorted((DATA / "weekly").glob("*.csv"))
    if not weekly:
        print(f"The case study's data are not in {DATA}. Set TURNOVER_TEST_DATA.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="eight-weeks-") as temporary:
        home, log = Path(temporary) / "var", Path(temporary) / "log"
        environment = with_history(home, chosen.home, log)
        for file in weekly:
            shutil.copy(file, home / "landing")
            seconds, _ = measured(["run"], environment, log)
            print(f"\n{file.name}: {seconds:.0f} s\n{judged(home, chosen.basis)}", flush=True)
    return 0


def judged(home: Path, basis: str) -> str:
    """What is known of each published cutoff by now: all its horizons that have their actuals, in total."""
    table = current(home / "published").read("monitored_accuracy")
    table = table[(table["level"] == "total") & (table["basis"] == basis) & table["horizon"].isna()]
    if table.empty:
        return "No published forecast has its actuals yet."
    return str(table[["cutoff", *SHOWN]].sort_values("cutoff").round(3).to_string(index=False))


if __name__ == "__main__":
    sys.exit(main())
