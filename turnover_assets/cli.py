"""The `turnover` command.

What belongs here: arguments, progress and tables for people, exit codes. What does not: the work, which is
imported when a command needs it so that `--help` answers at once. Progress goes to stderr, data to stdout.
"""

import atexit
import gc
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from turnover_assets import __version__
from turnover_assets.commands import adjustments, alerts, keys, models
from turnover_assets.commands.audit import audit
from turnover_assets.commands.backfill import backfill
from turnover_assets.commands.backtest import backtest
from turnover_assets.commands.backup import backup, restore
from turnover_assets.commands.compare import compare
from turnover_assets.commands.console import ExportFormat, err, plain_errors, write_log_line, write_whole
from turnover_assets.commands.dashboard import dashboard
from turnover_assets.commands.decisions import decisions
from turnover_assets.commands.doctor import doctor
from turnover_assets.commands.evidently import evidently
from turnover_assets.commands.files import files
from turnover_assets.commands.housekeep import housekeep
from turnover_assets.commands.metrics import metrics
from turnover_assets.commands.prepare import prepare
from turnover_assets.commands.rebuild import rebuild
from turnover_assets.commands.reproduce import reproduce
from turnover_assets.commands.serve import serve
from turnover_assets.commands.tune import tune
from turnover_assets.commands.upgrade import upgrade
from turnover_assets.commands.workbook import workbook
from turnover_assets.errors import TurnoverError

if TYPE_CHECKING:
    from turnover_assets.runner import Outcome
    from turnover_assets.settings import Settings
    from turnover_assets.storage.snapshots import Snapshot

OBJECTS_A_COLLECTION = 20_000  # more of them than before, and the youngest are looked at

app = typer.Typer(
    help="Weekly turnover forecasts per store and department.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(adjustments.app, name="adjustments")
app.add_typer(alerts.app, name="alerts")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"turnover-assets {__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[  # noqa: ARG001 - its callback says it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Weekly turnover forecasts per store and department.

    TURNOVER_HOME (default ./var) holds everything the platform writes; TURNOVER_PANEL names a panel file.
    """
    _collect_rarely()


@cache
def _collect_rarely() -> None:
    """Have Python look for garbage less often than it does by itself, and not once more at the end.

    Nearly all objects here belong to libraries and stay; to look at all of them again and again, and once
    more before the end, took a tenth of a weekly run. What comes and goes is freed by its reference count.
    """
    gc.set_threshold(OBJECTS_A_COLLECTION, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


@app.command()
def run(
    landing: Annotated[
        Path | None, typer.Option(help="Folder with the files; default: landing/ in the home.")
    ] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train now, whatever the policy says.")] = False,
) -> None:
    """Bring everything up to date: land what is new, forecast, publish, and train where that is due."""
    from turnover_assets.settings import load_settings

    with plain_errors():
        settings = load_settings()
        _run(settings, landing or settings.landing_path, retrain=retrain)


@app.command()
def demo(
    defects: Annotated[bool, typer.Option(help="Plant the defects that real feeds contain.")] = False,
) -> None:
    """Write a synthetic retailer into the home and run on it."""
    from turnover_assets.settings import load_settings

    with plain_errors():
        settings = load_settings()
        folder = settings.home.absolute() / "demo"
        _write_sample(folder, stores=30, departments=4, weeks=170, seed=7, defects=defects)
        _run(settings, folder)


@app.command()
def sample(
    output: Annotated[Path, typer.Option(help="Folder to write into; it is made.")],
    stores: Annotated[int, typer.Option(min=1, help="Stores.")] = 30,
    departments: Annotated[int, typer.Option(min=1, help="Departments.")] = 4,
    weeks: Annotated[int, typer.Option(min=1, help="Weeks of history.")] = 170,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = 7,
    defects: Annotated[bool, typer.Option(help="Plant the defects that real feeds contain.")] = False,
) -> None:
    """Write a synthetic retailer's files."""
    with plain_errors():
        _write_sample(output, stores=stores, departments=departments, weeks=weeks, seed=seed, defects=defects)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="Published table, for example forecasts.")],
    file_format: Annotated[ExportFormat, typer.Option("--format", help="File format.")] = ExportFormat.CSV,
    output: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
) -> None:
    """Write a published table to a file or to standard output."""
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.snapshots import lease

    with plain_errors(), lease(load_settings().published_path) as snapshot:
        snapshot.path(name)
        if output is None:
            _to_stdout(snapshot, name, file_format)
        else:
            _to_file(snapshot, name, file_format, output)


