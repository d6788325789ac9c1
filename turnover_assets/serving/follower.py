"""Following CURRENT: what is made of the current snapshot, and made anew once another is published.

What belongs here: noticing, making, swapping, letting go. What does not: what is made (view.py and others).

Invariants:
    - who uses what was made keeps it, whole, until done with it, whatever is published meanwhile;
    - what cannot be made never replaces what is there: the old one goes on, and the problem is told;
    - what could not be made is tried again at growing intervals, since each try reads all its files;
    - a snapshot is leased as long as what was made of it is used, so that it is not removed from below.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from turnover_assets.errors import NoSnapshotError, TurnoverError
from turnover_assets.storage.snapshots import Snapshot, lease

LONGEST_WAIT_SECONDS = 60.0  # between two tries of what could not be made
LEAVING_SECONDS = 5.0  # for a look under way when the follower is closed

log = logging.getLogger(__name__)


class Closeable(Protocol):
    """What is made of a snapshot gives back what it holds."""

    def close(self) -> None:
        """Called once nobody uses it any more."""


Made = TypeVar("Made", bound=Closeable)


@dataclass(frozen=True)
class Following:
    """How following goes.

    Attributes:
        snapshot: The snapshot in use; None where none could be used yet.
        since: When it was taken into use.
        checked_at: When CURRENT was last looked at.
        problem: Why the snapshot that CURRENT names is not in use; empty where it is.
        problem_since: When that was first seen; None where there is no problem.
    """

    snapshot: Snapshot | None = None
    since: datetime | None = None
    checked_at: datetime | None = None
    problem: str = ""
    problem_since: datetime | None = None


@dataclass(frozen=True)
class _Failed:
    """A snapshot of which nothing could be made, why, and how long until it is tried again."""

    name: str = ""
    problem: str = ""
    wait: float = 0.0
    tried_at: float = 0.0

    def is_to_wait(self, name: str) -> bool:
        return name == self.name and time.monotonic() - self.tried_at < self.wait


class _Held(Generic[Made]):
    """Something made, with its lease and the number of those who use it."""

    def __init__(self, made: Made, leaving: ExitStack) -> None:
        self.made, self.users = made, 1  # the follower itself is the first
        self._leaving = leaving

    def close(self) -> None:
        with self._leaving:
            self.made.close()


class Follower(Generic[Made]):
    """Holds what is made of the current snapshot.

    Args:
        published: Folder of the snapshots.
        make: Makes it, in seconds at most; raises a TurnoverError where it cannot.
        interval_seconds: Time between two looks at CURRENT, once started.
        bring: Brings the folder up to date before each look, where it follows another place; raises a
            TurnoverError where it cannot, and then what is in the folder goes on.
    """

    def __init__(
        self,
        published: Path,
        make: Callable[[Snapshot], Made],
        interval_seconds: float = 2.0,
        bring: Callable[[], None] = lambda: None,
    ) -> None:
        self._bring = bring
        self._published, self._make, self._interval = published, make, interval_seconds
        self._held: _Held[Made] | None = None
        self._failed = _Failed()
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.following = Following()

    @contextmanager
    def use(self) -> Iterator[Made]:
        """What was made of the snapshot in use, which stays whole until the block ends.

        Raises:
            NoSnapshotError: There is none yet; says why.
        """
        with self._lock:
            held = self._held
            if held is None:
                raise NoSnapshotError(self.following.problem or "Nothing was looked for yet; try again.")
            held.users += 1
        try:
            yield held.made
        finally:
            self._let_go(held)

    def refresh(self, *, patient: bool = False) -> Following:
        """Look at CURRENT, and take what it names into use where that is another snapshot.

        Args:
            patient: Whether a snapshot of which nothing could be made lately is left alone for a while.
        """
        with self._looking:
            now, problem, taken = datetime.now(UTC), "", None
            try:
                self._bring()
            except (TurnoverError, OSError) as error:
                problem = str(error)
            try:
                taken = self._take(patient)
            except (TurnoverError, OSError) as error:
                problem = problem or str(error)
            except Exception as error:  # whatever it is, following goes on, or nobody would see the next one
                log.exception("What CURRENT names cannot be taken into use.")
                problem = problem or _told(error)
            old = self.following  # goes on where nothing was taken
            snapshot, since = (taken, now) if taken else (old.snapshot, old.since)
            problem_since = (old.problem_since or now) if problem else None
            self.following = Following(snapshot, since, now, problem, problem_since)
            return self.following

    def start(self) -> None:
        """Look once, then again and again in a thread of its own."""
        self.refresh()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking, and let go of what is held; a look that takes long is not waited for."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(LEAVING_SECONDS)
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            self._let_go(held)

    def _follow(self) -> None:
        while not self._stop.wait(self._interval):
            self.refresh(patient=True)

    def _take(self, patient: bool) -> Snapshot | None:
        """The snapshot newly in use; None where CURRENT names the one that is in use."""
        with ExitStack() as leaving:
            snapshot = leaving.enter_context(lease(self._published))
            if self.following.snapshot is not None and snapshot.name == self.following.snapshot.name:
                return None
            if patient and self._failed.is_to_wait(snapshot.name):
                raise TurnoverError(self._failed.problem)
            held = _Held(self._make_of(snapshot), leaving.pop_all())
        with self._lock:
            old, self._held = self._held, held
        if old is not None:
            self._let_go(old)
        return snapshot

    def _make_of(self, snapshot: Snapshot) -> Made:
        """Make it, and note where that failed."""
        try:
            return self._make(snapshot)
        except Exception as error:
            again = self._failed.name == snapshot.name
            wait = min(2 * self._failed.wait if again else self._interval, LONGEST_WAIT_SECONDS)
            self._failed = _Failed(snapshot.name, _told(error), wait, time.monotonic())
            raise

    def _let_go(self, held: _Held[Made]) -> None:
        with self._lock:
            held.users -= 1
            unused = held.users == 0
        if unused:
            held.close()


def _told(error: Exception) -> str:
    """An error as a sentence; what nobody foresaw with its type."""
    foreseen = isinstance(error, TurnoverError | OSError)
    return str(error) if foreseen else f"{type(error).__name__}: {error}"
