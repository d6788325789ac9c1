"""Work done side by side: several tasks at once, each with its part of the threads.

What belongs here: sharing threads among tasks. What does not: what the tasks are.

Boosting gains little from a second thread: in the case study's windows two take three quarters of the time
of one. Two fits side by side with a thread each gain nearly twice. Models do not depend on how many threads
fit them.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

Result = TypeVar("Result")


def side_by_side(tasks: Sequence[Callable[[int], Result]], threads: int) -> list[Result]:
    """Begin tasks in the given order, as many at a time as there are threads.

    Where one fails, or this thread is interrupted, those that have not begun are left out.

    Args:
        tasks: Each is told how many threads it may use; the longest had better come first.
        threads: Threads for all of them.

    Returns:
        What each task returned, in the same order.
    """
    workers = min(threads, len(tasks))
    if workers <= 1:
        return [task(threads) for task in tasks]
    each = -(-threads // workers)
    pool = ThreadPoolExecutor(workers)
    try:
        begun = [pool.submit(task, each) for task in tasks]
        return [future.result() for future in begun]
    finally:
        pool.shutdown(cancel_futures=True)


def in_blocks(fill: Callable[[int], None], size: int, block: int, threads: int) -> None:
    """Fill an array of `size` rows, `block` of them at a time; `fill` is told where each block begins."""
    side_by_side([partial(_ignoring_threads, fill, begin) for begin in range(0, size, block)], threads)


def _ignoring_threads(fill: Callable[[int], None], begin: int, _: int) -> None:
    fill(begin)
