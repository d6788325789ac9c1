"""The API keys of a home: keys.sqlite, which only its owner can read.

What belongs here: making, ending and reading keys. What does not: their form (core/api_keys.py), and who
presents one (serving/access).

Of a key its SHA-256 is kept; the key itself is given once, when it is made. The file has SQLite's rollback
journal, so that it is one file and can be read where nothing may be written. Servers read it again when it
has changed.

Invariants:
    - a key, once made, stays on record: one that was revoked never comes to life again;
    - at most one key of a name is neither revoked nor replaced.
"""

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from turnover_assets.core.api_keys import (
    ALPHABET,
    ID_LENGTH,
    SCOPES,
    SECRET_LENGTH,
    Scope,
    compose_key,
    key_digest,
)
from turnover_assets.errors import HomeError, TurnoverError
from turnover_assets.storage.sqlite_files import reading

OWNER_ONLY = 0o600
BUSY_SECONDS = 10.0
LONGEST_NAME = 100
COLUMNS = "key_id, name, digest, scopes, created_at, expires_at, revoked_at, replaced_by, rate, ab_share"
SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    key_id TEXT PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL, scopes TEXT NOT NULL,
    created_at REAL NOT NULL, expires_at REAL, revoked_at REAL, replaced_by TEXT, rate TEXT, ab_share REAL
)
"""


@dataclass(frozen=True)
class ApiKey:
    """What is kept of a key.

    Attributes:
        key_id: Its id, which is no secret.
        name: Whose it is, or what for.
        digest: SHA-256 of the key.
        scopes: What it permits.
        created_at: When it was made.
        expires_at: From when on it is refused; None for never.
        revoked_at: When it was revoked; None where it was not.
        replaced_by: Id of the key that took its place; empty where none did.
        rate: Its own rate, as core.api_keys.parse_rate reads it; empty for that of the settings.
        ab_share: Share of series that the challenger answers for it; None where it takes part in no test.
    """

    key_id: str
    name: str
    digest: bytes
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    replaced_by: str = ""
    rate: str = ""
    ab_share: float | None = None

    def state(self, now: datetime) -> str:
        """`active`, `replaced` (active until it expires), `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "replaced" if self.replaced_by else "active"


@dataclass(frozen=True)
class NewKey:
    """A key that was just made.

    Attributes:
        secret: The key itself, which is kept nowhere.
        kept: What is kept of it.
    """

    secret: str
    kept: ApiKey


@dataclass(frozen=True)
class KeyStore:
    """The file of keys; made with the first key, safe for several processes at once."""

    path: Path

    def read(self) -> list[ApiKey]:
        """All keys, the oldest first; none where the file is not there.

        Raises:
            HomeError: The file is there and cannot be read.
        """
        try:
            if not self.path.is_file() or not self.path.stat().st_size:  # the first key is being made
                return []
            with reading(self.path.absolute(), BUSY_SECONDS) as con:
                return _read(con)
        except (sqlite3.Error, OSError) as error:
            raise self._refused(error) from error

    def create(
        self,
        name: str,
        scopes: Sequence[Scope],
        now: datetime,
        *,
        expires_at: datetime | None = None,
        rate: str = "",
        ab_share: float | None = None,
    ) -> NewKey:
        """Make a key.

        Raises:
            TurnoverError: The name is taken by an active key, or is none.
            HomeError: The file cannot be written.
        """
        _check_name(name)
        _check_expiry(expires_at, now)
        with self._transaction() as con:
            if taken := [key.key_id for key in _read(con) if key.name == name and key.state(now) == "active"]:
                raise TurnoverError(
                    f"There is an active key named {name!r} ({taken[0]}). Choose another name, or replace "
                    f"that key: `turnover keys rotate {name}`."
                )
            return _insert(con, name, frozenset(scopes), now, expires_at, rate, ab_share)

    def revoke(self, which: str, now: datetime) -> list[ApiKey]:
        """Revoke the key of an id, or all keys of a name that still work; gives them as they are now.

        Raises:
            TurnoverError: No such key works.
            HomeError: The file cannot be written.
        """
        with self._transaction() as con:
            chosen = self._working(con, which, now)
            for key in chosen:
                con.execute("UPDATE keys SET revoked_at = ? WHERE key_id = ?", [now.timestamp(), key.key_id])
            ids = {key.key_id for key in chosen}
            return [key for key in _read(con) if key.key_id in ids]

    def rotate(
        self, which: str, now: datetime, overlap: timedelta, expires_at: datetime | None = None
    ) -> NewKey:
        """Make a key in place of another, which works on for a while.

        Args:
            which: Id or name of the key to replace.
            now: The time.
            overlap: How long the old one still works.
            expires_at: When the new one expires; by default it is given as long as the old one was.

        Raises:
            TurnoverError: No such key is active.
            HomeError: The file cannot be written.
        """
        _check_expiry(expires_at, now)
        with self._transaction() as con:
            active = [key for key in self._working(con, which, now) if key.state(now) == "active"]
            if not active:
                raise TurnoverError(f"The key {which!r} was replaced already. See `turnover keys list`.")
            old = active[0]
            if expires_at is None and old.expires_at is not None:
                expires_at = now + (old.expires_at - old.created_at)
            made = _insert(con, old.name, old.scopes, now, expires_at, old.rate, old.ab_share)
            end = min(old.expires_at or datetime.max.replace(tzinfo=UTC), now + overlap)
            con.execute(
                "UPDATE keys SET replaced_by = ?, expires_at = ? WHERE key_id = ?",
                [made.kept.key_id, end.timestamp(), old.key_id],
            )
            return made

    def _working(self, con: sqlite3.Connection, which: str, now: datetime) -> list[ApiKey]:
        """The keys of an id or a name that work.

        Raises:
            TurnoverError: There is none.
        """
        keys = _read(con)
        named = [key for key in keys if which in (key.key_id, key.name)]
        working = [key for key in named if key.state(now) in ("active", "replaced")]
        if working:
            return working
        if named:
            raise TurnoverError(f"The key {which!r} is {named[-1].state(now)} already.")
        names = sorted({key.name for key in keys if key.state(now) in ("active", "replaced")})
        raise TurnoverError(
            f"There is no key with the id or name {which!r}. Available: {', '.join(names) or 'none'}; see "
            "`turnover keys list`."
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes in: committed where the block ends, else rolled back."""
        try:
            self._make()
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as con:
                con.execute("BEGIN IMMEDIATE")
                try:
                    con.execute(SCHEMA)
                    yield con
                    con.execute("COMMIT")
                except BaseException:
                    if con.in_transaction:
                        con.execute("ROLLBACK")
                    raise
        except (sqlite3.Error, OSError) as error:
            raise self._refused(error) from error

    def _make(self) -> None:
        """Make the file, so that at no moment anybody else can read it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, OWNER_ONLY)
        try:
            os.fchmod(handle, OWNER_ONLY)
        finally:
            os.close(handle)

    def _refused(self, error: Exception) -> HomeError:
        return HomeError(
            self.path.parent,
            f"the API keys in {self.path} cannot be read or written ({error})",
            "Make room or permit this user to read and write there. Where the file is damaged, put it back "
            "from a backup, or move it away and make the keys anew.",
        )


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise TurnoverError(
            f"A key needs a name of 1 to {LONGEST_NAME} printable characters: whose it is, or what for."
        )


def _check_expiry(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        raise TurnoverError(f"{expires_at:%Y-%m-%d %H:%M} UTC has passed: name a later day to expire on.")


def _insert(
    con: sqlite3.Connection,
    name: str,
    scopes: frozenset[Scope],
    now: datetime,
    expires_at: datetime | None,
    rate: str,
    ab_share: float | None,
) -> NewKey:
    secret = compose_key(_draw(ID_LENGTH), _draw(SECRET_LENGTH))
    key_id = secret.split("_")[1]
    key = ApiKey(
        key_id, name, key_digest(secret), scopes, now, expires_at=expires_at, rate=rate, ab_share=ab_share
    )
    con.execute(
        f"INSERT INTO keys ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, ?, ?)",
        [
            key_id,
            name,
            key.digest,
            json.dumps(sorted(scopes)),
            now.timestamp(),
            expires_at.timestamp() if expires_at else None,
            rate or None,
            ab_share,
        ],
    )
    return NewKey(secret, key)


def _draw(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _read(con: sqlite3.Connection) -> list[ApiKey]:
    return [_key_of(row) for row in con.execute(f"SELECT {COLUMNS} FROM keys ORDER BY created_at, key_id")]


def _key_of(row: Sequence[Any]) -> ApiKey:
    key_id, name, digest, scopes, created, expires, revoked, replaced_by, rate, ab_share = row
    known = frozenset(scope for scope in json.loads(scopes) if scope in SCOPES)
    return ApiKey(
        key_id,
        name,
        bytes(digest),
        known,
        datetime.fromtimestamp(created, UTC),
        _moment(expires),
        _moment(revoked),
        replaced_by or "",
        rate or "",
        ab_share,
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
