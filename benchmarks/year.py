"""A year in fast motion: what the platform notices by itself, when, and what it does.

What belongs here: 52 weekly files of a synthetic retailer with planted events, under the real daemon, and the
account. What does not: how it is done (turnover_assets_tests/fast_motion, whose short version runs
with the slow tests).

Ends with exit code 1 where something planted went unnoticed, a row was lost or doubled, more than one run was
made for one cause, or a run failed that was not killed.
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
from turnover_assets_tests.fast_motion import account as accounts
from turnover_assets_tests.fast_motion import fast_motion
from turnover_assets_tests.fast_motion.year import WEEKS, YEAR, Year

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
    runs = accounts.runs_by_cause(year)
    ended = [end for ends in runs.values() for end in ends]
    decisions = DecisionLog(year.platform.settings.decisions_path).read()
    lost, doubled = accounts.lost(year), accounts.doubled(year)
    repeated, unplanned = accounts.repeated(year), accounts.unplanned(year)
    unnoticed = [seen.event for seen in year.seen.values() if not seen.noticed]
    print(
        f"\n{year.plan.weeks} weeks planned, {len(year.seconds)} deliveries in {seconds:.0f} s, "
        f"{statistics.median(year.seconds):.0f} s each (median); "
        f"{len(ended)} automatic runs for {len(runs)} causes, {ended.count('FAILURE')} failed; "
        f"{int(decisions['looks'].sum()):,} decisions in {len(decisions)} rows.\n"
        f"Lost rows {lost}, doubled {doubled}, causes with more than one run {len(repeated)}, "
        f"failed runs that were not killed {len(unplanned)}, unnoticed {len(unnoticed)}."
    )
    for problem in (*repeated, *unplanned, *unnoticed):
        print(f"- {problem}")
    print(f"\nThe models, and what the gate said:\n\n{models(year)}")
    print(f"\nThe total by cutoff, in %:\n\n{markdown(100 * accounts.totals(year)[MEASURES])}")
    return 1 if lost or doubled or repeated or unplanned or unnoticed else 0


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
        for facts in accounts.versions(year)
    ]
    return markdown(pd.DataFrame(rows).set_index("version"))


if __name__ == "__main__":
    sys.exit(main())
