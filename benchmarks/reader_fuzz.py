"""What the reader makes of many damaged files: accepted, refused by reason, crashed, hung.

What belongs here: running turnover_assets_tests.mutations against the reader at scale, each batch of
files in a process of its own with limits on memory and time, so that a crash in native code is seen and
counted. What does not: the damages themselves, and what is asserted of each file (test_reader_fuzz.py).
"""

import argparse
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from turnover_assets_tests.mutations import mutant
from turnover_assets_tests.test_reader_fuzz import judge, read_or_refuse

BATCH = 1_000
MEMORY_ALLOWED = 1 << 30
SECONDS_ALLOWED = 20
# What differs between two refusals for the same reason: names, numbers, bytes, and the library's own words.
DETAILS = re.compile(r"s? ('[^']*'(, )?)+|\(.*\)|\(.*|0x[0-9a-f]{2}|\d+")


@dataclass(frozen=True)
class Judged:
    """One file: its number, what became of it, and how long it took."""

    number: int
    outcome: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000, help="how many damaged files")
    parser.add_argument("--first", type=int, default=0, help="number of the first; each number is one file")
    chosen = parser.parse_args()
    began, judged, peak = time.perf_counter(), [], 0.0
    number, last = chosen.first, chosen.first + chosen.files
    while number < last:
        found, megabytes = run_batch(range(number, min(number + BATCH, last)))
        judged += found
        peak = max(peak, megabytes)
        number = found[-1].number + 1
    failed = report(judged, time.perf_counter() - began, peak)
    return 1 if failed else 0


def run_batch(numbers: Sequence[int]) -> tuple[list[Judged], float]:
    """Judge files in a process of its own, up to the one that ends it; also its peak memory in megabytes."""
    receiver, sender = get_context("fork").Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        receiver.close()
        judge_all(numbers, sender)
        os._exit(0)
    sender.close()
    judged = []
    while True:
        try:
            judged.append(receiver.recv())
        except EOFError:
            break
    _, status, usage = os.wait4(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        how = "HUNG" if code == -signal.SIGALRM else f"CRASHED ({code})"
        judged.append(Judged(numbers[len(judged)], how, SECONDS_ALLOWED))
    return judged, usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def judge_all(numbers: Sequence[int], sender: Connection) -> None:
    limit = psutil.Process().memory_info().vms + MEMORY_ALLOWED
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory(prefix="turnover-fuzz-") as folder:
        for number in numbers:
            sender.send(judge_one(Path(folder) / "landed", number))


def judge_one(path: Path, number: int) -> Judged:
    damaged = mutant(number)
    path.write_bytes(damaged.content)
    began = time.perf_counter()
    signal.alarm(SECONDS_ALLOWED)  # its default is to end the process, in native code too
    try:
        outcome = read_or_refuse(path)
        judge(damaged, outcome)
    except BaseException as error:  # noqa: BLE001 whatever comes out is the finding
        text = f"DEFECT: {type(error).__name__} {error}"
    else:
        kind = damaged.seed.split()[0].rstrip(",")
        text = f"accepted {kind}" if outcome.rows is not None else DETAILS.sub(" … ", outcome.reason)
    signal.alarm(0)
    return Judged(number, text, time.perf_counter() - began)


def report(judged: Sequence[Judged], seconds: float, peak: float) -> int:
    """Print the counts; gives how many files were neither accepted nor refused."""
    counts = Counter(file.outcome for file in judged)
    bad = [file for file in judged if file.outcome.startswith(("HUNG", "CRASHED", "DEFECT"))]
    accepted = sum(count for outcome, count in counts.items() if outcome.startswith("accepted"))
    slowest = max(judged, key=lambda file: file.seconds)
    print(f"{len(judged):,} damaged files in {seconds:.0f} s, peak memory {peak:.0f} MB")
    print(f"slowest: {slowest.seconds:.2f} s (file {slowest.number})")
    print(f"accepted {accepted:,}, refused {len(judged) - accepted - len(bad):,}, neither {len(bad)}\n")
    for outcome, count in counts.most_common():
        print(f"{count:>7,}  {outcome[:100]}")
    for file in bad:
        damaged = mutant(file.number)
        print(f"file {file.number} ({damaged.seed}; {', '.join(damaged.damages)}): {file.outcome}")
    return len(bad)


if __name__ == "__main__":
    sys.exit(main())
