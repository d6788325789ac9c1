"""Incidents and the outbox of messages, in one SQLite file: alerts/alerts.sqlite in the home.

What belongs here: what is done to them, in one transaction each. What does not: the tables
(_alert_tables.py), what becomes of an incident (core/alerts/incidents.py), and sending (alert_outbox.py).

Invariants:
    - incidents and the messages on them are written in one transaction, so none is told twice or never;
    - for each family of rules and member at most one incident is open: an index keeps it;
    - a message is claimed before it is sent. A process that ends in between leaves its claim behind, and
      nobody can know whether the message left: after CLAIM it is sent again, once. Where that is cut short as
      well, it is given up. So a message comes at most twice, and twice only after such an end;
    - a workbook comes at most once: where its sending is cut short it is given up, since whoever misses it
      can make it again, and it is no warning.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

from turnover_assets.core.alerts.channels import Channel
from turnover_assets.core.alerts.conditions import Condition
from turnover_assets.core.alerts.incidents import Change, Incident, Message, fold, messages
from turnover_assets.core.alerts.rules import AlertRules
from turnover_assets.errors import HomeError, UnknownNameError
from turnover_assets.storage._alert_tables import (
    Delivery,
    columns,
    delivery_of,
    incident_of,
    keep,
    open_incidents,
    prepare,
)
from turnover_assets.storage.sqlite_files import reading

NOT_CONFIGURED = "the channel is no longer configured"
BUSY_SECONDS = 30.0
CLAIM = timedelta(minutes=10)  # longer than any sending takes
FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=6)
ATTEMPTS = 20  # with those pauses almost three days
CUT_SHORT = 2
WORKBOOKS = "workbooks"  # the way of workbooks, which is that of e-mail apart from alerts
KEPT = timedelta(days=400)  # of what is over
UNDER_WAY = "delivered_at IS NULL AND given_up_at IS NULL"


@dataclass(frozen=True)
class AlertStore:
    """The file; made at its first use, safe for several processes at once."""

    path: Path

    def settle(
        self, rules: AlertRules, look: Callable[[Sequence[Incident]], Sequence[Condition]], now: datetime
    ) -> list[Change]:
        """Look, fold what is found into the incidents, and put the messages into the outbox.

        Args:
            rules: The rules and channels in force.
            look: Gives the conditions; told which incidents are open. Nobody else settles meanwhile.
            now: The time.

        Raises:
            HomeError: The file cannot be read or written.
        """
        with self._transaction() as con:
            before = open_incidents(con)
            remind_after = timedelta(days=rules.remind_after_days)
            found = fold(before, look(before), rules.rules, now, remind_after, stand_in=rules.stand_in)
            changes = [replace(change, incident=keep(con, change.incident)) for change in found]
            for message in messages(changes, rules.fold_above, now):
                _enqueue(con, message, rules.channels)
            _forget(con, now - KEPT)
        return changes

    def open_incidents(self) -> list[Incident]:
        """The open incidents, the worst first."""
        with self._transaction() as con:
            found = open_incidents(con)
        return sorted(found, key=lambda one: (-one.severity.rank, one.opened_at))

    def incidents(self, since: datetime) -> list[Incident]:
        """All incidents that are open or ended after a time, the newest first."""
        with self._transaction() as con:
            rows = con.execute(
                f"SELECT {columns()} FROM incidents WHERE resolved_at IS NULL OR resolved_at >= ? "
                "ORDER BY incident_id DESC",
                [since.timestamp()],
            ).fetchall()
        return [incident_of(row) for row in rows]

    def close(self, incident_id: int, now: datetime) -> Incident:
        """End an incident by hand, without a message.

        Raises:
            UnknownNameError: No incident of that number is open.
        """
        with self._transaction() as con:
            known = {one.incident_id: one for one in open_incidents(con)}
            if incident_id not in known:
                raise UnknownNameError("open incident", str(incident_id), [str(n) for n in known] or ["none"])
            return keep(con, replace(known[incident_id], resolved_at=now))

    def deliveries(self, *, under_way: bool = False) -> list[Delivery]:
        """All messages in the outbox, in order; or only those that are under way."""
        where = f"WHERE {UNDER_WAY}" if under_way else ""
        with self._transaction() as con:
            rows = con.execute(f"SELECT * FROM deliveries {where} ORDER BY delivery_id").fetchall()
        return [delivery_of(row) for row in rows]

    def name(self) -> str:
        """A name of this store that no other has; with a delivery's number it names a message for ever."""
        with self._transaction() as con:
            return str(con.execute("SELECT store FROM about").fetchone()[0])

    def enqueue(self, message: Message, channels: Mapping[str, Channel]) -> None:
        """Put a message into the outbox, for each channel that takes its severity."""
        with self._transaction() as con:
            _enqueue(con, message, channels)

    def enqueue_once(self, name: str, message: Message, channel: str) -> bool:
        """Put a message into the outbox for one channel, unless one of that name ever was; says whether."""
        at = message.at.timestamp()
        with self._transaction() as con:
            new = con.execute("INSERT OR IGNORE INTO once VALUES (?, ?)", [name, at]).rowcount > 0
            if new:
                _insert(con, message, [channel])
        return new

    def claim(
        self, channels: Sequence[str], now: datetime, *, due_only: bool = True, above: int = 0
    ) -> Delivery | None:
        """Claim the next message to send through one of some channels; None where there is none.

        Args:
            channels: Kinds of channels to send through now.
            now: The time.
            due_only: Leave those that wait for their next attempt.
            above: Number of the delivery after which to look.
        """
        claim, until = uuid4().hex, now + CLAIM
        with self._transaction() as con:
            _take_back(con, now)
            places = ", ".join("?" * len(channels))
            row = con.execute(
                f"SELECT delivery_id FROM deliveries WHERE {UNDER_WAY} AND claim IS NULL AND next_at <= ? "
                f"AND delivery_id > ? AND channel IN ({places}) ORDER BY delivery_id LIMIT 1",
                [now.timestamp() if due_only else 1e18, above, *channels],
            ).fetchone()
            if row is None:
                return None
            con.execute(
                "UPDATE deliveries SET attempts = attempts + 1, claim = ?, claimed_until = ? "
                "WHERE delivery_id = ?",
                [claim, until.timestamp(), row["delivery_id"]],
            )
            claimed = con.execute("SELECT * FROM deliveries WHERE delivery_id = ?", [row["delivery_id"]])
            return delivery_of(claimed.fetchone())

    def delivered(self, delivery: Delivery, now: datetime, remark: str = "") -> None:
        """Note that a claimed message was sent."""
        with self._transaction() as con:
            con.execute(
                "UPDATE deliveries SET delivered_at = ?, given_up_at = NULL, claim = NULL, "
                "claimed_until = NULL, last_error = ? WHERE delivery_id = ?",
                [now.timestamp(), remark or None, delivery.delivery_id],
            )

    def failed(self, delivery: Delivery, now: datetime, error: str) -> None:
        """Note that a claimed message could not be sent, and when to try again; the last time, give it up."""
        over = delivery.attempts >= ATTEMPTS
        with self._transaction() as con:
            con.execute(
                "UPDATE deliveries SET claim = NULL, claimed_until = NULL, last_error = ?, next_at = ?, "
                "given_up_at = ? WHERE delivery_id = ? AND claim = ?",
                [
                    error,
                    (now + pause_after(delivery.attempts)).timestamp(),
                    now.timestamp() if over else None,
                    delivery.delivery_id,
                    delivery.claim,
                ],
            )

    def give_up_others(self, channels: Sequence[str], now: datetime) -> int:
        """Give up messages for channels that are no longer configured; returns how many."""
        places = ", ".join("?" * len(channels))
        with self._transaction() as con:
            done = con.execute(
                "UPDATE deliveries SET given_up_at = ?, last_error = ? "
                f"WHERE {UNDER_WAY} AND claim IS NULL AND channel NOT IN ({places})",
                [now.timestamp(), NOT_CONFIGURED, *channels],
            )
        return done.rowcount

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes in: committed where the block ends, else rolled back."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(error) from error
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as con:
                con.row_factory = sqlite3.Row
                prepare(con)
                con.execute("BEGIN IMMEDIATE")
                try:
                    yield con
                    con.execute("COMMIT")
                except BaseException:
                    if con.in_transaction:
                        con.execute("ROLLBACK")
                    raise
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> HomeError:
        return HomeError(
            self.path.parent.parent,
            f"{self.path} cannot be read or written ({error})",
            "Make room or permit writing there. Where the file is damaged, delete it: what is open is told "
            "once more, and nothing else is lost.",
        )


