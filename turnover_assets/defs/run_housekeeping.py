"""Housekeeping of runs: the records and logs of old ones that nothing refers to any more.

What belongs here: which runs Dagster's own records need, and deleting the others for good. What does not:
how many are kept (core/housekeeping.py).

A run is needed while an asset, a check or the page leads to it. The newest materialisation of a partition
only needs the run's record: the landing sensor asks for a file again whose partition has none. Such a run
is emptied: its logs go, its record and its asset events stay.

Events go before the run's record, so that a process killed in between leaves a run that is found again.
"""

import json
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.compute_log_manager import ComputeLogManager
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs.schema import RunTagsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

from turnover_assets.core.housekeeping import Policy, RunFacts, Sweep, by_reason, runs_kept
from turnover_assets.storage.housekeeping import size_of

PAGE = 500
RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
BESIDE = ("", "-wal", "-shm", "-journal")  # an SQLite file and what belongs to it
JUST_NOW_SECONDS = 86_400.0  # a younger log without a run may be of one that is just being made


def sweep_runs(
    instance: dg.DagsterInstance,
    published: Collection[str],
    policy: Policy,
    now: datetime,
    *,
    remove: bool,
) -> list[Sweep]:
    """Delete old runs, empty those of which only the record is needed, and remove logs without a run.

    Args:
        instance: The Dagster instance.
        published: Runs that kept snapshots name.
        policy: How much to keep.
        now: The present moment.
        remove: Whether to do it.
    """
    facts = list(_all_runs(instance))
    needed = dict.fromkeys(published, "named by kept snapshots") | dict.fromkeys(
        _newest_of_assets(instance), "newest of an asset or check"
    )
    kept = runs_kept(facts, needed, policy, now)
    old = {run.run_id for run in facts if run.run_id not in kept}
    emptied = old & _newest_of_partitions(instance) if old else set()
    deleted = sorted(old - emptied)
    sizes = {run_id: sum(size_of(path) for path in _files_of(instance, run_id)) for run_id in old}
    emptied = {run_id for run_id in emptied if sizes[run_id]}
    for run_id in deleted if remove else ():
        _delete(instance, run_id)
    for run_id in sorted(emptied) if remove else ():
        _empty(instance, run_id)
    lost = _logs_without_run(instance, {run.run_id for run in facts}, now)
    lost_size = sum(size_of(path) for path in lost)
    for path in lost if remove else ():
        _remove_file(path)
    return [
        Sweep("runs", tuple(deleted), sum(sizes[run_id] for run_id in deleted), by_reason(kept)),
        Sweep(
            "logs of runs whose record is needed",
            tuple(sorted(emptied)),
            sum(sizes[run_id] for run_id in emptied),
        ),
        Sweep("logs without a run", tuple(path.name for path in lost), lost_size),
    ]


def _all_runs(instance: dg.DagsterInstance) -> Iterator[RunFacts]:
    cursor = None
    while records := instance.get_run_records(limit=PAGE, cursor=cursor):
        for record in records:
            run = record.dagster_run
            ended = record.end_time or record.update_timestamp.replace(tzinfo=UTC).timestamp()
            yield RunFacts(run.run_id, run.job_name, run.status.value, datetime.fromtimestamp(ended, UTC))
        cursor = records[-1].dagster_run.run_id


def _newest_of_assets(instance: dg.DagsterInstance) -> set[str]:
    """Runs that made the newest materialisation of an asset or evaluation of a check, or were to."""
    storage = instance.event_log_storage
    keys = list(instance.all_asset_keys())
    found = {record.asset_entry.last_run_id for record in instance.get_asset_records(keys)}
    found |= {event.run_id for event in storage.get_latest_materialization_events(keys).values() if event}
    newest = storage.get_latest_asset_check_execution_by_key(_checks(instance))
    return {run_id for run_id in (*found, *(record.run_id for record in newest.values())) if run_id}


def _checks(instance: dg.DagsterInstance) -> list[dg.AssetCheckKey]:
    """Every check that was ever evaluated."""
    storage, table = instance.event_log_storage, AssetCheckExecutionsTable
    if not isinstance(storage, SqlEventLogStorage):
        return []
    with storage.index_connection() as connection:
        found = connection.execute(sa.select(table.c.asset_key, table.c.check_name).distinct()).fetchall()
    return [dg.AssetCheckKey(dg.AssetKey(json.loads(key)), name) for key, name in found]


def _newest_of_partitions(instance: dg.DagsterInstance) -> set[str]:
    """Runs that made the newest materialisation of a partition."""
    found = set[str]()
    for key in instance.all_asset_keys():
        ids = instance.event_log_storage.get_latest_storage_id_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        for chosen in _pages(sorted(ids.values())):
            wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=chosen)
            found |= {record.run_id for record in instance.fetch_materializations(wanted, PAGE).records}
    return found


def _pages(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run's events, checks, logs and tags, and last its record."""
    events, runs = instance.event_log_storage, instance.run_storage
    events.delete_events(run_id)
    if isinstance(events, SqlEventLogStorage):
        with events.index_connection() as connection:
            table = AssetCheckExecutionsTable
            connection.execute(table.delete().where(table.c.run_id == run_id))
    _empty(instance, run_id)
    if isinstance(runs, SqlRunStorage):
        with runs.connect() as connection:
            connection.execute(RunTagsTable.delete().where(RunTagsTable.c.run_id == run_id))
    runs.delete_run(run_id)


def _empty(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remove the files of a run: what its steps printed, and its own log."""
    logs = instance.compute_log_manager
    if isinstance(logs, ComputeLogManager):
        logs.delete_logs(prefix=[run_id])
    for path in _files_of(instance, run_id):
        _remove_file(path)


def _files_of(instance: dg.DagsterInstance, run_id: str) -> list[Path]:
    """Files and folders that a run has to itself, where its records are in files."""
    found = []
    if isinstance(events := instance.event_log_storage, SqliteEventLogStorage):
        found += [Path(events.path_for_shard(run_id) + ending) for ending in BESIDE]
    if isinstance(logs := instance.compute_log_manager, LocalComputeLogManager):
        found.append(Path(logs.get_captured_local_path([run_id], "x")).parent / run_id)
    return [path for path in found if path.exists()]


def _remove_file(path: Path) -> None:
    if path.is_dir():
        for inner in path.iterdir():
            _remove_file(inner)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _logs_without_run(instance: dg.DagsterInstance, known: Collection[str], now: datetime) -> list[Path]:
    """Files of runs that are no more, such as those deleted in the page."""
    folders = list[Path]()
    if isinstance(events := instance.event_log_storage, SqliteEventLogStorage):
        folders.append(Path(events.path_for_shard("x")).parent)
    if isinstance(logs := instance.compute_log_manager, LocalComputeLogManager):
        folders.append(Path(logs.get_captured_local_path(["x"], "x")).parent)
    before = min(now.timestamp(), time.time()) - JUST_NOW_SECONDS
    return [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if (found := RUN_ID.match(path.name)) and found.group() not in known and path.stat().st_mtime < before
    ]
