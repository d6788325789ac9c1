"""When to ask again, and how long to wait before.

What belongs here: the decision, without asking and without waiting. What does not: asking (client.py).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

AGAIN = frozenset({429, 502, 503, 504})  # a proxy says the others while the service restarts


@dataclass(frozen=True)
class Retries:
    """How often to ask again, and how long to wait.

    Attributes:
        attempts: Requests at most, the first one among them.
        first_wait: Seconds before the second one; doubled each time, and drawn between half of it and all.
        longest_wait: Seconds to wait at most, also where the service asks for more: then it is given up.
    """

    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: float = 60.0

    def wait(
        self, attempt: int, retry_after: str | None = None, draw: Callable[[], float] = random.random
    ) -> float | None:
        """Seconds to wait after so many attempts; None where it is to be given up.

        Args:
            attempt: Requests made so far.
            retry_after: The header Retry-After: seconds or a date; None where there is none.
            draw: Gives a number from 0 to 1.

        Example:
            >>> [Retries().wait(n, draw=lambda: 1.0) for n in (1, 2, 3, 5)]
            [0.5, 1.0, 2.0, None]
            >>> Retries().wait(1, "7"), Retries().wait(1, "3600")
            (7.0, None)
        """
        if attempt >= self.attempts:
            return None
        asked = _seconds(retry_after) if retry_after else None
        if asked is not None:
            return asked if asked <= self.longest_wait else None
        return min(self.longest_wait, self.first_wait * 2.0 ** (attempt - 1)) * (0.5 + draw() / 2)


def _seconds(retry_after: str) -> float | None:
    """Seconds that a header Retry-After asks for; None where it is none."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
