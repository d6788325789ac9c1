"""Checks of Dagster's records: the daemon, sensors, failed runs, and runs whose process is gone.

What belongs here: reading the records. What does not: the files they are in (home.py). They are read from
SQLite as they are, without Dagster, which would write to them as it opens them; where Dagster keeps its
records elsewhere, these checks find nothing.
"""

import json
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from turnover_assets.doctor import Patient, Told, check
from turnover_assets.storage.sqlite_files import reading

SILENT = timedelta(minutes=5)  # a daemon that is alive has given a sign within
PROCESS_TAG = "turnover/process"
UNENDED = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
LONG_WAIT = timedelta(hours=6)


@check("daemon")
def daemon(patient: Patient) -> Iterator[Told]:
    """Something makes sensors and schedules come due."""
    if not _runs_db(patient).is_file():
        return
    beat = newest_heartbeat(patient)
    remedy = "Start `turnover ui` where files are to land by themselves; without it, use `turnover run`."
    if beat is None:
        yield "ok", "the daemon has never run in this home", remedy
    elif patient.now - beat > SILENT:
        yield "warning", f"the daemon gave its last sign at {beat:%Y-%m-%d %H:%M} UTC", remedy
    elif beat - patient.now > SILENT:
        yield "problem", f"the daemon's last sign is in the future ({beat})", "Set this system's clock."
    else:
        yield "ok", "the daemon is alive"


def newest_heartbeat(patient: Patient) -> datetime | None:
    """When the daemon last gave a sign; None where it never did."""
    rows = _rows(_runs_db(patient), "SELECT max(timestamp) FROM daemon_heartbeats")
    return _moment(rows[0][0]) if rows and rows[0][0] is not None else None


@check("sensors and schedules")
def sensors(patient: Patient) -> Iterator[Told]:
    """No sensor or schedule was switched off."""
    path = patient.settings.dagster_path / "schedules" / "schedules.db"
    if not path.is_file():
        return
    found = _rows(path, "SELECT instigator_body FROM instigators WHERE status = 'STOPPED'")
    stopped = sorted(_name_of(json.loads(body)) for (body,) in found)
    if stopped:
        remedy = "Switch them on in the page under Automation, if they were not stopped on purpose."
        yield "warning", f"switched off: {', '.join(stopped)}", remedy
    else:
        yield "ok", "none is switched off"


def _name_of(body: Any) -> str:
    origin = body.get("origin") or {}
    return str(origin.get("instigator_name") or origin.get("job_name") or "?")


@check("runs")
def runs(patient: Patient) -> Iterator[Told]:
    """The newest run of each job did not fail, and none is left behind: its process gone, or never ending."""
    path = _runs_db(patient)
    if not path.is_file():
        return
    newest = _rows(
        path,
        "SELECT pipeline_name, status, run_id FROM runs WHERE id IN "
        "(SELECT max(id) FROM runs GROUP BY pipeline_name) ORDER BY pipeline_name",
    )
    failed = [f"{job} ({run_id[:8]})" for job, status, run_id in newest if status == "FAILURE"]
    if failed:
        yield (
            "warning",
            f"failed last: {', '.join(failed)}",
            "`turnover ui` shows why under Runs; mend the cause, then `turnover run`.",
        )
    dead = _orphaned(path)
    if dead:
        remedy = "The next run or sensor marks them as failed and goes on; start one."
        yield "warning", f"started, but their process is gone: {', '.join(dead)}", remedy
    waiting = [run for run in _unended(patient, path) if run not in dead]
    if waiting:
        remedy = "See them in the page under Runs; see docs/operations.md, «A run hangs»."
        yield "warning", f"not ended for {LONG_WAIT.seconds // 3600} hours: {', '.join(waiting)}", remedy
    if not (failed or dead or waiting):
        yield "ok", f"{', '.join(job for job, *_ in newest) or 'none yet'}: no failure, none left behind"


def _orphaned(path: Path) -> list[str]:
    """Runs that a `turnover` process of this host had started and that is gone."""
    tagged = _rows(
        path,
        "SELECT r.run_id, t.value FROM runs AS r JOIN run_tags AS t ON t.run_id = r.run_id AND t.key = ? "
        "WHERE r.status IN ('STARTED', 'CANCELING')",
        [PROCESS_TAG],
    )
    found = []
    for run_id, value in tagged:
        host, _, process = str(value).partition(":")
        if host == socket.gethostname() and process.isdigit() and not psutil.pid_exists(int(process)):
            found.append(run_id[:8])
    return found


def _unended(patient: Patient, path: Path) -> list[str]:
    """Runs that have not ended and were made long ago."""
    marks = ", ".join("?" * len(UNENDED))
    found = _rows(path, f"SELECT run_id, create_timestamp FROM runs WHERE status IN ({marks})", UNENDED)
    return [run_id[:8] for run_id, made in found if patient.now - _moment(made) > LONG_WAIT]


def _runs_db(patient: Patient) -> Path:
    return patient.settings.dagster_path / "history" / "runs.db"


def _rows(path: Path, query: str, values: Sequence[str] = ()) -> list[Any]:
    """What a query finds; nothing where the file cannot be read, which is a finding of its own."""
    if not path.is_file():
        return []
    try:
        with reading(path) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.Error:
        return []


def _moment(value: Any) -> datetime:
    """A moment as SQLite gives it: seconds, or a text in UTC."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    return datetime.fromisoformat(str(value)).replace(tzinfo=UTC)
