"""The tables of incidents and deliveries, and their rows as objects.

What belongs here: the schema, and rows read and written. What does not: transactions, and what is done in
them (alert_store.py).
"""

import json
import sqlite3
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from turnover_assets.core.alerts.channels import Severity
from turnover_assets.core.alerts.incidents import Incident, Message

TIMES = ("opened_at", "seen_at", "told_at", "resolved_at")
COLUMNS = tuple(field.name for field in fields(Incident))
SCHEMA = """
CREATE TABLE IF NOT EXISTS about (store TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS incidents (
    incident_id INTEGER PRIMARY KEY AUTOINCREMENT,
    family TEXT NOT NULL, level TEXT NOT NULL, member TEXT NOT NULL,
    rule TEXT NOT NULL, severity TEXT NOT NULL, sentence TEXT NOT NULL, advice TEXT NOT NULL,
    evidence TEXT NOT NULL, since TEXT NOT NULL, value REAL, "limit" REAL, excess REAL NOT NULL,
    count INTEGER NOT NULL, opened_at REAL NOT NULL, seen_at REAL NOT NULL, told_at REAL NOT NULL,
    resolved_at REAL
);
CREATE UNIQUE INDEX IF NOT EXISTS one_is_open ON incidents (family, level, member)
WHERE resolved_at IS NULL;
CREATE TABLE IF NOT EXISTS deliveries (
    delivery_id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL, message TEXT NOT NULL, created_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL,
    claim TEXT, claimed_until REAL, cut_short INTEGER NOT NULL DEFAULT 0,
    last_error TEXT, delivered_at REAL, given_up_at REAL
);
CREATE INDEX IF NOT EXISTS under_way ON deliveries (next_at)
WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE TABLE IF NOT EXISTS once (name TEXT PRIMARY KEY, enqueued_at REAL NOT NULL);
"""


@dataclass(frozen=True)
class Delivery:
    """A message on its way through one channel.

    Attributes:
        delivery_id: Its number.
        channel: The kind of channel.
        message: The message.
        created_at: When it was put into the outbox.
        attempts: How often it was claimed to be sent.
        next_at: When it is tried next.
        last_error: Why the last attempt failed, or a remark of the one that succeeded; may be empty.
        delivered_at: When it was sent; None where it was not yet.
        given_up_at: When it was given up; None where it was not.
        claim: What the one who sends it holds; empty where nobody does.
    """

    delivery_id: int
    channel: str
    message: Message
    created_at: datetime
    attempts: int
    next_at: datetime
    last_error: str
    delivered_at: datetime | None
    given_up_at: datetime | None
    claim: str = ""

    @property
    def state(self) -> str:
        """`delivered`, `given up` or `pending`."""
        return "delivered" if self.delivered_at else "given up" if self.given_up_at else "pending"


def prepare(con: sqlite3.Connection) -> None:
    """Make the tables where they are missing."""
    if con.execute("SELECT count(*) FROM sqlite_master WHERE name = 'once'").fetchone()[0]:
        return
    con.execute("PRAGMA journal_mode = WAL")
    con.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.split(";"):
        con.execute(statement)
    con.execute("INSERT INTO about SELECT ? WHERE NOT EXISTS (SELECT * FROM about)", [uuid4().hex[:12]])
    con.execute("COMMIT")


def columns() -> str:
    """The columns of incidents, for SQL."""
    return ", ".join(f'"{name}"' for name in COLUMNS)


def open_incidents(con: sqlite3.Connection) -> list[Incident]:
    """The open incidents, in the order they were opened."""
    rows = con.execute(f"SELECT {columns()} FROM incidents WHERE resolved_at IS NULL ORDER BY incident_id")
    return [incident_of(row) for row in rows.fetchall()]


def incident_of(row: sqlite3.Row) -> Incident:
    """An incident from its row."""
    values: dict[str, Any] = dict(row)
    return Incident(
        **{
            **values,
            "severity": Severity(values["severity"]),
            **{name: _time(values[name]) for name in TIMES},
        }
    )


def keep(con: sqlite3.Connection, incident: Incident) -> Incident:
    """Write an incident; a new one gets its number."""
    values = {**vars(incident), "severity": incident.severity.value}
    values |= {name: None if values[name] is None else values[name].timestamp() for name in TIMES}
    if incident.incident_id:
        assigned = ", ".join(f'"{name}" = :{name}' for name in COLUMNS[1:])
        con.execute(f"UPDATE incidents SET {assigned} WHERE incident_id = :incident_id", values)
        return incident
    names = ", ".join(f'"{name}"' for name in COLUMNS[1:])
    bound = ", ".join(f":{name}" for name in COLUMNS[1:])
    done = con.execute(f"INSERT INTO incidents ({names}) VALUES ({bound})", values)
    return replace(incident, incident_id=done.lastrowid or 0)


def delivery_of(row: sqlite3.Row) -> Delivery:
    """A delivery from its row."""
    return Delivery(
        row["delivery_id"],
        row["channel"],
        Message.from_dict(json.loads(row["message"])),
        datetime.fromtimestamp(row["created_at"], UTC),
        row["attempts"],
        datetime.fromtimestamp(row["next_at"], UTC),
        row["last_error"] or "",
        _time(row["delivered_at"]),
        _time(row["given_up_at"]),
        row["claim"] or "",
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
