"""Work side by side: who does it, with how many threads, and what happens where a task fails."""

import threading
import time
from functools import partial

import pytest

from turnover_assets.core.side_by_side import in_blocks, side_by_side


def square(number: int, threads: int) -> tuple[int, int]:
    return number**2, threads


@pytest.mark.parametrize(
    ("tasks", "threads", "each"), [(5, 1, 1), (5, 2, 1), (5, 8, 2), (2, 8, 4), (1, 4, 4), (0, 4, 4)]
)
def test_results_keep_the_order_and_threads_are_shared_out(tasks: int, threads: int, each: int) -> None:
    found = side_by_side([partial(square, number) for number in range(tasks)], threads)

    assert found == [(number**2, each) for number in range(tasks)]


def test_as_many_tasks_as_threads_are_under_way_at_once() -> None:
    meeting = threading.Barrier(3, timeout=60)  # which nobody leaves before all three are there

    found = side_by_side([lambda _: meeting.wait()] * 3, 3)

    assert sorted(found) == [0, 1, 2]


def test_one_thread_is_the_callers_own() -> None:
    assert side_by_side([lambda _: threading.current_thread()] * 2, 1) == [threading.current_thread()] * 2


def test_after_a_failure_the_rest_is_left_out() -> None:
    begun: list[int] = []

    def fail(_: int) -> None:
        raise ValueError("this one")

    def work(_: int) -> None:
        begun.append(1)
        time.sleep(0.1)

    with pytest.raises(ValueError, match="this one"):
        side_by_side([fail, *[work] * 200], 2)

    assert len(begun) < 200  # those that a thread had begun by the time


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("size", "begins"), [(7, [0, 3, 6]), (6, [0, 3]), (0, [])])
def test_blocks_cover_an_array_from_its_first_row_to_its_last(
    size: int, begins: list[int], threads: int
) -> None:
    found: list[int] = []

    in_blocks(found.append, size, 3, threads)

    assert sorted(found) == begins
