"""Tasks shared with processes beside this one, for work that is Python through and through.

What belongs here: sharing tasks among processes. What does not: what the tasks are; and work inside numpy,
DuckDB or boosting, which threads share (side_by_side.py).

A process takes half a second to begin, beside this one's work, and 190 MB: it is for work of seconds.
They are loky's: forked ones would have the locks that DuckDB's threads hold, and those that multiprocessing
spawns would first run the script that started this one, which may be a user's, again.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2  # items given to each other process at a time: one it works at, and the next


class Processes:
    """This process and those beside it.

    Args:
        others: How many are beside this one.
        pool: Those; None where there are none.
    """

    def __init__(self, others: int = 0, pool: Executor | None = None) -> None:
        self._others, self._pool = others, pool

    @classmethod
    @contextmanager
    def beside(cls, count: int) -> "Iterator[Processes]":
        """This process and others; they begin at once, and have ended when the block is left.

        Where the system has none to give, this process is alone.

        Args:
            count: How many, with this one.
        """
        pool = _started(count - 1) if count > 1 else None
        if pool is None:
            yield ALONE
            return
        try:
            yield cls(count - 1, pool)
        finally:
            pool.shutdown()

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """What a task returns for each item, in order.

        This process does what the others have no time for, so few items are in memory at once. What one of
        them was killed over, by a system short of memory perhaps, is done here.

        Args:
            task: A function of a module. It, its items and results are pickled.
            items: Asked for in this process, one by one.
        """
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            waiting.append((item, self._given(task, item, [future for _, future in waiting])))
            while waiting and waiting[0][1].done():
                yield _result(task, *waiting.popleft())
        while waiting:
            yield _result(task, *waiting.popleft())

    def _given(
        self, task: Callable[[Item], Result], item: Item, waiting: Iterable[Future[Result]]
    ) -> Future[Result]:
        """The item given to another process, or done."""
        if self._pool and sum(not future.done() for future in waiting) < AHEAD * self._others:
            try:
                return self._pool.submit(task, item)
            except BrokenProcessPool:
                self._pool = None
        here: Future[Result] = Future()
        here.set_result(task(item))
        return here


def _result(task: Callable[[Item], Result], item: Item, future: Future[Result]) -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        return task(item)


ALONE = Processes()


def _started(others: int) -> Executor | None:
    """So many processes; None where the system has no more of them, or none of the locks they need."""
    from joblib.externals.loky import ProcessPoolExecutor

    with ExitStack() as given_up:
        try:
            pool: Executor = ProcessPoolExecutor(others, initializer=_follow, initargs=(os.getpid(),))
            given_up.callback(pool.shutdown)
            for _ in range(others):
                pool.submit(_nothing)
        except (OSError, ImportError, NotImplementedError):
            return None
        given_up.pop_all()
    return pool


def _follow(first: int) -> None:
    """In another process: leave it to the first one to end this, and end with it however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(first,), daemon=True).start()


def _end_after(first: int) -> None:
    while os.getppid() == first:
        time.sleep(1.0)
    os._exit(1)


def _nothing() -> None:
    """A task, so that a process begins."""
