"""Limits of how often: exact, in memory, of bounded size.

What belongs here: the arithmetic, and the table of who has used how much. What does not: what is limited.

The token bucket in its other form (GCRA): kept is one moment per name, until which its requests are paid for.
Each request moves it on by the rate's interval; one that would move it further ahead than the whole burst is
refused. Moments are counted in parts of a nanosecond of which an interval is a whole number, so nothing is
lost to rounding however long the service runs.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from turnover_assets.core.api_keys import Rate

NANO = 1_000_000_000


@dataclass(frozen=True)
class Standing:
    """How a name stands with its limit.

    Attributes:
        allowed: Whether this request is within it.
        limit: How many requests may come at once.
        remaining: How many may come now.
        reset: Whole seconds until as many as the limit may come.
        retry_after: Whole seconds after which the next one may come; 0 where it may now.
    """

    allowed: bool
    limit: int
    remaining: int
    reset: int
    retry_after: int


class Limits:
    """How much each name has used.

    Args:
        largest: How many names are remembered; beyond it, those that came longest ago are forgotten, which is
            in their favour.
        clock: Gives nanoseconds that never go back.
    """

    def __init__(self, largest: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._largest, self._clock = largest, clock
        # By name: the parts of a nanosecond it was counted in, and until when requests are paid for.
        self._paid: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def take(self, name: str, rate: Rate) -> Standing:
        """Count a request, and say whether it is within the rate; one that is not costs nothing."""
        now, whole = self._clock() * rate.requests, rate.seconds * NANO
        until = self._until(name, rate, now)
        allowed = until + whole <= now + whole * rate.requests
        if allowed:
            until += whole
            self._paid[name] = rate.requests, until
            self._paid.move_to_end(name)
            if len(self._paid) > self._largest:
                self._paid.popitem(last=False)
        return _standing(rate, until - now, allowed=allowed)

    def look(self, name: str, rate: Rate) -> Standing:
        """How a name stands, without counting anything."""
        now = self._clock() * rate.requests
        ahead = self._until(name, rate, now) - now
        return _standing(
            rate, ahead, allowed=ahead + rate.seconds * NANO <= rate.seconds * NANO * rate.requests
        )

    def _until(self, name: str, rate: Rate, now: int) -> int:
        parts, until = self._paid.get(name, (1, 0))
        if parts != rate.requests:  # the rate was changed
            until = until * rate.requests // parts
        return max(until, now)

    def __len__(self) -> int:
        """How many names are remembered."""
        return len(self._paid)


def _standing(rate: Rate, ahead: int, *, allowed: bool) -> Standing:
    """Where requests are paid for so far ahead, in parts of a nanosecond."""
    whole, second = rate.seconds * NANO, NANO * rate.requests
    room = whole * rate.requests - ahead
    wait = max(0, whole - room)
    return Standing(allowed, rate.requests, room // whole, -(-ahead // second), -(-wait // second))
