"""What `turnover run` does: bring everything up to date, through the same Dagster jobs as the UI.

What belongs here: finding what is new, running jobs in this process on the home's Dagster instance, and
the account of what happened. What does not: the work itself (defs, storage, core) and printing (cli).
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from turnover_assets import __version__, errors
from turnover_assets.core.retraining import Verdict, last_verdict
from turnover_assets.errors import HomeError, NothingToForecastError, TurnoverError
from turnover_assets.settings import Settings
from turnover_assets.storage import manifest
from turnover_assets.storage.champion_peek import champion_of
from turnover_assets.storage.home import prepare_home, run_lock
from turnover_assets.storage.home_panel import check_panel
from turnover_assets.storage.landing import mend_kept, unseen
from turnover_assets.storage.landing_folder import LandedFile, scan
from turnover_assets.storage.ledger import NO_LEDGER, ledger_version
from turnover_assets.storage.manifest import FileRecord, landed_version
from turnover_assets.storage.snapshots import Snapshot, find_current
from turnover_assets.storage.warehouse import Warehouse

if TYPE_CHECKING:
    import dagster as dg

    from turnover_assets.defs.alerts import Report
    from turnover_assets.storage.backup import BackedUp, Restored
    from turnover_assets.storage.rebuild import Rebuilt

Progress = Callable[[str, str], None]  # what kind of news ("start", "done", "note", "wait"), and the text


@dataclass(frozen=True)
class Outcome:
    """What a run changed.

    Attributes:
        landed: Records of the files that were new in this run, in the order they landed.
        duplicates: Names of files whose content had landed before under any name.
        refused_before: Records of files still in the folder that an earlier run refused.
        refreshed: Whether new forecasts were published.
        snapshot: The current snapshot, None where nothing has ever been published.
        training: Why a model was trained in this run, or why not; empty where that was not asked.
        unfed: Tables of the panel of which no file has landed.
    """

    landed: tuple[FileRecord, ...]
    duplicates: tuple[str, ...]
    refused_before: tuple[FileRecord, ...]
    refreshed: bool
    snapshot: Snapshot | None
    training: str = ""
    unfed: tuple[str, ...] = ()

    @property
    def accepted(self) -> list[FileRecord]:
        """New files that were accepted."""
        return [record for record in self.landed if record.status == "accepted"]

    @property
    def refused(self) -> list[FileRecord]:
        """New files that were refused."""
        return [record for record in self.landed if record.status == "refused"]

    @property
    def changed(self) -> bool:
        """Whether the run did anything at all."""
        return bool(self.landed) or self.refreshed


@dataclass(frozen=True)
class Cutoffs:
    """Which past cutoffs are meant: those named, or all from one to another, both included."""

    named: tuple[date, ...] = ()
    since: date | None = None
    until: date | None = None

    def choose(self, possible: Sequence[str]) -> list[str]:
        """Those meant among the possible ones (dates in ISO form, oldest first).

        Raises:
            TurnoverError: One that is named is not possible, or none is meant.
        """
        if not possible:
            raise TurnoverError("No past cutoff can be forecast yet. Run `turnover run` first.")
        span = f"they go from {possible[0]} to {possible[-1]}, one a period"
        if foreign := [str(day) for day in self.named if str(day) not in possible]:
            raise TurnoverError(f"No cutoff that can be forecast: {', '.join(foreign)}; {span}.")
        since, until = str(self.since or date.min), str(self.until or date.max)
        by_range = possible if self.since or self.until else ()
        chosen = {*map(str, self.named), *(day for day in by_range if since <= day <= until)}
        if not chosen:
            raise TurnoverError(f"No cutoff is meant; {span}. Name some by --cutoff, or --since and --until.")
        return sorted(chosen)


def bring_up_to_date(
    settings: Settings, folder: Path, progress: Progress, *, retrain: bool = False
) -> Outcome:
    """Land what is new in a folder, refresh what is stale, publish, and train where the policy asks for it.

    Args:
        settings: The settings.
        folder: The landing folder to look into.
        progress: Told what begins and what is done.
        retrain: Train whatever the policy says.

    Raises:
        TurnoverError: Something the user can mend; what had landed and was published is as before.
    """
    prepare_home(settings)
    panel, folder = settings.panel_spec, folder.absolute()
    warehouse = _warehouse(settings)
    with run_lock(settings, lambda: progress("wait", "another run is under way; waiting for it to end")):
        found = scan(folder, settings.fingerprints_path)
        check_panel(settings, lambda: found)
        before = _manifest(settings, warehouse)
        if late := mend_kept(warehouse, panel, found):
            progress("note", f"keeping {len(late)} file{'s' if len(late) > 1 else ''} that landed earlier")
        new = unseen(found, before)
        if new:
            _ingest(settings, folder, new, progress)
        records = _manifest(settings, warehouse) if new else before
        refreshed, training = False, ""
        if any(record.table == panel.series.name for record in records):
            refreshed, training = _refresh(settings, warehouse, progress, retrain=retrain)
        elif not find_current(settings.published_path):
            raise NothingToForecastError(_nothing_usable(settings, folder, found, records))
        digests, here = {file.digest for file in new}, {file.digest for file in found}
        return Outcome(
            landed=tuple(record for record in records if record.digest in digests),
            duplicates=tuple(_duplicates(found, records)),
            refused_before=tuple(r for r in before if r.status == "refused" and r.digest in here),
            refreshed=refreshed,
            snapshot=find_current(settings.published_path),
            training=training,
            unfed=tuple(name for name in panel.tables if name not in {record.table for record in records}),
        )


def rebuild_warehouse(
    settings: Settings, progress: Progress, *, check: bool = False, allow_missing: bool = False
) -> "Rebuilt":
    """Build the warehouse again from the kept files, while no run is under way; see storage.rebuild.

    Raises:
        TurnoverError: Something the user can mend; the warehouse is as before.
    """
    from turnover_assets.defs.cleaned import clean_everything
    from turnover_assets.storage.ledger import read_ledger
    from turnover_assets.storage.rebuild import rebuild

    prepare_home(settings)
    panel = settings.panel_spec
    ledger = read_ledger(settings.ledger_path, panel)
    with run_lock(settings, lambda: progress("wait", "a run is under way; waiting for it to end")):
        with _instance(settings) as instance:
            _wait_for_others(settings, instance, progress)
        check_panel(settings)
        return rebuild(
            _warehouse(settings),
            panel,
            settings.published_path,
            lambda con: clean_everything(con, settings, ledger),
            check=check,
            allow_missing=allow_missing,
        )


def keep_house(settings: Settings, progress: Progress, *, dry: bool = False) -> Sequence[Mapping[str, Any]]:
    """Remove what nothing needs any more, as the daily job does, or tell what it would remove.

    Args:
        settings: The settings.
        progress: Told what is waited for, and what begins.
        dry: Only tell.

    Returns:
        For each part: `part`, `removed` (how many), `bytes`, `which`, `kept`, `note`.

    Raises:
        TurnoverError: Something the user can mend.
    """
    from turnover_assets.defs import common, housekeeping, jobs

    prepare_home(settings)
    with _instance(settings) as instance:
        if not dry:
            _wait_for_others(settings, instance, progress)
            _run_job(settings, instance, jobs.HOUSEKEEP, {}, {}, progress)  # which waits for the run lock
            found: Sequence[Mapping[str, Any]] = common.latest_metadata(instance, common.HOUSEKEEPING)[
                "parts"
            ]
            return found
        with run_lock(settings, lambda: progress("wait", "a run is under way; waiting for it to end")):
            sweeps = housekeeping.sweep_all(settings, instance, datetime.now(UTC), remove=False)
            return [sweep.as_dict() for sweep in sweeps]


def back_up(
    settings: Settings, output: Path, progress: Progress, *, with_warehouse: bool = True
) -> "BackedUp":
    """Write the home into an archive, while no run is under way; see storage.backup.

    Raises:
        TurnoverError: Something the user can mend; nothing is left of the archive.
    """
    from turnover_assets.storage.backup import codec_of, write_backup

    codec_of(output)
    home = settings.home.absolute()
    if not home.is_dir():
        raise TurnoverError(f"There is no data home {home} to back up. Point TURNOVER_HOME to one.")
    warehouse = _warehouse(settings)
    with run_lock(settings, lambda: progress("wait", "a run is under way; waiting for it to end")):
        if settings.dagster_path.is_dir():
            with _instance(settings) as instance:
                _wait_for_others(settings, instance, progress)
        with warehouse.lock():
            return write_backup(
                home,
                settings.panel_spec,
                output,
                lambda part: progress("note", f"saving {part}"),
                with_warehouse=with_warehouse,
            )


def restore(settings: Settings, archive: Path, progress: Progress, *, replace: bool = False) -> "Restored":
    """Put the home back from an archive; see storage.backup.

    Raises:
        TurnoverError: Something the user can mend; what was there is as before.
    """
    from turnover_assets.storage.backup import restore_backup

    def work() -> "Restored":
        return restore_backup(archive, settings.home, lambda text: progress("note", text), replace=replace)

    if not (settings.home / "run.lock").is_file():
        return work()
    with run_lock(settings, lambda: progress("wait", "a run is under way; waiting for it to end")):
        return work()


def look_for_alerts(settings: Settings) -> "Report":
    """Look for what alerts are about, as the sensors do, and send what waits.

    Raises:
        TurnoverError: The rules have errors, or the home cannot be used.
    """
    from turnover_assets.defs.alerts import look_now

    prepare_home(settings)
    with _instance(settings) as instance:
        return look_now(settings, instance)


def search_parameters(settings: Settings, config: Mapping[str, Any], progress: Progress) -> Mapping[str, Any]:
    """Search for hyper-parameters in this process; forecasts and champion stay as they are.

    Args:
        settings: The settings.
        config: Fields of defs.tuning.TuningConfig.
        progress: Told what begins and what is done.

    Returns:
        What the search's asset shows, by name.

    Raises:
        TurnoverError: Something the user can mend; the parameters in use are as before.
    """
    from turnover_assets.defs import common, jobs

    prepare_home(settings)
    check_panel(settings)
    with _instance(settings) as instance:
        ops = {common.TUNED.to_python_identifier(): {"config": dict(config)}}
        _run_job(settings, instance, jobs.TUNE, {}, {"ops": ops}, progress)
        return common.latest_metadata(instance, common.TUNED)


def backfill(settings: Settings, cutoffs: Cutoffs, progress: Progress) -> list[str]:
    """Forecast past cutoffs as they would have been then, and publish them as forecasts_as_of.

    Args:
        settings: The settings.
        cutoffs: Which of those that can be forecast.
        progress: Told what begins and what is done.

    Returns:
        The cutoffs, oldest first.

    Raises:
        TurnoverError: Something the user can mend; what was published stays.
    """
    from turnover_assets.defs import jobs
    from turnover_assets.defs.partitions import CUTOFFS, range_tags, ranges

    prepare_home(settings)
    waiting = "another run is under way; waiting for it to end"
    with run_lock(settings, lambda: progress("wait", waiting)), _instance(settings) as instance:
        _wait_for_others(settings, instance, progress)
        possible = sorted(instance.get_dynamic_partitions(str(CUTOFFS.name)))
        chosen = cutoffs.choose(possible)
        order = instance.get_dynamic_partitions(str(CUTOFFS.name))
        for first, last in ranges(chosen, order):
            _run_job(settings, instance, jobs.BACKFILL, range_tags(first, last), {}, progress)
    return chosen


def make_evidently_reports(settings: Settings, progress: Progress) -> Mapping[str, Any]:
    """Make Evidently's reports on the newest cutoff in this process; nothing else is changed.

    Args:
        settings: The settings.
        progress: Told what begins and what is done.

    Returns:
        What their asset shows, by name.

    Raises:
        TurnoverError: Something the user can mend.
    """
    from turnover_assets.defs import common, jobs
    from turnover_assets.storage.evidently_reports import require_evidently

    require_evidently()
    prepare_home(settings)
    with _instance(settings) as instance:
        _run_job(settings, instance, jobs.EVIDENTLY, {}, {}, progress)
        return common.latest_metadata(instance, common.EVIDENTLY)


def _warehouse(settings: Settings) -> Warehouse:
    return Warehouse(
        settings.warehouse_path, settings.threads, settings.memory_limit, settings.lock_timeout_seconds
    )


def _manifest(settings: Settings, warehouse: Warehouse) -> list[FileRecord]:
    with warehouse.transaction() as con:
        return manifest.records(con, settings.panel_spec)


def _duplicates(found: Sequence[LandedFile], records: Sequence[FileRecord]) -> list[str]:
    first_seen = {record.digest: record.name for record in records if record.status == "accepted"}
    return [f.name for f in found if f.digest in first_seen and first_seen[f.digest] != f.name]


def _is_current(settings: Settings, version: str) -> bool:
    """Whether the current snapshot was made from just this, by this release, with the present champion."""
    snapshot = find_current(settings.published_path)
    if snapshot is None:
        return False
    facts = snapshot.facts
    made_from = (
        facts.get("landed_version"),
        facts.get("code_version"),
        facts.get("settings_version"),
        facts.get("ledger_version", NO_LEDGER),
        facts.get("model", {}).get("version"),
    )
    ledger = ledger_version(settings.ledger_path)
    champion = champion_of(settings.mlflow_path, settings.panel_spec.name)
    return made_from == (version, __version__, settings.result_version, ledger, champion)


def _nothing_usable(
    settings: Settings, folder: Path, found: Sequence[LandedFile], records: Sequence[FileRecord]
) -> str:
    """Where was looked, what was found there, and what is looked for."""
    panel = settings.panel_spec
    refused = [f"  - {record.name}: {record.reason}" for record in records if record.status == "refused"]
    kinds = [f"  - {name}: {', '.join(columns.values())}" for name, columns in panel.tables.items()]
    what = "No file has landed: the folder is empty, but for what is hidden or unfinished."
    if refused:
        what = "Every file was refused:\n" + "\n".join(refused)
    elif found:
        what = "The files in it are of other kinds."
    source = settings.panel or "the default panel; TURNOVER_PANEL names another"
    return (
        f"There is nothing to forecast: no file in {folder} holds {panel.series.name}. {what}\n"
        f"A file's kind is told by its columns. Those of the panel {panel.name!r} ({source}) are:\n"
        + "\n".join(kinds)
        + f"\nPut files of {panel.series.name} into that folder, name another with --landing or "
        "TURNOVER_LANDING, or name a panel that fits your files with TURNOVER_PANEL, and run again."
    )


def _ingest(settings: Settings, folder: Path, new: Sequence[LandedFile], progress: Progress) -> None:
    from turnover_assets.defs import jobs
    from turnover_assets.defs.partitions import LANDED_FILES, range_tags, ranges

    with _instance(settings) as instance:
        keys = [file.partition_key for file in new]
        instance.add_dynamic_partitions(str(LANDED_FILES.name), keys)
        order = instance.get_dynamic_partitions(str(LANDED_FILES.name))
        progress("note", f"landing {len(new)} new file{'s' if len(new) > 1 else ''}")
        config = {"ops": {"raw__landed_files": {"config": {"folder": str(folder.absolute())}}}}
        for first, last in ranges(keys, order):
            tags = {**range_tags(first, last), jobs.FILES_TAG: str(len(keys))}
            _run_job(settings, instance, jobs.INGEST, tags, config, progress)


def _refresh(
    settings: Settings, warehouse: Warehouse, progress: Progress, *, retrain: bool
) -> tuple[bool, str]:
    """Bring everything after landing up to date: whether there was anything to do, and Outcome.training.

    The champion's forecasts are published first; training follows where it is due. Where no champion can
    forecast, training comes first.
    """
    version = landed_version(_manifest(settings, warehouse), settings.panel_spec)
    verdict = _last_verdict(warehouse)
    if not retrain and _is_current(settings, version) and not verdict.due:
        return False, verdict.sentence
    from turnover_assets.defs import jobs

    with _instance(settings) as instance:
        _wait_for_others(settings, instance, progress)
        version = landed_version(_manifest(settings, warehouse), settings.panel_spec)
        tags = jobs.cause_tags(version, jobs.made_from(settings))
        refreshed, unusable = False, _unusable(settings)  # asked once: it reads the model's files
        if not _is_current(settings, version) and not retrain and not unusable:
            _run_job(settings, instance, jobs.REFRESH, tags, {}, progress)
            refreshed = True
        verdict = _last_verdict(warehouse)
        if not (retrain or verdict.due or unusable):
            return refreshed, verdict.sentence
        cause, reason = _why_train(unusable, verdict, retrain=retrain)
        progress("note", f"training: {reason}")
        tags = jobs.cause_tags(version, jobs.made_from(settings)) | jobs.training_tags(cause, reason)
        _run_job(settings, instance, jobs.RETRAIN, tags, {}, progress)
        return True, f"Done: {reason}"


def _why_train(unusable: str, verdict: Verdict, *, retrain: bool) -> tuple[str, str]:
    """The cause of a training, in a word and as a sentence."""
    if retrain:
        return "asked for", "It was asked for."
    if unusable:
        return "champion", unusable
    return verdict.cause, verdict.sentence


def _unusable(settings: Settings) -> str:
    """Why no champion can forecast; empty where one can."""
    from turnover_assets.storage.registry import ModelRegistry

    panel = settings.panel_spec
    return ModelRegistry(settings.mlflow_path, panel.name).why_unusable(panel)


def _last_verdict(warehouse: Warehouse) -> Verdict:
    """What the policy said last."""
    with warehouse.transaction() as con:
        return last_verdict(con)


def _wait_for_others(settings: Settings, instance: "dg.DagsterInstance", progress: Progress) -> None:
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
def _instance(settings: Settings) -> "Iterator[dg.DagsterInstance]":
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


def _run_job(
    settings: Settings,
    instance: "dg.DagsterInstance",
    name: str,
    tags: Mapping[str, str],
    config: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Run a job in this process.

    Raises:
        TurnoverError: A step failed; its message where it is for the user, else where to look.
    """
    from turnover_assets.definitions import build_definitions
    from turnover_assets.defs.alerts import after_run
    from turnover_assets.defs.runs import process_tag

    job = build_definitions(settings).resolve_job_def(name)
    run_id = str(uuid4())
    if settings.log_format == "text":  # else the run's own JSON lines tell the same
        instance.add_event_listener(run_id, lambda entry: _tell(entry, progress))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = job.execute_in_process(
            instance=instance,
            run_id=run_id,
            raise_on_error=False,
            tags={**tags, **process_tag()},
            run_config={**config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    if unsent := after_run(settings, instance):
        progress("wait", unsent)
    if not result.success:
        raise TurnoverError(_failure(result.all_events, run_id))


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
    for event in events:
        error = event.step_failure_data.error if event.is_step_failure else None
        while error is not None:
            if hasattr(errors, error.cls_name or ""):
                return error.message.partition(": ")[2].strip()
            if error.cause is None:
                step = _readable(event.step_key)
                details = f"`turnover ui` shows the details of run {run_id}."
                return f"{step} failed: {error.message.strip()}\n{details}"
            error = error.cause
    return f"The run {run_id} failed; `turnover ui` shows why."
