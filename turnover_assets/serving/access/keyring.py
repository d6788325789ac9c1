"""The keys that a server goes by: those of the home, read again when the file has changed.

What belongs here: knowing the keys, and telling a right one. What does not: the file (storage/api_keys.py).

Looking at the file costs microseconds, so it is done in passing, at most once a second: a key that is made or
revoked counts within a second. A file that cannot be read is told and changes nothing: who can damage it
could as well write a key into it, so refusing everybody would only lose the service.
"""

import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime

from turnover_assets.core.api_keys import key_digest, key_id_of, named_id
from turnover_assets.errors import TurnoverError
from turnover_assets.storage.api_keys import ApiKey, KeyStore

LOOK_SECONDS = 1.0
SETTLED_SECONDS = 2.0  # a file that changed just now may change again without a new time
NOBODY = bytes(32)


class WrongKeyError(Exception):
    """A key that is not accepted.

    Args:
        reason: Short name of the reason, for the metrics.
        detail: What is wrong, in a sentence that tells the presenter nothing he should not know.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Keyring:
    """The keys of a home, as they are now.

    Attributes:
        problem: Why the file cannot be read; empty where it can.
    """

    def __init__(self, store: KeyStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._keys: dict[str, ApiKey] = {}
        self._seen: object = ()
        self._next = float("-inf")
        self.problem = ""

    def accept(self, key: str) -> ApiKey:
        """The key that a text is.

        Raises:
            WrongKeyError: It is none that is in force.
        """
        known = self._now().get(key_id := named_id(key))
        right = hmac.compare_digest(key_digest(key), known.digest if known else NOBODY)
        if known is None or not right:
            if key_id_of(key) is None:
                raise WrongKeyError(
                    "malformed", "The API key is mistyped or incomplete: its form or checksum is wrong."
                )
            raise WrongKeyError("unknown", "There is no such API key.")
        if (state := known.state(datetime.now(UTC))) in ("revoked", "expired"):
            raise WrongKeyError(state, f"The API key {key_id} is {state}.")
        return known

    def find(self, key_id: str) -> ApiKey | None:
        """The key of an id that is in force; None where there is none."""
        known = self._now().get(key_id)
        if known is None or known.state(datetime.now(UTC)) in ("revoked", "expired"):
            return None
        return known

    def is_used(self) -> bool:
        """Whether a key was ever made; also revoked ones count, so that revoking never opens a service.

        Nor does a file that cannot be read: what it holds is not known.
        """
        return bool(self._now()) or bool(self.problem)

    def in_force(self) -> int:
        """How many keys are in force."""
        now = datetime.now(UTC)
        return sum(key.state(now) in ("active", "replaced") for key in self._now().values())

    def _now(self) -> dict[str, ApiKey]:
        if self._clock() >= self._next:
            self._look()
            self._next = self._clock() + LOOK_SECONDS
        return self._keys

    def _look(self) -> None:
        try:
            seen = self._signature()
            if seen is None or seen != self._seen:
                self._keys = {key.key_id: key for key in self._store.read()}
                self._seen = seen
            self.problem = ""
        except (TurnoverError, OSError) as error:
            self.problem = str(error)

    def _signature(self) -> object:
        """What changes with the file; None where that cannot be told yet."""
        try:
            found = self._store.path.stat()
        except FileNotFoundError:
            return ()
        if abs(time.time() - found.st_mtime) < SETTLED_SECONDS:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
