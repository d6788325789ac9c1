"""Tasks shared with other processes: who does them, in which order, and what happens where one ends early."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from joblib.externals.loky import ProcessPoolExecutor

from turnover_assets.core.processes import AHEAD, ALONE, Processes
from turnover_assets_tests.waiting import wait_until


def who(item: tuple[int, int]) -> tuple[int, int]:
    """The number, and the process that it is in: the first one takes its time, so that others have theirs."""
    number, first = item
    if os.getpid() == first:
        time.sleep(0.1)
    return number, os.getpid()


def numbered(count: int) -> list[tuple[int, int]]:
    return [(number, os.getpid()) for number in range(count)]


def fail_at(number: int) -> int:
    if number == 5:
        raise ValueError("the fifth")
    return number


def end_elsewhere(here: int) -> int:
    if os.getpid() != here:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def test_results_keep_the_order_whoever_did_them() -> None:
    with Processes.beside(2) as shared:
        found = list(shared.map(who, numbered(60)))

    assert [number for number, _ in found] == list(range(60))
    done_here = sum(pid == os.getpid() for _, pid in found)
    assert 0 < done_here < 60 - AHEAD  # the other one took more than the first few
    assert len({pid for _, pid in found}) == 2


@pytest.mark.parametrize("count", [0, 1])
def test_alone_everything_is_done_here_one_by_one(count: int) -> None:
    asked: list[int] = []

    def items() -> Iterator[tuple[int, int]]:
        for number in range(3):
            asked.append(number)
            yield number, os.getpid()

    with Processes.beside(count) as shared:
        results = shared.map(who, items())

        assert shared is ALONE
        assert next(results) == (0, os.getpid())
        assert asked == [0]


@pytest.mark.parametrize("where", ["__init__", "submit"])
def test_where_the_system_has_no_more_processes_this_one_is_alone(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(ProcessPoolExecutor, where, refuse)

    with Processes.beside(2) as shared:
        assert shared is ALONE


def test_a_failure_is_told_and_the_rest_left_out() -> None:
    items = iter(range(10_000))
    with Processes.beside(2) as shared, pytest.raises(ValueError, match="the fifth"):
        list(shared.map(fail_at, items))

    assert next(items) < 9_999


def test_what_a_killed_process_left_is_done_here() -> None:
    with Processes.beside(2) as shared:
        found = list(shared.map(end_elsewhere, [os.getpid()] * 20))

    assert found == [os.getpid()] * 20


SCRIPT = """
import os, signal, time
from turnover_assets.core.processes import Processes
from turnover_assets_tests.test_processes import numbered, who

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were begun with
print("begun", flush=True)
with Processes.beside(2) as shared:
    pids = {pid for _, pid in shared.map(who, numbered(60))}
    print((pids - {os.getpid()}).pop(), flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see other processes")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_another_process_ends_with_the_first_however_it_ends(sent: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    first = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert first.stdout
    assert first.stderr
    try:
        assert first.stdout.readline() == b"begun\n"
        other = int(first.stdout.readline())  # the script, which guards nothing, has not been run again

        first.send_signal(sent)
        first.wait(timeout=60)

        wait_until(lambda: not is_there(other))
        told = first.stderr.read()
        assert told.count(b"Traceback") == (sent == signal.SIGINT)
    finally:
        first.kill()


def is_there(pid: int) -> bool:
    """Whether a process is alive; one that has ended is, where nobody asks for it, still listed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
