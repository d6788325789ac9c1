"""The log of automatic decisions: what each sensor and schedule decided, when, and why.

What belongs here: keeping and reading it. What does not: deciding (defs), showing (commands).

It is a small database of its own in the home. Dagster's ticks say the same, but they are removed after some
days, and a table of the warehouse could be written only while nothing else runs, which is not when decisions
are taken. A decision that is the same as the one before it is counted there; so a sensor that has nothing to
do for a week takes one row.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pandas as pd

from turnover_assets.errors import HomeError

Outcome = Literal["requested", "skipped", "failed"]
COLUMNS = ("automation", "outcome", "reason", "run_keys", "first_at", "last_at", "looks")
KEPT = 10_000  # newest rows
TRIMMED_EVERY = 100  # rows, so that trimming costs nothing
WAIT_SECONDS = 5.0
LONGEST = 2_000  # characters of a reason
SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (id INTEGER PRIMARY KEY, automation TEXT NOT NULL,
outcome TEXT NOT NULL, reason TEXT NOT NULL, run_keys TEXT NOT NULL, first_at TEXT NOT NULL,
last_at TEXT NOT NULL, looks INTEGER NOT NULL)
"""


@dataclass(frozen=True)
class Decision:
    """What was decided.

    Attributes:
        automation: Name of the sensor or schedule.
        outcome: `requested` where runs were asked for, `skipped` where nothing was to do, `failed` where it
            could not be decided.
        reason: Why, in words.
        run_keys: Dagster's keys of the runs asked for; the same ones where it is taken again after a crash.
    """

    automation: str
    outcome: Outcome
    reason: str
    run_keys: Sequence[str] = ()


@dataclass(frozen=True)
class DecisionLog:
    """The log in a file, which need not be there."""

    path: Path

    def record(self, decision: Decision, now: datetime) -> None:
        """Keep a decision; one that is the same as this automation's newest is counted there.

        Raises:
            HomeError: It cannot be written.
        """
        row = (
            decision.automation,
            decision.outcome,
            decision.reason[:LONGEST],
            json.dumps(list(decision.run_keys)),
        )
        moment = now.astimezone(UTC).isoformat(timespec="seconds")
        with self._connection() as con:
            newest = con.execute(
                "SELECT id, automation, outcome, reason, run_keys FROM decisions WHERE automation = ? "
                "ORDER BY id DESC LIMIT 1",
                [decision.automation],
            ).fetchone()
            if newest and newest[1:] == row:
                con.execute(
                    "UPDATE decisions SET last_at = ?, looks = looks + 1 WHERE id = ?", [moment, newest[0]]
                )
                return
            made = con.execute(
                "INSERT INTO decisions (automation, outcome, reason, run_keys, first_at, last_at, looks) "
                "VALUES (?, ?, ?, ?, ?, ?, 1)",
                [*row, moment, moment],
            )
            if (made.lastrowid or 0) % TRIMMED_EVERY == 0:
                con.execute("DELETE FROM decisions WHERE id <= ?", [(made.lastrowid or 0) - KEPT])

    def read(self, automation: str | None = None, newest: int = KEPT) -> pd.DataFrame:
        """The newest decisions, the newest first.

        Args:
            automation: Only those of this sensor or schedule.
            newest: How many at most.

        Returns:
            `automation`, `outcome`, `reason`, `run_keys` (JSON list), `first_at`, `last_at` (UTC; the first
            and the last time in a row that it was decided so), `looks` (how often); none where nothing was.

        Raises:
            HomeError: It is there and cannot be read.
        """
        rows: list[tuple[object, ...]] = []
        if self.path.is_file():
            with self._connection() as con:
                rows = con.execute(
                    f"SELECT {', '.join(COLUMNS)} FROM decisions WHERE ? IS NULL OR automation = ? "
                    "ORDER BY last_at DESC, id DESC LIMIT ?",
                    [automation, automation, newest],
                ).fetchall()
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        texts = {name: "str" for name in COLUMNS if name not in ("first_at", "last_at", "looks")}
        return table.astype(texts).assign(
            first_at=pd.to_datetime(table["first_at"], utc=True),
            last_at=pd.to_datetime(table["last_at"], utc=True),
            looks=table["looks"].astype("int64"),
        )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """The database in one transaction, made where it is missing."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with (
                closing(sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level="IMMEDIATE")) as con,
                con,
            ):
                con.execute(SCHEMA)
                yield con
        except (sqlite3.Error, OSError) as error:
            raise HomeError(
                self.path.parent,
                f"the log of automatic decisions {self.path} cannot be used ({error})",
                "Make room or permit writing there. If it is damaged, move it away: a new one is begun.",
            ) from error
