"""Runs: which are under way, and closing those whose process is gone.

What belongs here: questions about runs that sensors and the command line both ask. What does not: starting
them.

Dagster watches the processes of its own run launcher only while the server that started them lives. A run
whose process was killed together with it, or one started by `turnover run`, would stay «started» for ever,
keep its pool slot, and make everything wait for it.
"""

import os
import socket
from collections.abc import Iterable

import dagster as dg
import psutil
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher

from turnover_assets.defs.jobs import ATTEMPT_TAG, PROCESS_TAG

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
STARTED = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def process_tag() -> dict[str, str]:
    """The tag that names this host and process."""
    return {PROCESS_TAG: f"{socket.gethostname()}:{os.getpid()}"}


def unfinished_runs(
    instance: dg.DagsterInstance, job: str, statuses: Iterable[dg.DagsterRunStatus] = UNFINISHED
) -> list[str]:
    """Ids of the runs of a job that have not ended, newest first; orphaned ones are closed before."""
    close_orphaned_runs(instance)
    runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=list(statuses)), limit=5)
    return [run.run_id for run in runs]


def attempts_made(instance: dg.DagsterInstance, made_for_it: dg.RunsFilter) -> int:
    """The number that no attempt for a cause has exceeded, also where its first runs were deleted since."""
    runs = instance.get_runs(made_for_it)
    return max([len(runs), *(int(run.tags.get(ATTEMPT_TAG, 0)) for run in runs)])


def are_launched_elsewhere(instance: dg.DagsterInstance) -> str:
    """Name of the launcher that gives each run a container or the like; empty where runs are processes here.

    Its monitoring would fail a run that this process executes, since it knows no container of it.
    """
    launcher = instance.run_launcher
    here = isinstance(launcher, DefaultRunLauncher) or not launcher.supports_check_run_worker_health
    return "" if here else type(launcher).__name__


def close_orphaned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs whose process is gone as failed and free their pool slots; returns their ids."""
    orphaned = [
        run for run in instance.get_runs(dg.RunsFilter(statuses=STARTED)) if _is_orphaned(instance, run)
    ]
    for run in orphaned:
        instance.report_run_failed(run, "The process that ran this was ended before it could finish.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in orphaned]


def _is_orphaned(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the run's process was on this host and is gone; in doubt it is not."""
    host, _, tagged = run.tags.get(PROCESS_TAG, "").partition(":")
    if host:
        return host == socket.gethostname() and not psutil.pid_exists(int(tagged))
    if not isinstance(instance.run_launcher, DefaultRunLauncher):
        return False  # it may run on any host; its launcher's own monitoring knows
    process = _process_of(instance, run.run_id)
    return process is not None and not psutil.pid_exists(process)


def _process_of(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """The process that wrote the run's newest step event."""
    for entry in reversed(instance.all_logs(run_id)):
        if entry.dagster_event is not None and entry.dagster_event.pid is not None:
            return int(entry.dagster_event.pid)
    return None
