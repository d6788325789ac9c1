"""Dagster in this process: the home's instance, and jobs run on it as the page's daemon would.

What belongs here: opening the instance of a home, running a job, waiting for others' runs,
and telling what goes on. What does not: what is run, and why (runner.py, maintenance.py).
"""

import logging
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from turnover_assets.errors import HomeError, TurnoverError
from turnover_assets.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

STOPS = {signal.SIGINT, signal.SIGTERM}
Progress = Callable[[str, str], None]  # what kind of news ("start", "done", "note", "wait"), and the text


def wait_for_others(settings: Settings, instance: "dg.DagsterInstance", progress: Progress) -> None:
    """Let a run that the daemon started end first: two at once would mix their tables."""
    from turnover_assets.defs.jobs import REFRESH, RETRAIN
    from turnover_assets.defs.runs import STARTED, unfinished_runs

    until, told = time.monotonic() + settings.lock_timeout_seconds, False
    while running := [r for job in (REFRESH, RETRAIN) for r in unfinished_runs(instance, job, STARTED)]:
        if time.monotonic() > until:
            raise HomeError(
                settings.home,
                f"run {running[0]} has refreshed it for more than {settings.lock_timeout_seconds:.0f} s",
                "See it with `turnover ui`, or raise TURNOVER_LOCK_TIMEOUT_SECONDS.",
            )
        if not told:
            progress("wait", f"run {running[0]} is refreshing; waiting for it to end")
            told = True
        time.sleep(1.0)


@contextmanager
def open_instance(settings: Settings) -> "Iterator[dg.DagsterInstance]":
    """The home's Dagster instance, rid of runs that were killed.

    Raises:
        HomeError: Dagster cannot write its records (no space, no permission, a damaged file).
    """
    import dagster as dg
    from sqlalchemy.exc import DBAPIError

    from turnover_assets.defs.runs import close_orphaned_runs

    try:
        with dg.DagsterInstance.from_config(str(settings.dagster_path)) as instance:
            close_orphaned_runs(instance)
            yield instance
    except DBAPIError as error:
        raise HomeError(
            settings.home.absolute(),
            f"Dagster's records in {settings.dagster_path} cannot be read or written ({error.orig})",
            "What was published stays. Make room or permit writing there, then run again.",
        ) from error


def run_job(
    settings: Settings,
    instance: "dg.DagsterInstance",
    name: str,
    tags: Mapping[str, str],
    config: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Run a job in this process.

    Raises:
        TurnoverError: A step failed; its message where it is for the user, else where to look; or runs of
            this home are not executed in processes like this one.
        KeyboardInterrupt: This process was told to stop, by SIGINT or SIGTERM.
    """
    from turnover_assets.definitions import build_definitions
    from turnover_assets.defs.alerts import after_run
    from turnover_assets.defs.runs import are_launched_elsewhere, process_tag

    if launcher := are_launched_elsewhere(instance):
        raise TurnoverError(
            f"Runs of this home are started by Dagster's daemon ({launcher}), which would take one that runs "
            "elsewhere for dead. Files in the landing folder land by themselves; anything else is a job in "
            f"Dagster's page: {name}."
        )
    job = build_definitions(settings).resolve_job_def(name)
    run_id = str(uuid4())
    if settings.log_format == "text":  # else the run's own JSON lines tell the same
        instance.add_event_listener(run_id, lambda entry: _tell(entry, progress))
    with stop_signals() as was_told_to_stop, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = job.execute_in_process(
            instance=instance,
            run_id=run_id,
            raise_on_error=False,
            tags={**tags, **process_tag()},
            run_config={**config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        is_stopped = was_told_to_stop()
    if unsent := after_run(settings, instance):
        progress("wait", unsent)
    if is_stopped:
        raise KeyboardInterrupt
    if not result.success:
        raise TurnoverError(_failure(result.all_events, run_id))


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Tells whether SIGINT or SIGTERM came meanwhile, whatever became of the error that it raised.

    DuckDB tells one as an error of its own, and Dagster forgets one that comes after the last step of a run.
    """
    if threading.current_thread() is not threading.main_thread():  # no other is told of signals
        yield lambda: False
        return
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield lambda: not STOPS.isdisjoint(_received(reading))
        finally:
            signal.set_wakeup_fd(before)


def _received(reading: socket.socket) -> bytes:
    """Numbers of the signals that came."""
    try:
        return reading.recv(4096)
    except BlockingIOError:
        return b""


def deliver_published(settings: Settings, progress: Progress) -> tuple[tuple[str, ...], str]:
    """Bring what is published to the places that the settings name, where it is not yet.

    Returns:
        The places that it was brought to, and why it could not be brought to all; a failed delivery undoes
        nothing, so it raises nothing either.
    """
    if not (settings.publish_url or settings.postgres_url):
        return (), ""
    from turnover_assets.defs.deliveries import undelivered
    from turnover_assets.defs.jobs import ATTEMPT_TAG, DELIVER
    from turnover_assets.defs.runs import attempts_made

    with open_instance(settings) as instance:
        todo = undelivered(instance, settings)
        if todo is None:
            return (), ""
        tags = {**todo.tags, ATTEMPT_TAG: str(attempts_made(instance, todo.runs) + 1)}
        try:
            run_job(settings, instance, DELIVER, tags, {}, progress)
        except TurnoverError as error:
            left = undelivered(instance, settings)
            missing = left.places if left else ()
            return tuple(place for place in todo.places if place not in missing), str(error)
        return todo.places, ""


def _tell(entry: "dg.EventLogEntry", progress: Progress) -> None:
    """Turn an event of the run into a line of progress."""
    event = entry.dagster_event
    if event is None:
        if entry.level in (logging.INFO, logging.WARNING):
            progress("note", entry.user_message)
    elif event.event_type_value == "STEP_START":
        progress("start", _readable(event.step_key))
    elif event.event_type_value == "STEP_SUCCESS":
        progress("done", _readable(event.step_key))


def _readable(step: str | None) -> str:
    return (step or "").replace("__", " / ").replace("_", " ")


def _failure(events: "Sequence[dg.DagsterEvent]", run_id: str) -> str:
    """What to tell the user: the message of an error of ours, or the error and where its details are."""
    from turnover_assets.defs.failures import is_ours, telling

    for event in events:
        if event.is_step_failure and event.step_failure_data.error:
            error = telling(event.step_failure_data.error)
            if is_ours(error):
                return error.message.partition(": ")[2].strip()
            step, details = _readable(event.step_key), f"`turnover ui` shows the details of run {run_id}."
            return f"{step} failed: {error.message.strip()}\n{details}"
    return f"The run {run_id} failed; `turnover ui` shows why."
