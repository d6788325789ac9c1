"""What `kill -9` does to a home: at every named step of landing and publishing, and at random moments.

What belongs here: hundreds of kills of real processes, each followed by a look and a healing run, and their
figures. What does not: how to kill and what to look at (turnover_assets_tests/kills.py, whose short version
runs with the tests).

Most kills hit a process that lands files, cleans, publishes and prunes through the storage functions; some
hit `bring_up_to_date` whole, with Dagster, model and registry. Ends with exit code 1 where anything was
lost, doubled, torn or not healed.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from turnover_assets.runner import bring_up_to_date
from turnover_assets.storage import manifest
from turnover_assets.storage.landing_folder import content_digest
from turnover_assets.storage.snapshots import find_current
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests import kills
from turnover_assets_tests.factories import (
    BASELINES_ONLY,
    Landed,
    land_retailer,
    next_week,
    quiet,
    settings_for,
)
from turnover_assets_tests.kills import Bench, Figures
from turnover_assets_tests.waiting import PATIENCE

AT_ONCE = 2
RUN_EVENTS = 30  # more than a run tells of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=10, help="kills at each named step")
    parser.add_argument("--random", type=int, default=45, help="kills at random moments")
    parser.add_argument("--runs", type=int, default=12, help="kills of whole runs")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    began, figures, dice = time.monotonic(), Figures(), random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as root:
        kill_storage(Path(root), figures, dice, chosen.each, chosen.random)
        kill_runs(Path(root), figures, dice, chosen.runs)
    for moment, count in figures.moments.items():
        print(f"{count:4} {moment}")
    print(
        f"{figures.kills} kills, {figures.lost} lost, {figures.doubled} doubled, {figures.torn} torn, "
        f"{figures.unhealed} not healed; {time.monotonic() - began:.0f} s"
    )
    for told in figures.told:
        print(told)
    return 1 if figures.harm else 0


def kill_storage(root: Path, figures: Figures, dice: random.Random, each: int, at_random: int) -> None:
    bench = Bench.made(root / "bench")
    steps = [step for step in kills.STEPS for _ in range(each)] + [None] * at_random

    def one(number: int, step: str | None, seed: int) -> Figures:
        found, own = Figures(), random.Random(seed)
        while not found.kills:
            kills.play(bench, root / str(number), found, own, step)
        shutil.rmtree(root / str(number))
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        seeds = [dice.randrange(1 << 32) for _ in steps]
        for found in pool.map(one, range(len(steps)), steps, seeds):
            figures.add(found)
    print(f"{figures.kills} kills through storage", file=sys.stderr)


def kill_runs(root: Path, figures: Figures, dice: random.Random, rounds: int) -> None:
    if not rounds:
        return
    (root / "retailer").mkdir()
    landed = land_retailer(root / "retailer", BASELINES_ONLY)
    before = len([record for record in landed.outcome.landed if record.status == "accepted"])
    (landed.folder / "new.csv").write_text(next_week(landed))
    until = figures.kills + rounds
    while figures.kills < until:
        kill_run(root / "run", landed, before, figures, dice.randrange(RUN_EVENTS))
        print(f"{figures.kills} kills: whole runs", file=sys.stderr)


def kill_run(root: Path, landed: Landed, before: int, figures: Figures, event: int) -> None:
    """Kill one run as it tells its news number `event`, look, heal, and look again."""
    home, told = root / "var", root / "told"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(landed.settings.home, home)
    told.touch()
    if run_apart(home, landed.folder, told, event) != -signal.SIGKILL:
        return
    figures.kills += 1
    figures.moments["in a whole run"] += 1
    kills.look(home, told.read_text().split(), figures, f"run, news {event}")
    code = run_apart(home, landed.folder, told, None)
    kills.look(home, told.read_text().split(), figures, f"run, news {event}, healed")
    with Warehouse(home / "warehouse.duckdb").transaction() as con:
        records = manifest.records(con, landed.settings.panel_spec)
    accepted = [record for record in records if record.status == "accepted"]
    snapshot, old = find_current(home / "published"), landed.outcome.snapshot
    published = snapshot is not None and old is not None and snapshot.facts["cutoff"] > old.facts["cutoff"]
    if code or len(accepted) != before + 1 or not published:
        figures.unhealed += 1
        figures.told.append(f"run, news {event}: exit {code}, {len(accepted)} files, published {published}")


def run_apart(home: Path, folder: Path, told: Path, event: int | None) -> int | None:
    """The exit code of a run in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=run, args=(home, folder, told, event))
    child.start()
    child.join(PATIENCE)
    return child.exitcode


def run(home: Path, folder: Path, told: Path, event: int | None) -> None:
    """Bring a home up to date; ends itself as it tells its news number `event`."""
    news: list[str] = []

    def tell(kind: str, text: str) -> None:
        if kind == "done" and "landed files" in text:
            told.write_text(content_digest(folder / "new.csv"))
        if len(news) == event:
            os.kill(os.getpid(), signal.SIGKILL)
        news.append(text)

    bring_up_to_date(settings_for(home), folder, quiet if event is None else tell)


if __name__ == "__main__":
    # So that processes begin at once, with everything imported; Dagster's jobs are made in each.
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        [kills.__name__, "turnover_assets.runner", "turnover_assets.definitions"]
    )
    sys.exit(main())
