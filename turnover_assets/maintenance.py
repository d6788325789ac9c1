"""Work on a home beside `turnover run`: rebuild, housekeeping, backups, alerts, searches, backfills, reports.

What belongs here: each of them with the locks that it needs. What does not: the work itself (defs, storage,
core) and printing (commands).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnover_assets.embedded import (
    Progress,
    deliver_published,
    open_instance,
    run_job,
    wait_for_others,
)
from turnover_assets.errors import HomeError, TurnoverError
from turnover_assets.settings import Settings
from turnover_assets.storage.home import prepare_home, run_lock
from turnover_assets.storage.home_layout import LAYOUT, Layout, check_layout
from turnover_assets.storage.home_panel import check_panel
from turnover_assets.storage.models_database import check_reachable
from turnover_assets.storage.warehouse import Warehouse

if TYPE_CHECKING:
    from turnover_assets.defs.alerts import Report
    from turnover_assets.storage.backup import BackedUp, Restored
    from turnover_assets.storage.rebuild import Rebuilt


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


def prepare(settings: Settings, progress: Progress) -> None:
    """Make the home ready; where it gets another layout, once no run is refreshing it.

    In a stack that is about to start, nothing that could end a run is there yet: one that is still on record
    after the usual time does not keep it from starting.

    Raises:
        TurnoverError: Something the user can mend; a newer release's home is as before.
    """
    before = check_layout(settings.home.absolute())
    if before is not None and before.layout != LAYOUT and (settings.dagster_path / "dagster.yaml").is_file():
        from turnover_assets.defs.runs import are_launched_elsewhere

        with open_instance(settings) as instance:
            try:
                wait_for_others(settings, instance, progress)
            except HomeError as error:
                if not are_launched_elsewhere(instance):
                    raise
                progress("note", f"going on although it has not ended: {error}")
    prepare_home(settings)


def bring_up(settings: Settings, progress: Progress) -> tuple[Layout | None, Layout]:
    """Bring home and warehouse to this release's layout and schema, once no run is under way.

    Args:
        settings: The settings.
        progress: Told what is waited for.

    Returns:
        The layout before, None where the home is new, and the layout now.

    Raises:
        TurnoverError: Something the user can mend; a newer release's home is as before.
    """
    home = settings.home.absolute()
    before = check_layout(home)
    prepare(settings, progress)
    if settings.warehouse_path.is_file():
        with Warehouse.of(settings).transaction():
            pass  # opening it is enough
    after = check_layout(home)
    assert after is not None
    return before, after


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
        with open_instance(settings) as instance:
            wait_for_others(settings, instance, progress)
        check_panel(settings)
        return rebuild(
            Warehouse.of(settings),
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
    with open_instance(settings) as instance:
        if not dry:
            wait_for_others(settings, instance, progress)
            run_job(settings, instance, jobs.HOUSEKEEP, {}, {}, progress)  # which waits for the run lock
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
    warehouse = Warehouse.of(settings)
    with run_lock(settings, lambda: progress("wait", "a run is under way; waiting for it to end")):
        if settings.dagster_path.is_dir():
            with open_instance(settings) as instance:
                wait_for_others(settings, instance, progress)
        with warehouse.lock():
            return write_backup(
                home,
                settings.panel_spec,
                output,
                lambda part: progress("note", f"saving {part}"),
                with_warehouse=with_warehouse,
                database=settings.mlflow_database,
            )


def restore(settings: Settings, archive: Path, progress: Progress, *, replace: bool = False) -> "Restored":
    """Put the home back from an archive; see storage.backup.

    Where the settings name a database for MLflow's records, those of the archive take the place of its own.

    Raises:
        TurnoverError: Something the user can mend; what was there is as before, or moved aside where only
            MLflow's database could not be written.
    """
    from turnover_assets.storage.backup import restore_backup

    if settings.mlflow_database:
        check_reachable(settings.mlflow_database)

    def work() -> "Restored":
        done = restore_backup(archive, settings.home, lambda text: progress("note", text), replace=replace)
        _hand_over_records(settings, progress)
        return done

    if not (settings.home / "run.lock").is_file():
        return work()
    with run_lock(settings, lambda: progress("wait", "a run is under way; waiting for it to end")):
        return work()


def _hand_over_records(settings: Settings, progress: Progress) -> None:
    """Put MLflow's records of a restored home into its database, if it has one, and remove their file."""
    file = settings.mlflow_path / "mlflow.db"
    if not settings.mlflow_database or not file.is_file():
        return
    from turnover_assets.storage.model_copy import records_to_database

    progress("note", "filling MLflow's database")
    records_to_database(settings.mlflow_path, settings.mlflow_database)
    file.unlink()


def look_for_alerts(settings: Settings) -> "Report":
    """Look for what alerts are about, as the sensors do, and send what waits.

    Raises:
        TurnoverError: The rules have errors, or the home cannot be used.
    """
    from turnover_assets.defs.alerts import look_now

    prepare_home(settings)
    with open_instance(settings) as instance:
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
    with open_instance(settings) as instance:
        ops = {common.TUNED.to_python_identifier(): {"config": dict(config)}}
        run_job(settings, instance, jobs.TUNE, {}, {"ops": ops}, progress)
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
    with run_lock(settings, lambda: progress("wait", waiting)), open_instance(settings) as instance:
        wait_for_others(settings, instance, progress)
        possible = sorted(instance.get_dynamic_partitions(str(CUTOFFS.name)))
        chosen = cutoffs.choose(possible)
        order = instance.get_dynamic_partitions(str(CUTOFFS.name))
        for first, last in ranges(chosen, order):
            run_job(settings, instance, jobs.BACKFILL, range_tags(first, last), {}, progress)
        _, undelivered = deliver_published(settings, progress)
        if undelivered:
            progress("wait", undelivered)
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
    with open_instance(settings) as instance:
        run_job(settings, instance, jobs.EVIDENTLY, {}, {}, progress)
        return common.latest_metadata(instance, common.EVIDENTLY)
