"""What `turnover backfill` takes on the case study: one past cutoff, and several in one run.

What belongs here: seconds and peak memory of the two, each a process of its own. Memory that does not grow
with the number of cutoffs is what makes a backfill of years possible. What does not: accuracy.

The data stand in TURNOVER_TEST_DATA (default ../shared/data beside the repository) and are not part of the
project; without them the script says so and ends with exit code 2.
"""

import argparse
import sys
import tempfile
from datetime import date, timedelta
from pathlib import Path

from case_study_run import DATA, measured, with_history

NEWEST = date(2017, 4, 15)  # eight weeks before the end of the history, so that all outcomes are known


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="a home where the history was published; it is copied")
    parser.add_argument("--cutoffs", type=int, default=8, help="how many in the second run")
    chosen = parser.parse_args()
    if not (DATA / "history").is_dir():
        print(f"The case study's data are not in {DATA}. Set TURNOVER_TEST_DATA.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="backfill-") as temporary:
        home, log = Path(temporary) / "var", Path(temporary) / "log"
        environment = with_history(home, chosen.home, log)
        print("| cutoffs | seconds | seconds each | peak, MB |\n|---|---|---|---|")
        peaks = []
        for count in (1, chosen.cutoffs):
            first = NEWEST - timedelta(weeks=count - 1)
            seconds, megabytes = measured(
                ["backfill", "--since", str(first), "--until", str(NEWEST)], environment, log
            )
            peaks.append(megabytes)
            print(f"| {count} | {seconds:.0f} | {seconds / count:.1f} | {megabytes:,.0f} |", flush=True)
        print(f"\nPeak of {chosen.cutoffs} over that of one: {peaks[1] / peaks[0]:.2f}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
