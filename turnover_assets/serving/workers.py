"""Threads that answer questions, bounded in number, waiting and time.

What belongs here: running a piece of work in a thread, and giving up on it. What does not: the work.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from turnover_assets.serving.problems import busy_problem
from turnover_assets.serving.view import Stop

T = TypeVar("T")


class Workers:
    """Threads, and a queue before them.

    Args:
        threads: How many work at once.
        waiting: How many may wait for one of them; who comes after is refused at once.
        seconds: How long a piece of work may take, waiting included.
    """

    def __init__(self, threads: int, waiting: int, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="answer")
        self._most, self._seconds, self._pending = threads + waiting, seconds, 0

    async def run(self, work: Callable[[Stop], T]) -> T:
        """The result of a piece of work, which is told by the Stop when nobody waits for it any more.

        Raises:
            Problem: Too many wait already, or it took too long.
        """
        if self._pending >= self._most:
            raise busy_problem(
                "More questions wait for an answer than may.",
                "Ask again in a moment, and fewer at a time; Retry-After says when.",
                seconds=1,
            )
        stop = Stop()
        self._pending += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, work, stop)
        future.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._seconds)
        except TimeoutError:
            raise busy_problem(
                f"The answer took longer than {self._seconds:g} s and was given up.",
                "Ask for fewer series, periods or rows; or ask again when the service has less to do.",
            ) from None
        finally:
            stop.set()  # ends it, where this was left before it was done

    def close(self) -> None:
        """End the threads once they are done."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _done(self, future: "asyncio.Future[T]") -> None:
        self._pending -= 1
        if not future.cancelled():
            future.exception()  # seen, also where nobody waits for it any more
