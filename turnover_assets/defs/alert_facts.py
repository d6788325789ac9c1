"""What happened, as the rules on events look at it: from Dagster's records alone, so that nobody waits.

What belongs here: reading runs, files, checks and times from the instance, each bounded. What does not:
judging them (core/alerts/events.py).
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from turnover_assets.core.alerts.events import CheckState, FileFate, RunEnd
from turnover_assets.defs import common, jobs
from turnover_assets.defs.failures import telling
from turnover_assets.defs.partitions import name_of

RUNS = 100  # looked at, the newest
RUN_DAYS = 30
FILES = 100
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
NO_ERROR = "it ended without saying why; turnover ui shows its log"


def run_ends(instance: dg.DagsterInstance, now: datetime) -> list[RunEnd]:
    """How the newest runs of all jobs ended, newest first, whoever started them."""
    chosen = dg.RunsFilter(statuses=ENDED, created_after=now - timedelta(days=RUN_DAYS))
    records = instance.get_run_records(chosen, limit=RUNS)
    landed = _landed(instance, [record.dagster_run for record in records])
    ends = [
        RunEnd(
            run.run_id,
            run.job_name,
            _cause(run.tags),
            datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), UTC),
            run.status == dg.DagsterRunStatus.SUCCESS,
            _attempt(run.tags),
            bool(parts := _partitions(run.tags)) and landed >= set(parts),
        )
        for record in records
        for run in [record.dagster_run]
    ]
    return sorted(ends, key=lambda end: end.ended_at, reverse=True)


def _landed(instance: dg.DagsterInstance, runs: Iterable[dg.DagsterRun]) -> set[str]:
    """The files that have landed; not asked for where no landing failed."""
    failed = [
        run for run in runs if run.job_name == jobs.INGEST and run.status == dg.DagsterRunStatus.FAILURE
    ]
    return instance.get_materialized_partitions(common.LANDED) if failed else set()


def _partitions(tags: Mapping[str, str]) -> list[str]:
    """First and last partition of a run, or its only one."""
    names = (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG, PARTITION_NAME_TAG)
    return list(dict.fromkeys(tags[name] for name in names if name in tags))


def _cause(tags: Mapping[str, str]) -> str:
    if parts := _partitions(tags):
        return " to ".join(parts)
    return ", ".join(tags[name] for name in (jobs.CAUSE_TAG, jobs.TRAINING_TAG) if name in tags)


def _attempt(tags: Mapping[str, str]) -> int | None:
    number = tags.get(jobs.ATTEMPT_TAG, "")
    return int(number) if number.isdecimal() else None


def error_of(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed: the error of its first failed step, or the run's own.

    Of a chain of errors the one that was written for people counts, else the innermost.
    """
    failures = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    events = [entry.dagster_event for entry in instance.all_logs(run_id, of_type=failures)]
    for event in events:
        if event is not None and event.is_step_failure and event.step_failure_data.error:
            error = telling(event.step_failure_data.error)
            step = (event.step_key or "").replace("__", "/")
            return f"{step}: {_without_class(error.message)}"
    messages = [event.message for event in events if event is not None and event.message]
    return messages[0] if messages else NO_ERROR


def _without_class(message: str) -> str:
    """An error's message without the name of our own exceptions before it."""
    name, separator, rest = message.partition(": ")
    return rest if separator and name.startswith("turnover_assets.errors.") else message


def file_fates(instance: dg.DagsterInstance, folder: Path) -> list[FileFate]:
    """What became of the newest files, newest first.

    Args:
        instance: The instance.
        folder: The landing folder, for runs that name no other.
    """
    records = instance.fetch_materializations(common.LANDED, limit=FILES).records
    return [
        FileFate(name_of(key), key, refused, not refused or _is_there(instance, record.run_id, folder, key))
        for record in records
        if (key := record.partition_key) and (event := record.asset_materialization)
        for facts in [{name: value.value for name, value in event.metadata.items()}]
        if "status" in facts
        for refused in [str(facts.get("reason") or "no reason is on record") * (facts["status"] == "refused")]
    ]


def _is_there(instance: dg.DagsterInstance, run_id: str, folder: Path, key: str) -> bool:
    """Whether the file still lies in the folder that its run looked into."""
    run = instance.get_run_by_id(run_id)
    config: Any = run.run_config if run else {}
    for name in ("ops", common.LANDED.to_python_identifier(), "config", "folder"):
        config = config.get(name, {}) if isinstance(config, Mapping) else {}
    return (Path(config or folder) / name_of(key)).exists()


def check_states(instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey]) -> list[CheckState]:
    """How checks last ended; those that never did are left out."""
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    states = []
    for key, record in found.items():
        event = record.event.dagster_event if record.event else None
        if record.status == AssetCheckExecutionRecordStatus.PLANNED or event is None:
            continue
        states.append(
            CheckState(
                f"{key.asset_key.to_user_string()} {key.name}",
                record.status == AssetCheckExecutionRecordStatus.SUCCEEDED,
                event.asset_check_evaluation_data.description or "",
                record.run_id,
            )
        )
    return states
