"""Dagster's records as the doctor reads them: SQLite files as they are, or a database through the instance.

What belongs here: finding out where they are, and the rows of a query. What does not: what they mean
(records.py).

The files are read without Dagster, which would write to them as it opens them. A database is opened by
Dagster, which knows how it is reached; where it has none of its tables yet, it makes them.
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from turnover_assets.doctor import Patient
from turnover_assets.storage.sqlite_files import reading

Part = Literal["runs", "schedules"]
FILES: Mapping[Part, str] = {"runs": "history/runs.db", "schedules": "schedules/schedules.db"}


def has_records(patient: Patient, part: Part = "runs") -> bool:
    """Whether there is anything to read."""
    return _are_elsewhere(patient) or _file(patient, part).is_file()


def rows(patient: Patient, part: Part, query: str, values: Mapping[str, object] | None = None) -> list[Any]:
    """What a query finds; nothing where the file cannot be read, which is a finding of its own.

    Args:
        patient: The home.
        part: Which of the records the query is for.
        query: SQL that SQLite and Postgres know, with `:name` for each value.
        values: What is bound to it.
    """
    if _are_elsewhere(patient):
        return _from_database(patient, part, query, values or {})
    if not (path := _file(patient, part)).is_file():
        return []
    try:
        with reading(path) as connection:
            return connection.execute(query, values or {}).fetchall()
    except sqlite3.Error:
        return []


def _file(patient: Patient, part: Part) -> Path:
    return patient.settings.dagster_path / FILES[part]


def _are_elsewhere(patient: Patient) -> bool:
    """Whether the home's instance keeps its records in no SQLite file."""
    try:
        text = (patient.settings.dagster_path / "dagster.yaml").read_text("utf-8")
    except OSError:
        return False
    return not {"sqlite"} >= (yaml.safe_load(text) or {}).get("storage", {}).keys()


def _from_database(patient: Patient, part: Part, query: str, values: Mapping[str, object]) -> list[Any]:
    import sqlalchemy as sa

    from turnover_assets.observability.dagster_records import records

    with records(patient.settings) as instance:
        assert instance is not None  # its configuration has just been read
        storage: Any = instance.run_storage if part == "runs" else instance.schedule_storage
        with storage.connect() as connection:
            return list(connection.execute(sa.text(query), dict(values)).fetchall())
