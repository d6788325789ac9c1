"""Where the time of `turnover run` goes on the case study's history.

What belongs here: timing three runs as a user makes them (cold, with nothing to do, after one more weekly
file), each a process of its own, and the share of every asset and check step in them as Dagster recorded
it. What does not: accuracy.

The data stand in TURNOVER_TEST_DATA (default ../shared/data beside the repository) and are not part of
the project; without them the script says so and ends with exit code 2.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TURNOVER_TEST_DATA", REPOSITORY.parent / "shared" / "data")) / "decathlon"
IDLE_TARGET_SECONDS = 15.0
STEP_EVENTS = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS}


@dataclass(frozen=True)
class Timing:
    """One `turnover run`: wall time and peak resident memory of its process, and its steps' seconds."""

    seconds: float
    megabytes: float
    steps: dict[str, float] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=1, help="repetitions, of which medians are shown")
    parser.add_argument("--threads", type=int, default=None, help="TURNOVER_THREADS of the runs")
    repeat, threads = (chosen := parser.parse_args()).repeat, chosen.threads
    weekly = sorted((DATA / "weekly").glob("*.csv"))
    if not (DATA / "history").is_dir() or not weekly:
        print(
            f"The case study's data are not in {DATA}. "
            "Set TURNOVER_TEST_DATA to the folder that holds decathlon/.",
            file=sys.stderr,
        )
        return 2
    rounds = []
    for number in range(1, repeat + 1):
        print(f"round {number} of {repeat}", file=sys.stderr)
        rounds.append(one_round(weekly[0], threads))
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the end, medians of {repeat}\n")
    for title, timings in zip(
        ("cold", "nothing to do", "one weekly file"), zip(*rounds, strict=True), strict=True
    ):
        print_table(title, median(timings))
    idle = median([timings[1] for timings in rounds]).seconds
    met = "met" if idle < IDLE_TARGET_SECONDS else "MISSED"
    print(f"Target of a run with nothing to do, under {IDLE_TARGET_SECONDS:.0f} s: {met} ({idle:.1f} s)")
    return 0


def one_round(weekly: Path, threads: int | None) -> tuple[Timing, Timing, Timing]:
    """The three runs, one after the other in a fresh home."""
    with tempfile.TemporaryDirectory(prefix="turnover-benchmark-") as temporary:
        home = Path(temporary)
        land_history(home)
        cold, idle = timed_run(home, threads), timed_run(home, threads)
        shutil.copy(weekly, home / "landing")
        return cold, idle, timed_run(home, threads)


def land_history(home: Path) -> None:
    """Put the files of the history into the landing folder of a new home."""
    (home / "landing").mkdir(parents=True)
    for file in sorted((DATA / "history").iterdir()):
        shutil.copy(file, home / "landing")


def with_history(home: Path, given: Path | None, log: Path) -> dict[str, str]:
    """Publish the history in a new home, or copy one where it was; the environment of its commands."""
    environment = {**os.environ, "TURNOVER_HOME": str(home)}
    if given:
        shutil.copytree(given, home)
    else:
        land_history(home)
        print(f"history: {measured(['run'], environment, log)[0]:.0f} s\n", flush=True)
    return environment


def timed_run(home: Path, threads: int | None) -> Timing:
    """Run the command once and measure it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TURNOVER_")}
    environment["TURNOVER_HOME"] = str(home)
    if threads:
        environment["TURNOVER_THREADS"] = str(threads)
    known = set(run_ids(home))
    seconds, megabytes = measured(["run"], environment, home / "benchmark.log")
    return Timing(seconds, megabytes, step_seconds(home, set(run_ids(home)) - known))


def measured(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> tuple[float, float]:
    """Wall time of a `turnover` command in seconds, and the peak of its process's resident memory in MB."""
    began = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "turnover_assets.cli", *arguments],
            env=environment,
            stdout=stream,
            stderr=stream,
        )
        # The child's own peak; getrusage(RUSAGE_CHILDREN) would give the largest of all children so far.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode:
        sys.exit(f"turnover {' '.join(arguments)} ended with {process.returncode}:\n{log.read_text()}")
    per_megabyte = 1024 * 1024 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return seconds, usage.ru_maxrss / per_megabyte


def run_ids(home: Path) -> list[str]:
    """Ids of the Dagster runs of a home; none before its first run."""
    if not (home / "dagster" / "dagster.yaml").is_file():
        return []
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        return [run.run_id for run in instance.get_runs()]


def step_seconds(home: Path, wanted: Iterable[str]) -> dict[str, float]:
    """Seconds from start to success of every step of some runs, from Dagster's event log."""
    found: dict[str, float] = {}
    wanted = list(wanted)
    if not wanted:
        return found
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        for run_id in wanted:
            for entry in instance.all_logs(run_id, of_type=STEP_EVENTS):
                sign = 1 if entry.dagster_event_type == dg.DagsterEventType.STEP_SUCCESS else -1
                step = entry.step_key or ""
                found[step] = found.get(step, 0.0) + sign * entry.timestamp
    return found


def median(timings: Sequence[Timing]) -> Timing:
    """The median of each figure."""
    steps = {name for timing in timings for name in timing.steps}
    return Timing(
        statistics.median(timing.seconds for timing in timings),
        statistics.median(timing.megabytes for timing in timings),
        {step: statistics.median(timing.steps.get(step, 0.0) for timing in timings) for step in steps},
    )


def print_table(title: str, timing: Timing) -> None:
    print(f"{title}: {timing.seconds:.1f} s, peak memory {timing.megabytes:,.0f} MB")
    rest = timing.seconds - sum(timing.steps.values())
    ordered = sorted(timing.steps.items(), key=lambda item: -item[1])
    for name, seconds in [*ordered, ("outside steps (start-up, looking, recording)", rest)]:
        print(f"  {name:<50}{seconds:>8.2f} s{seconds / timing.seconds:>8.1%}")
    print()


if __name__ == "__main__":
    sys.exit(main())
