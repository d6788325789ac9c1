"""Tuned parameters: what a search found, and on which periods it looked.

What belongs here: keeping them. What does not: the search (tuning.py).

They outlive every run and are carried over when the warehouse is rebuilt, since no landed file can tell them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from turnover_assets.core.tables import has_table

TUNED = "reports.tuned_parameters"


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        parameters: By candidate: parameters in place of its own.
        until: Index of the last target period that the search has seen; None where nothing was tuned.
    """

    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    until: int | None = None


def keep_tuned(con: duckdb.DuckDBPyConnection, tuned: Tuned) -> None:
    """Keep what a search found; trainings use the newest."""
    con.execute(
        f"CREATE TABLE IF NOT EXISTS {TUNED} (tuned_at TIMESTAMPTZ, parameters VARCHAR, until INTEGER)"
    )
    con.execute(f"INSERT INTO {TUNED} VALUES (now(), ?, ?)", [json.dumps(tuned.parameters), tuned.until])


def read_tuned(con: duckdb.DuckDBPyConnection) -> Tuned:
    """What was found last; nothing where nothing was."""
    if not has_table(con, TUNED):
        return Tuned()
    found = con.execute(f"SELECT parameters, until FROM {TUNED} ORDER BY tuned_at DESC LIMIT 1").fetchall()
    return Tuned(json.loads(found[0][0]), found[0][1]) if found else Tuned()
