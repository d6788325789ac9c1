"""`turnover workbook`: the published forecasts of a region, a store or another member as an Excel file.

What belongs here: the command. What does not: the file (core/workbook/).
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from turnover_assets.commands.console import err, plain_errors, write_whole
from turnover_assets.errors import TurnoverError

if TYPE_CHECKING:
    from turnover_assets.panel import PanelSpec
    from turnover_assets.storage.workbook_source import WorkbookSource

SUFFIX = ".xlsx"
USAGE = "turnover workbook --region 65, or --level region --member 65, or --level region --all"


def workbook(
    context: typer.Context,
    level: Annotated[
        str | None, typer.Option(help="Level of the panel, or total; default the panel's last one.")
    ] = None,
    member: Annotated[str | None, typer.Option(help="Its member, such as the number of a region.")] = None,
    every: Annotated[bool, typer.Option("--all", help="A workbook for each member of the level.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="File, or folder, which is made; default: this folder.")
    ] = None,
) -> None:
    """Write the published forecasts of one member, or of each, as an Excel file.

    Each level is an option as well: --region 65 is --level region --member 65.
    """
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.snapshots import lease
    from turnover_assets.storage.workbook_source import WorkbookSource

    with plain_errors():
        settings = load_settings()
        panel = settings.panel_spec
        of, chosen = _asked(panel, level, member, context.args, every=every)
        with lease(settings.published_path) as snapshot, WorkbookSource(snapshot, panel, of) as source:
            members = source.members if every else [chosen]
            _write(source, members, output, settings.threads, alone=not every)


def _asked(
    panel: "PanelSpec", level: str | None, member: str | None, extra: Sequence[str], *, every: bool
) -> tuple[str, str]:
    """Level and member that the options ask for.

    Raises:
        TurnoverError: They do not name a level and a member, or all members.
    """
    from turnover_assets.core.aggregates import TOTAL

    named = _level_options(panel, extra)
    if len(named) + (level is not None or member is not None) > 1:
        raise TurnoverError(f"Name one level with one member. For example: {USAGE}.")
    for name, value in named.items():
        level, member = name, value
    found = level or panel.level_names[-1]
    if every and member is not None:
        raise TurnoverError(f"Either one member or --all. For example: {USAGE}.")
    if not every and member is None and found != TOTAL:
        raise TurnoverError(f"Name the {found} whose forecasts you want, or --all. For example: {USAGE}.")
    return found, member or ""


def _level_options(panel: "PanelSpec", extra: Sequence[str]) -> dict[str, str]:
    """Options named after levels, with their values.

    Raises:
        TurnoverError: An option is none of them, or has no value.
    """
    words = [part for word in extra for part in (word.split("=", 1) if word.startswith("--") else [word])]
    found = {}
    for name, value in zip(words[::2], [*words[1::2], None], strict=False):
        if name.removeprefix("--") not in panel.level_names or not name.startswith("--"):
            known = ", ".join(f"--{level}" for level in panel.level_names)
            raise TurnoverError(
                f"There is no option {name}. Levels are {known}; `turnover workbook --help` lists the others."
            )
        if value is None:
            raise TurnoverError(f"{name} needs a value. For example: {USAGE}.")
        found[name.removeprefix("--")] = value
    return found


def _write(
    source: "WorkbookSource", members: Sequence[str], output: Path | None, processes: int, *, alone: bool
) -> None:
    """Write the workbooks of some members; one alone into the file named, if a file is named."""
    from turnover_assets.storage.workbook_files import make_books

    place = output or Path()
    file = place if alone and place.suffix == SUFFIX and not place.is_dir() else None
    if file is None:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TurnoverError(
                f"{place} cannot be made ({error.strerror}); name another --output."
            ) from None
    written = 0
    with closing(make_books(source, members, processes)) as books:
        for name, made in books:
            path = file or place / name
            write_whole(path, lambda stream, made=made: stream.write(made))  # type: ignore[misc]
            written += len(made)
    where = str(path) if alone else f"{place} ({len(members):,} workbooks)"
    err.print(f"{escape(where)}, {written / 1e6:,.2f} MB, as of {source.origin.cutoff}", soft_wrap=True)
