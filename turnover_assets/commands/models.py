"""`turnover models`: the registered versions, and who is champion, by hand.

What belongs here: arguments, and what follows from a change. What does not: how versions read
(_model_texts.py), what a promotion does (storage/champions.py), and when the gate allows one (core/gate.py).
"""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from turnover_assets.commands import _model_texts as texts
from turnover_assets.commands.console import err, plain_errors, user_name, write_whole
from turnover_assets.errors import TurnoverError

if TYPE_CHECKING:
    from turnover_assets.settings import Settings
    from turnover_assets.storage.registry import ModelRegistry

app = typer.Typer(help="Registered models: see them, promote one, go back.", no_args_is_help=True)
RUN_UNDER_WAY = "… a run is under way; waiting for it to end"


class ListFormat(StrEnum):
    """How versions are listed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


class ShowFormat(StrEnum):
    """How one version is shown."""

    TEXT = "text"
    JSON = "json"


Version = Annotated[int, typer.Argument(min=1, help="Model version, from the list.", metavar="VERSION")]
Reason = Annotated[str, typer.Option(help="Why; it is kept with the change.")]
Who = Annotated[str | None, typer.Option(help="Who decides; default: the user of this system.")]
Output = Annotated[Path | None, typer.Option(help="File to write; default: standard output.")]


@app.command("list")
def list_models(
    list_format: Annotated[
        ListFormat | None,
        typer.Option("--format", help="Format; default: a table, or csv into a file.", show_default=False),
    ] = None,
    output: Output = None,
) -> None:
    """Show every registered version: how it was judged, and what became of it."""
    with plain_errors():
        _, registry = _registry()
        found = registry.versions()
        chosen = list_format or (ListFormat.CSV if output else ListFormat.TABLE)
        _give({"table": texts.as_table, "csv": texts.as_csv, "json": texts.as_json}[chosen](found), output)


@app.command()
def show(
    version: Annotated[
        int | None, typer.Argument(min=1, help="Model version; default: the champion.", show_default=False)
    ] = None,
    show_format: Annotated[ShowFormat, typer.Option("--format", help="Format.")] = ShowFormat.TEXT,
    output: Output = None,
) -> None:
    """Show all that is kept of a version: figures, the gate's checks, parameters."""
    with plain_errors():
        _, registry = _registry()
        found = registry.details(version or registry.champion_version())
        as_wanted = texts.details_as_text if show_format is ShowFormat.TEXT else texts.details_as_json
        _give(as_wanted(found), output)


@app.command()
def promote(version: Version, reason: Reason, who: Who = None) -> None:
    """Make a version the champion, whatever the gate said.

    It is refused where the version's files were changed, or do not fit this panel and release.
    """

    def change(settings: "Settings", registry: "ModelRegistry") -> int:
        registry.check_usable(version, settings.panel_spec)
        registry.promote(version, by=who or user_name(), reason=_given(reason))
        return version

    with plain_errors():
        _change(change)


@app.command()
def rollback(reason: Reason, who: Who = None) -> None:
    """Go back to the champion before the present one; once more, and it goes back further."""

    def change(settings: "Settings", registry: "ModelRegistry") -> int:
        registry.check_usable(registry.rollback_target(), settings.panel_spec)
        return registry.rollback(by=who or user_name(), reason=_given(reason))

    with plain_errors():
        _change(change)


def _registry() -> "tuple[Settings, ModelRegistry]":
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.registry import ModelRegistry

    settings = load_settings()
    return settings, ModelRegistry.of(settings)


def _given(reason: str) -> str:
    if not reason.strip():
        raise TurnoverError("Nothing was changed: say why with --reason, for those who read the list later.")
    return reason.strip()


def _change(change: "Callable[[Settings, ModelRegistry], int]") -> None:
    """Change the champion while no run is under way, and say what follows."""
    from turnover_assets.storage.home import run_lock

    settings, registry = _registry()
    registry.check_present()
    with run_lock(settings, lambda: err.print(RUN_UNDER_WAY)):
        before = registry.find_champion()
        now = change(settings, registry)
    if before == now:
        err.print(f"Version {now} is the champion already; nothing was changed.")
    else:
        was = f" in place of version {before}" if before else ""
        err.print(f"Version {now} is the champion{was}. {_what_follows(settings, now)}", soft_wrap=True)


def _what_follows(settings: "Settings", champion: int) -> str:
    """What a change of the champion means for what is published."""
    from turnover_assets.storage.snapshots import find_current

    snapshot = find_current(settings.published_path)
    published = snapshot.facts["model"]["version"] if snapshot else None
    if published == champion:
        return "The published forecasts are its own."
    now = (
        "Nothing is published yet"
        if published is None
        else f"What is published is still of version {published}"
    )
    return f"{now}: `turnover run` publishes forecasts of version {champion}."


def _give(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_whole(output, lambda stream: stream.writelines([text.encode()]))
        err.print(f"Written to {escape(str(output))}", soft_wrap=True)
