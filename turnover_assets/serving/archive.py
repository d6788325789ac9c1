"""Snapshots that are no longer current, opened again for those who are in the middle of their pages.

What belongs here: opening, keeping for a while, closing. What does not: the current snapshot (follower.py).

Invariants:
    - a snapshot is leased while it is open, so that it is not removed from below;
    - one that nobody asked for in a while is closed, so that it can be removed.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from turnover_assets.errors import NoSnapshotError
from turnover_assets.serving.problems import Problem, busy_problem
from turnover_assets.serving.served import Served
from turnover_assets.storage.snapshots import Snapshot, lease

MOST_OPEN = 4
IDLE_SECONDS = 60.0


@dataclass
class _Open:
    """A snapshot that is open, with who uses it and since when nobody does."""

    served: Served
    leaving: ExitStack
    users: int = 0
    idle_since: float = 0.0

    def close(self) -> None:
        with self.leaving:
            self.served.close()


class Archive:
    """Older snapshots by name.

    Args:
        published: Folder of the snapshots.
        make: Makes one ready to be asked.
        clock: Seconds that only go on.
    """

    def __init__(
        self,
        published: Path,
        make: Callable[[Snapshot], Served],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._published, self._make, self._clock = published, make, clock
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()

    @contextmanager
    def use(self, name: str) -> Iterator[Served]:
        """A snapshot by its name.

        Raises:
            Problem: It is gone, or too many others are in use.
        """
        with self._lock:
            held = self._open.get(name) or self._opened(name)
            held.users += 1
        try:
            yield held.served
        finally:
            with self._lock:
                held.users -= 1
                held.idle_since = self._clock()

    def tidy(self, idle_seconds: float = IDLE_SECONDS) -> None:
        """Close what nobody uses and nobody asked for in a while."""
        with self._lock:
            for name, held in list(self._open.items()):
                if not held.users and self._clock() - held.idle_since >= idle_seconds:
                    self._open.pop(name).close()

    def close(self) -> None:
        """Close all; nobody may use any."""
        self.tidy(idle_seconds=-1)

    def _opened(self, name: str) -> _Open:
        with ExitStack() as leaving:
            try:
                snapshot = leaving.enter_context(lease(self._published, _plain(name)))
                self._make_room()  # only now, since for one that is gone no other must go
                held = _Open(self._make(snapshot), leaving.pop_all())
            except NoSnapshotError:
                raise _gone(name) from None
        self._open[name] = held
        return held

    def _make_room(self) -> None:
        """Close the one that nobody has used for longest, where as many are open as may be."""
        if len(self._open) < MOST_OPEN:
            return
        unused = {name: held for name, held in self._open.items() if not held.users}
        if not unused:
            raise busy_problem("Pages of too many older snapshots are asked for at once.", "Ask again.")
        self._open.pop(min(unused, key=lambda name: unused[name].idle_since)).close()


def _plain(name: str) -> str:
    """The name, where it can be that of a folder."""
    if not name or not all(each.isalnum() or each in "-_" for each in name):
        raise _gone(name)
    return name


def _gone(name: str) -> Problem:
    return Problem(
        410,
        f"The snapshot {name[:80]!r} that the pages before came from is no longer there.",
        "Leave `page` out to start again at the first page of what is served now. Whoever runs the service "
        "can keep more snapshots with TURNOVER_KEEP_SNAPSHOTS.",
        field="page",
    )