def peek_deliveries(path: Path) -> list[Delivery]:
    """All messages in the outbox of a file, in order, read without making or changing anything in it.

    Raises:
        sqlite3.Error: The file cannot be read.
    """
    with reading(path.absolute()) as con:
        con.row_factory = sqlite3.Row
        if not con.execute("SELECT count(*) FROM sqlite_master WHERE name = 'deliveries'").fetchone()[0]:
            return []
        return [delivery_of(row) for row in con.execute("SELECT * FROM deliveries ORDER BY delivery_id")]


def pause_after(attempts: int) -> timedelta:
    """How long to wait after so many attempts: a minute, then twice as long each time, at most six hours.

    Example:
        >>> [str(pause_after(n)) for n in (1, 2, 5, 20)]
        ['0:01:00', '0:02:00', '0:16:00', '6:00:00']
    """
    return min(FIRST_PAUSE * int(2 ** min(attempts - 1, 20)), LONGEST_PAUSE)


def _enqueue(con: sqlite3.Connection, message: Message, channels: Mapping[str, Channel]) -> None:
    rank = message.severity.rank
    _insert(con, message, [kind for kind, one in channels.items() if rank >= one.minimum_severity.rank])


def _insert(con: sqlite3.Connection, message: Message, channels: Sequence[str]) -> None:
    text, at = json.dumps(message.as_dict()), message.at.timestamp()
    con.executemany(
        "INSERT INTO deliveries (channel, message, created_at, next_at) VALUES (?, ?, ?, ?)",
        [(channel, text, at, at) for channel in channels],
    )


def _take_back(con: sqlite3.Connection, now: datetime) -> None:
    """Take back claims of processes that ended while they sent."""
    con.execute(
        "UPDATE deliveries SET claim = NULL, claimed_until = NULL, cut_short = cut_short + 1, "
        "last_error = 'the process ended while it sent this; it may have arrived', "
        "given_up_at = CASE WHEN cut_short + 1 >= ? OR channel = ? THEN ? END "
        f"WHERE {UNDER_WAY} AND claim IS NOT NULL AND claimed_until < ?",
        [CUT_SHORT, WORKBOOKS, now.timestamp(), now.timestamp()],
    )


def _forget(con: sqlite3.Connection, before: datetime) -> None:
    at = before.timestamp()
    con.execute("DELETE FROM incidents WHERE resolved_at < ?", [at])
    con.execute("DELETE FROM deliveries WHERE delivered_at < ? OR given_up_at < ?", [at, at])
    con.execute("DELETE FROM once WHERE enqueued_at < ?", [at])
