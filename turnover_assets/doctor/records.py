"""Checks of Dagster's records: the daemon, sensors, failed runs, and runs whose process is gone.

What belongs here: what the records say. What does not: where they are read from (dagster_store.py), and the
files they are in (home.py).
"""

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil

from turnover_assets.doctor import Patient, Told, check
from turnover_assets.doctor.dagster_store import has_records, rows

SILENT = timedelta(minutes=5)  # a daemon that is alive has given a sign within
PROCESS_TAG = "turnover/process"
UNENDED = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
LONG_WAIT = timedelta(hours=6)


@check("daemon")
def daemon(patient: Patient) -> Iterator[Told]:
    """Something makes sensors and schedules come due."""
    if not has_records(patient):
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
    found = rows(patient, "runs", "SELECT max(timestamp) FROM daemon_heartbeats")
    return _moment(found[0][0]) if found and found[0][0] is not None else None


@check("sensors and schedules")
def sensors(patient: Patient) -> Iterator[Told]:
    """No sensor or schedule was switched off."""
    if not has_records(patient, "schedules"):
        return
    found = rows(patient, "schedules", "SELECT instigator_body FROM instigators WHERE status = 'STOPPED'")
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
    if not has_records(patient):
        return
    newest = rows(
        patient,
        "runs",
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
    dead = _orphaned(patient)
    if dead:
        remedy = "The next run or sensor marks them as failed and goes on; start one."
        yield "warning", f"started, but their process is gone: {', '.join(dead)}", remedy
    waiting = [run for run in _unended(patient) if run not in dead]
    if waiting:
        remedy = "See them in the page under Runs; see docs/operations.md, «A run hangs»."
        yield "warning", f"not ended for {LONG_WAIT.seconds // 3600} hours: {', '.join(waiting)}", remedy
    if not (failed or dead or waiting):
        yield "ok", f"{', '.join(job for job, *_ in newest) or 'none yet'}: no failure, none left behind"


def _orphaned(patient: Patient) -> list[str]:
    """Runs that a `turnover` process of this host had started and that is gone."""
    tagged = rows(
        patient,
        "runs",
        "SELECT r.run_id, t.value FROM runs AS r JOIN run_tags AS t ON t.run_id = r.run_id AND t.key = :tag "
        "WHERE r.status IN ('STARTED', 'CANCELING')",
        {"tag": PROCESS_TAG},
    )
    found = []
    for run_id, value in tagged:
        host, _, process = str(value).partition(":")
        if host == socket.gethostname() and process.isdigit() and not psutil.pid_exists(int(process)):
            found.append(run_id[:8])
    return found


def _unended(patient: Patient) -> list[str]:
    """Runs that have not ended and were made long ago."""
    statuses = {f"status_{number}": status for number, status in enumerate(UNENDED)}
    marks = ", ".join(f":{name}" for name in statuses)
    query = f"SELECT run_id, create_timestamp FROM runs WHERE status IN ({marks})"
    found = rows(patient, "runs", query, statuses)
    return [run_id[:8] for run_id, made in found if patient.now - _moment(made) > LONG_WAIT]


def _moment(value: Any) -> datetime:
    """A moment as SQLite gives it: seconds, or a text in UTC."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    return datetime.fromisoformat(str(value)).replace(tzinfo=UTC)
