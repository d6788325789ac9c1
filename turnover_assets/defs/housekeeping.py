"""Housekeeping: the asset that removes what nothing needs any more, and its schedule.

What belongs here: putting the parts together under the lock of whole runs, and the account. What does not:
what is kept (core/housekeeping.py), and removing it (storage, run_housekeeping.py).
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from turnover_assets.core.housekeeping import Policy, Sweep
from turnover_assets.defs import common, jobs
from turnover_assets.defs.decisions import recorded_schedule
from turnover_assets.defs.run_housekeeping import sweep_runs
from turnover_assets.defs.runs import close_orphaned_runs, unfinished_runs
from turnover_assets.errors import NoSnapshotError
from turnover_assets.settings import Settings
from turnover_assets.storage import audit, housekeeping
from turnover_assets.storage.comparison import snapshot_names
from turnover_assets.storage.home import run_lock
from turnover_assets.storage.model_housekeeping import ModelStore, sweep_models
from turnover_assets.storage.registry_peek import champion_of
from turnover_assets.storage.snapshots import read_snapshot
from turnover_assets.storage.warehouse import Warehouse

CODE_VERSION = "1"
SCHEDULE = "housekeeping_schedule"
WORKING = (jobs.INGEST, jobs.REFRESH, jobs.RETRAIN, jobs.TUNE, jobs.BACKFILL, jobs.EVIDENTLY)


def policy(settings: Settings) -> Policy:
    """How much the settings keep."""
    return Policy(
        run_days=settings.keep_run_days,
        attempts=settings.sensor_attempts,
        models=settings.keep_models,
        shadow_cutoffs=settings.keep_shadow_cutoffs,
        pages=settings.keep_reports,
        snapshots=settings.keep_snapshots,
    )


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset of the account. It belongs to no pool: it may wait for a run, which needs the pool."""

    @dg.asset(
        key=common.HOUSEKEEPING,
        group_name="monitoring",
        description="What was removed because nothing needs it any more, what was kept, and why.",
        owners=[common.ENGINEERS],
        kinds={"duckdb", "mlflow", "sqlite"},
        code_version=CODE_VERSION,
    )
    def account(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        with run_lock(settings, lambda: context.log.info("A run is under way; waiting for it to end.")):
            sweeps = list(sweep_all(settings, context.instance, datetime.now(UTC), remove=True))
        for sweep in sweeps:
            if sweep.removed or sweep.note:
                context.log.info(_sentence(sweep))
        return dg.MaterializeResult(metadata=_metadata(sweeps))

    return [account]


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedule, switched on.

    Raises:
        TurnoverError: The schedule in the settings is none.
    """
    return [
        recorded_schedule(
            settings,
            SCHEDULE,
            "housekeeping_schedule",
            jobs.HOUSEKEEP,
            "Removes old records, logs, models and leftovers once a day.",
            lambda context: look(context.instance),
        )
    ]


def look(instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    """Whether to keep house now: not while a run is under way, which may be using what is old."""
    for job in (*WORKING, jobs.HOUSEKEEP):
        if running := unfinished_runs(instance, job):
            return dg.SkipReason(
                f"The {job} run {running[0]} is under way; housekeeping waits until tomorrow."
            )
    return dg.RunRequest(tags={jobs.REASON_TAG: "The daily look at what nothing needs any more."})


def sweep_all(
    settings: Settings,
    instance: dg.DagsterInstance,
    now: datetime,
    *,
    remove: bool,
) -> Iterator[Sweep]:
    """Housekeeping, part by part; each looks at what the parts before it have left.

    Args:
        settings: The settings; the caller has the lock of whole runs where something is removed.
        instance: The home's Dagster instance.
        now: The present moment.
        remove: Whether to remove anything; without it the parts tell what they would.
    """
    limits, home = policy(settings), settings.home.absolute()
    warehouse = Warehouse.of(settings)
    close_orphaned_runs(instance)
    champion = champion_of(settings.mlflow_path, settings.panel_spec.name, settings.mlflow_database)
    yield (
        snapshots := housekeeping.sweep_snapshots(settings.published_path, limits.snapshots, remove=remove)
    )
    runs, versions = named_by_snapshots(settings.published_path, snapshots.removed)
    yield housekeeping.sweep_shadows(warehouse, limits.shadow_cutoffs, champion, remove=remove)
    named = versions | housekeeping.forecast_with(warehouse)
    store = ModelStore(settings.mlflow_path, settings.panel_spec.name, settings.mlflow_database)
    yield from sweep_models(store, named, limits, now, remove=remove)
    yield from sweep_runs(instance, runs, limits, now, remove=remove)
    pages = settings.monitoring_pages_path
    for folder in (pages, settings.evidently_pages_path):
        yield housekeeping.sweep_pages(folder, limits.pages, remove=remove)
    gone = {*snapshots.removed} if not remove else set[str]()
    kept = [name for name in snapshot_names(settings.published_path) if name not in gone]
    yield housekeeping.sweep_workbooks(settings.workbooks_path, kept, remove=remove)
    guarded, others = [settings.published_path, home / "raw"], [*(home / "raw").glob("*/"), home]
    others += [home / "alerts", pages, *audit.days(settings.audit_path)]
    yield housekeeping.sweep_leftovers(guarded, others, remove=remove)
    yield audit.sweep_audit(settings.audit_path, settings.keep_audit_days, now, remove=remove)
    yield housekeeping.sweep_overflow(warehouse, remove=remove)
    yield housekeeping.list_set_aside(home)
    yield _compact(settings, instance, remove=remove)


def named_by_snapshots(published: Path, gone: Collection[str] = ()) -> tuple[set[str], set[int]]:
    """The Dagster runs and the model versions that snapshots name, without those that are to go."""
    runs, versions = set[str](), set[int]()
    for name in snapshot_names(published):
        with suppress(NoSnapshotError):  # another process has just removed it
            facts = read_snapshot(published, name).facts if name not in gone else {}
            runs |= {str(facts[fact]) for fact in ("dagster_run_id",) if fact in facts}
            versions |= {int(facts["model"]["version"])} if "model" in facts else set()
    return runs, versions


def _compact(settings: Settings, instance: dg.DagsterInstance, *, remove: bool) -> Sweep:
    """Give back the room inside databases, unless a run is writing to them."""
    if remove and (running := [run for job in WORKING for run in unfinished_runs(instance, job)]):
        return Sweep("free room in databases", note=f"left for the next time: run {running[0]} is under way")
    dagster = settings.dagster_path
    paths = [
        dagster / "history" / "runs" / "index.db",
        dagster / "history" / "runs.db",
        dagster / "schedules" / "schedules.db",
        settings.mlflow_path / "mlflow.db",
    ]
    return housekeeping.compact(paths, remove=remove)


def _sentence(sweep: Sweep) -> str:
    removed = f"removed {len(sweep.removed):,} ({sweep.names()})" if sweep.removed else "removed none"
    return f"{sweep.part}: {removed}" + (f"; {sweep.note}" if sweep.note else "")


def _metadata(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """What the asset shows: totals, which the page draws over time, and the account."""
    parts = [sweep.as_dict() for sweep in sweeps]
    return {
        "removed": sum(len(sweep.removed) for sweep in sweeps),
        "bytes_freed": sum(sweep.freed for sweep in sweeps),
        "account": common.preview(pd.DataFrame(parts)),
        "parts": dg.MetadataValue.json(parts),
    }
