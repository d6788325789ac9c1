"""What `turnover run` does: bring everything up to date, through the same Dagster jobs as the UI.

What belongs here: finding what is new, which jobs follow, and the account of what happened. What does not:
the work itself (defs, storage, core), running jobs (embedded.py), other work on a home (maintenance.py), and
printing (cli).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from turnover_assets import __version__
from turnover_assets.core.retraining import Verdict, last_verdict
from turnover_assets.embedded import (
    Progress,
    deliver_published,
    open_instance,
    run_job,
    wait_for_others,
)
from turnover_assets.errors import NothingToForecastError
from turnover_assets.settings import Settings
from turnover_assets.storage import manifest
from turnover_assets.storage.home import prepare_home, run_lock
from turnover_assets.storage.home_panel import check_panel
from turnover_assets.storage.landed_objects import fetch_objects
from turnover_assets.storage.landing import mend_kept, unseen
from turnover_assets.storage.landing_folder import LandedFile, scan
from turnover_assets.storage.ledger import NO_LEDGER, ledger_version
from turnover_assets.storage.manifest import FileRecord, landed_version
from turnover_assets.storage.registry_peek import champion_of
from turnover_assets.storage.snapshots import Snapshot, find_current
from turnover_assets.storage.warehouse import Warehouse

if TYPE_CHECKING:
    import dagster as dg


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
        delivered: Places that what is published was brought to; see defs.deliveries.
        undelivered: Why it could not be brought to some; empty where nothing is amiss.
        unfed: Tables of the panel of which no file has landed.
    """

    landed: tuple[FileRecord, ...]
    duplicates: tuple[str, ...]
    refused_before: tuple[FileRecord, ...]
    refreshed: bool
    snapshot: Snapshot | None
    training: str = ""
    delivered: tuple[str, ...] = ()
    undelivered: str = ""
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
        return bool(self.landed or self.refreshed or self.delivered or self.undelivered)


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
    warehouse = Warehouse.of(settings)
    waiting = "another run is under way; waiting for it to end"
    with run_lock(settings, lambda: progress("wait", waiting)), ExitStack() as stack:
        instance = cache(lambda: stack.enter_context(open_instance(settings)))  # which takes a while
        _fetch(settings, folder, progress)
        found = scan(folder, settings.fingerprints_path)
        check_panel(settings, lambda: found)
        before = _manifest(settings, warehouse)
        if late := mend_kept(warehouse, panel, found):
            progress("note", f"keeping {len(late)} file{'s' if len(late) > 1 else ''} that landed earlier")
        new = unseen(found, before)
        if new:
            _ingest(settings, instance(), folder, new, progress)
        records = _manifest(settings, warehouse) if new else before
        refreshed, training = False, ""
        if any(record.table == panel.series.name for record in records):
            version = landed_version(records, panel)
            refreshed, training = _refresh(settings, instance, warehouse, version, progress, retrain=retrain)
        elif not find_current(settings.published_path):
            raise NothingToForecastError(_nothing_usable(settings, folder, found, records))
        stack.close()  # delivering opens them for itself
        delivered, undelivered = deliver_published(settings, progress)
        digests, here = {file.digest for file in new}, {file.digest for file in found}
        return Outcome(
            landed=tuple(record for record in records if record.digest in digests),
            duplicates=tuple(_duplicates(found, records)),
            refused_before=tuple(r for r in before if r.status == "refused" and r.digest in here),
            refreshed=refreshed,
            snapshot=find_current(settings.published_path),
            training=training,
            delivered=delivered,
            undelivered=undelivered,
            unfed=tuple(name for name in panel.tables if name not in {record.table for record in records}),
        )


def _fetch(settings: Settings, folder: Path, progress: Progress) -> None:
    """Copy new objects of the store into the watched folder, if that is the one to look into."""
    if settings.landing_url and folder == settings.landing_path:
        fetched = fetch_objects(settings)
        if count := len(fetched.names):
            progress("note", f"copied {count} object{'s' if count > 1 else ''} from {settings.landing_url}")


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
    champion = champion_of(settings.mlflow_path, settings.panel_spec.name, settings.mlflow_database)
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


def _ingest(
    settings: Settings,
    instance: "dg.DagsterInstance",
    folder: Path,
    new: Sequence[LandedFile],
    progress: Progress,
) -> None:
    from turnover_assets.defs import jobs
    from turnover_assets.defs.partitions import LANDED_FILES, range_tags, ranges

    keys = [file.partition_key for file in new]
    instance.add_dynamic_partitions(str(LANDED_FILES.name), keys)
    order = instance.get_dynamic_partitions(str(LANDED_FILES.name))
    progress("note", f"landing {len(new)} new file{'s' if len(new) > 1 else ''}")
    config = {"ops": {"raw__landed_files": {"config": {"folder": str(folder.absolute())}}}}
    for first, last in ranges(keys, order):
        tags = {**range_tags(first, last), jobs.FILES_TAG: str(len(keys))}
        run_job(settings, instance, jobs.INGEST, tags, config, progress)


def _refresh(
    settings: Settings,
    opened: "Callable[[], dg.DagsterInstance]",
    warehouse: Warehouse,
    version: str,
    progress: Progress,
    *,
    retrain: bool,
) -> tuple[bool, str]:
    """Bring everything after landing up to date: whether there was anything to do, and Outcome.training.

    The champion's forecasts are published first; training follows where it is due. Where no champion can
    forecast, training comes first.
    """
    verdict = _last_verdict(warehouse)
    if not retrain and _is_current(settings, version) and not verdict.due:
        return False, verdict.sentence
    from turnover_assets.defs import jobs

    instance = opened()
    wait_for_others(settings, instance, progress)
    version = landed_version(_manifest(settings, warehouse), settings.panel_spec)
    tags = jobs.cause_tags(version, jobs.made_from(settings))
    refreshed, unusable = False, _unusable(settings)  # asked once: it reads the model's files
    if not _is_current(settings, version) and not retrain and not unusable:
        run_job(settings, instance, jobs.REFRESH, tags, {}, progress)
        refreshed = True
    verdict = _last_verdict(warehouse)
    if not (retrain or verdict.due or unusable):
        return refreshed, verdict.sentence
    cause, reason = _why_train(unusable, verdict, retrain=retrain)
    progress("note", f"training: {reason}")
    tags = jobs.cause_tags(version, jobs.made_from(settings)) | jobs.training_tags(cause, reason)
    run_job(settings, instance, jobs.RETRAIN, tags, {}, progress)
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

    return ModelRegistry.of(settings).why_unusable(settings.panel_spec)


def _last_verdict(warehouse: Warehouse) -> Verdict:
    """What the policy said last."""
    with warehouse.transaction() as con:
        return last_verdict(con)
