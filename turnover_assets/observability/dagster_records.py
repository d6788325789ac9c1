"""What Dagster's instance has on record: runs, assets, ticks of sensors and schedules, heartbeats.

What belongs here: bounded queries and what they say, as readings. What does not: what is published.

Runs are counted where they are stored, by one query; Dagster's own methods would ask once for each job and
status, and read each run's whole body. That query knows the table of runs of the release that is pinned.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorState, SensorInstigatorData
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

from turnover_assets.core.operator_metrics import Reading
from turnover_assets.defs.common import LANDED
from turnover_assets.settings import Settings

COLUMNS = RunsTable.c
SUCCESS, FAILURE, QUEUED = "SUCCESS", "FAILURE", "QUEUED"
RUNNING = ("STARTING", "STARTED", "CANCELING")
STEPS_OF_RUNS = 20  # newest runs whose steps are looked up; assets made longer ago have no duration


@contextmanager
def records(settings: Settings) -> Iterator[dg.DagsterInstance | None]:
    """The home's Dagster instance as it is; None where there is none yet, and none is made."""
    if not (settings.dagster_path / "dagster.yaml").is_file():
        yield None
        return
    with dg.DagsterInstance.from_config(str(settings.dagster_path)) as instance:
        yield instance


def run_readings(instance: dg.DagsterInstance) -> Iterator[Reading]:
    """Runs by job and status, when each job last succeeded and failed, how long it took, and the queue."""
    storage = instance.run_storage
    if not isinstance(storage, SqlRunStorage):
        raise TypeError(f"runs are stored in a way that is not known: {type(storage).__name__}")
    groups = storage.fetchall(
        sa.select(
            COLUMNS.pipeline_name.label("job"),
            COLUMNS.status,
            sa.func.count().label("runs"),
            sa.func.max(COLUMNS.id).label("newest"),
            sa.func.max(COLUMNS.end_time).label("ended"),
        ).group_by(COLUMNS.pipeline_name, COLUMNS.status)
    )
    for row in groups:
        yield Reading("turnover_runs", float(row["runs"]), (row["job"], row["status"].lower()))
    yield from _queue_readings(storage, groups)
    for job in sorted({row["job"] for row in groups}):
        yield from _job_readings(storage, job, {row["status"]: row for row in groups if row["job"] == job})


def _queue_readings(storage: SqlRunStorage, groups: Sequence[Any]) -> Iterator[Reading]:
    """How many runs wait and work, and since when the oldest of them does."""
    for name, statuses in (("queued", [QUEUED]), ("running", RUNNING)):
        count = sum(row["runs"] for row in groups if row["status"] in statuses)
        yield Reading(f"turnover_{name}_runs", float(count))
    oldest = storage.fetchall(
        sa.select(
            COLUMNS.status,
            sa.func.min(COLUMNS.create_timestamp).label("made"),
            sa.func.min(COLUMNS.start_time).label("began"),
        )
        .where(COLUMNS.status.in_([QUEUED, *RUNNING]))
        .group_by(COLUMNS.status)
    )
    waiting = [row["made"].replace(tzinfo=UTC).timestamp() for row in oldest if row["status"] == QUEUED]
    working = [row["began"] for row in oldest if row["status"] != QUEUED and row["began"] is not None]
    for name, since in (("queued", waiting), ("running", working)):
        if since:
            yield Reading(f"turnover_oldest_{name}_run_timestamp_seconds", min(since))


def _job_readings(storage: SqlRunStorage, job: str, by_status: Mapping[str, Any]) -> Iterator[Reading]:
    """The past of one job."""
    for status, name in ((SUCCESS, "success"), (FAILURE, "failure")):
        if status in by_status and by_status[status]["ended"] is not None:
            yield Reading(f"turnover_last_{name}_timestamp_seconds", by_status[status]["ended"], (job,))
    of_job, last_success = COLUMNS.pipeline_name == job, by_status.get(SUCCESS, {"newest": 0})["newest"]
    failed = storage.fetchall(
        sa.select(sa.func.count().label("runs")).where(
            of_job, COLUMNS.status == FAILURE, COLUMNS.id > last_success
        )
    )
    yield Reading("turnover_failed_runs_since_success", float(failed[0]["runs"]), (job,))
    ended = storage.fetchall(
        sa.select(COLUMNS.start_time, COLUMNS.end_time)
        .where(of_job, COLUMNS.start_time.is_not(None), COLUMNS.end_time.is_not(None))
        .order_by(COLUMNS.id.desc())
        .limit(1)
    )
    for row in ended:
        yield Reading("turnover_run_duration_seconds", row["end_time"] - row["start_time"], (job,))


def asset_readings(instance: dg.DagsterInstance) -> Iterator[Reading]:
    """When each asset was last made, and how long its step took; when files last landed."""
    made: dict[str, tuple[str, str | None, float]] = {}
    for record in instance.get_asset_records():
        entry = record.asset_entry.last_materialization
        if entry is not None:
            name = record.asset_entry.asset_key.to_user_string()
            made[name] = (entry.run_id, entry.step_key, entry.timestamp)
    seconds = _step_seconds(instance, made)
    for name, (run, step, at) in sorted(made.items()):
        yield Reading("turnover_asset_timestamp_seconds", at, (name,))
        if (run, step) in seconds:
            yield Reading("turnover_asset_duration_seconds", seconds[run, step], (name,))
    if (landed := LANDED.to_user_string()) in made:
        yield Reading("turnover_data_landed_timestamp_seconds", made[landed][2])


def _step_seconds(
    instance: dg.DagsterInstance, made: Mapping[str, tuple[str, str | None, float]]
) -> dict[tuple[str, str | None], float]:
    """Durations of the steps that made assets, by run and step, of the newest runs only."""
    newest: dict[str, float] = {}
    for run, _, at in made.values():
        newest[run] = max(at, newest.get(run, 0.0))
    seconds: dict[tuple[str, str | None], float] = {}
    for run in sorted(newest, key=newest.__getitem__, reverse=True)[:STEPS_OF_RUNS]:
        for found in instance.get_run_step_stats(run):
            if found.start_time is not None and found.end_time is not None:
                seconds[run, found.step_key] = found.end_time - found.start_time
    return seconds


def automation_readings(instance: dg.DagsterInstance) -> Iterator[Reading]:
    """When sensors, schedules and the daemon's parts last gave a sign of life."""
    for state in instance.all_instigator_state():
        if state.instigator_type == InstigatorType.SENSOR:
            yield from _sensor_reading(state)
        elif state.instigator_type == InstigatorType.SCHEDULE:
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1):
                name = "turnover_schedule_last_tick_timestamp_seconds"
                yield Reading(name, tick.timestamp, (state.instigator_name,))
    for daemon, heartbeat in sorted(instance.get_daemon_heartbeats().items()):
        name = "turnover_daemon_heartbeat_timestamp_seconds"
        yield Reading(name, float(heartbeat.timestamp), (daemon.lower(),))


def _sensor_reading(state: InstigatorState) -> Iterator[Reading]:
    data = state.instigator_data
    if isinstance(data, SensorInstigatorData) and data.last_tick_timestamp is not None:
        name = "turnover_sensor_last_tick_timestamp_seconds"
        yield Reading(name, data.last_tick_timestamp, (state.instigator_name,))
