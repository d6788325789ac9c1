"""Waiting for what other processes and threads do.

What must come is waited for much longer than it takes, since other work may have the processor meanwhile: how
fast something is, is a benchmark's matter. What belongs here: that patience.
What does not: what is waited for.
"""

import time
from collections.abc import Callable

PATIENCE = 600.0  # seconds


def wait_until(
    condition: Callable[[], object], what: str = "it is so", *, seconds: float = PATIENCE, every: float = 0.1
) -> None:
    """Wait for something, at most so long.

    Raises:
        TimeoutError: It did not come.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s until {what}")
        time.sleep(every)
