"""A year in fast motion: what the platform notices by itself, when, and what it does.

What belongs here: 52 weekly files of a synthetic retailer with planted events, under the real daemon, and the
account. What does not: how it is done (turnover_assets_tests/year.py, whose short version runs with the
slow tests).

Ends with exit code 1 where something planted went unnoticed, a row was lost or doubled, or more than one run
was made for one cause.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from peer_windows import markdown

from turnover_assets.storage.decision_log import DecisionLog
from turnover_assets_tests.year import WEEKS, YEAR, Year, fast_motion

MEASURES = ["wape", "wape_seasonal_naive", "bias", "coverage_80", "coverage_95"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="the weeks of the test in place of a year")
    parser.add_argument("--home", type=Path, help="keep everything in this folder, which must be empty")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = chosen.home or Path(folder)
        plan = WEEKS if chosen.short else YEAR
        began = time.monotonic()
        with fast_motion(root, plan, tell, sensor_interval_seconds=1) as year:
            ended_early = ""
            try:
                year.run()
            except (KeyboardInterrupt, TimeoutError) as error:  # the account of the weeks so far
                ended_early = str(error) or "interrupted"
            code = account(year, time.monotonic() - began)
            if ended_early:
                print(f"\nEnded early: {ended_early}")
            return code or bool(ended_early)


def tell(news: str) -> None:
    print(news, file=sys.stderr, flush=True)


def account(year: Year, seconds: float) -> int:
    """What was noticed, and what was lost, doubled or repeated; the exit code."""
    rows = [
        {"planted": s.event, "week": s.week, "noticed": s.noticed, "after": s.after, "done": s.done}
        for s in sorted(year.seen.values(), key=lambda seen: seen.week)
    ]
    print(markdown(pd.DataFrame(rows).set_index("planted")))
    runs = year.runs_by_cause()
    ended = [end for ends in runs.values() for end in ends]
    decisions = DecisionLog(year.platform.settings.decisions_path).read()
    lost, doubled, repeated = year.lost(), year.doubled(), year.repeated_runs()
    unnoticed = [seen.event for seen in year.seen.values() if not seen.noticed]
    print(
        f"\n{len(year.seconds)} of {year.plan.weeks} weeks in {seconds:.0f} s, "
        f"{statistics.median(year.seconds):.0f} s a week (median); "
        f"{len(ended)} automatic runs for {len(runs)} causes, {ended.count('FAILURE')} failed; "
        f"{int(decisions['looks'].sum()):,} decisions in {len(decisions)} rows.\n"
        f"Lost rows {lost}, doubled {doubled}, causes with more than one run {len(repeated)}, "
        f"unnoticed {len(unnoticed)}."
    )
    for problem in (*repeated, *unnoticed):
        print(f"- {problem}")
    print(f"\nThe models, and what the gate said:\n\n{models(year)}")
    print(f"\nThe total by cutoff, in %:\n\n{markdown(100 * year.totals()[MEASURES])}")
    return 1 if lost or doubled or repeated or unnoticed else 0


def models(year: Year) -> str:
    """Every version: what it is, as of when, and why it did or did not become champion."""
    rows = [
        {
            "version": facts.version,
            "candidate": facts.candidate,
            "as of": facts.cutoff,
            "gate": facts.decision,
            "reason": facts.reason,
        }
        for facts in year.versions()
    ]
    return markdown(pd.DataFrame(rows).set_index("version"))


if __name__ == "__main__":
    sys.exit(main())