@app.command()
def ui(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the web page, on loopback only.")
    ] = 3000,
) -> None:
    """Start Dagster's web page and daemon on loopback, with all sensors switched on."""
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.home import prepare_home
    from turnover_assets.ui import check_port, serve

    with plain_errors():
        settings = load_settings()
        prepare_home(settings)
        check_port(port)
        err.print(f"Dagster at http://127.0.0.1:{port} (Ctrl-C ends it)")
        watched = escape(str(settings.landing_path))
        err.print(f"Drop files into {watched}; they are landed and forecast by themselves.", soft_wrap=True)
        raise typer.Exit(serve(settings, port))


app.command()(audit)
app.command()(backfill)
app.command()(backtest)
app.command()(backup)
app.command()(compare)
app.command()(dashboard)
app.command()(decisions)
app.command()(files)
app.command()(doctor)
app.command()(housekeep)
app.command()(metrics)
app.command()(evidently)
app.command()(prepare)
app.command()(rebuild)
app.command()(reproduce)
app.command()(restore)
app.command()(serve)
app.command()(tune)
app.command()(upgrade)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(workbook)


def _to_stdout(snapshot: "Snapshot", name: str, file_format: ExportFormat) -> None:
    """Write a table to standard output; who reads only its beginning, as `head` does, is no error."""
    try:
        snapshot.export(name, sys.stdout.buffer, file_format.value)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end


def _to_file(snapshot: "Snapshot", name: str, file_format: ExportFormat, output: Path) -> None:
    """Write a table to a file and say so."""
    write_whole(output, lambda stream: snapshot.export(name, stream, file_format.value))
    err.print(f"{name} as of {snapshot.facts['cutoff']} written to {escape(str(output))}", soft_wrap=True)


def _write_sample(
    folder: Path, *, stores: int, departments: int, weeks: int, seed: int, defects: bool
) -> None:
    from turnover_assets.core.samples import sample_files
    from turnover_assets.core.synthetic import make_retailer
    from turnover_assets.storage.sample import write_files

    try:
        retailer = make_retailer(stores=stores, departments=departments, weeks=weeks, seed=seed)
        made = sample_files(retailer, recent_weeks=min(4, weeks - 1), defects=defects, seed=seed)
    except ValueError as error:
        raise TurnoverError(f"The sample cannot be made: {error}") from None
    write_files(folder, {file.name: file.content for file in made.files})
    size = f"{stores} stores, {departments} departments, {weeks} weeks"
    err.print(f"Synthetic retailer: {size} in {escape(str(folder))}", soft_wrap=True)
    for file in made.files:
        if defects and file.note:
            err.print(f"  {file.name}: {escape(file.note)}", soft_wrap=True)


def _run(settings: "Settings", folder: Path, *, retrain: bool = False) -> None:
    """Run, show what is going on, and account for it at the end."""
    from turnover_assets.reporting import LiveProgress, outcome_facts, print_outcome
    from turnover_assets.runner import bring_up_to_date

    if settings.log_format == "json":
        outcome = bring_up_to_date(settings, folder, _log_news, retrain=retrain)
        for level, message, facts in outcome_facts(outcome):
            write_log_line(level, message, **facts)
    else:
        with LiveProgress(err) as progress:
            outcome = bring_up_to_date(settings, folder, progress, retrain=retrain)
        print_outcome(err, settings, outcome)
    if outcome.undelivered or _nothing_could_be_done(outcome):
        raise typer.Exit(1)


def _log_news(_news: str, text: str) -> None:
    """News of a run as a line of log."""
    write_log_line("INFO", text)


def _nothing_could_be_done(outcome: "Outcome") -> bool:
    """Files in the folder are refused, now or since an earlier run, and nothing else was to do."""
    refused = bool(outcome.refused or outcome.refused_before)
    return refused and not outcome.accepted and not outcome.refreshed


if __name__ == "__main__":
    app()
