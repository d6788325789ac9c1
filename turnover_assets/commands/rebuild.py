"""`turnover rebuild`: the warehouse again, from the kept files alone.

What belongs here: the command and its account. What does not: the work (storage/rebuild.py).
"""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from turnover_assets.commands.console import err, plain_errors

if TYPE_CHECKING:
    from turnover_assets.storage.rebuild import Rebuilt


def rebuild(
    check: Annotated[
        bool, typer.Option("--check", help="Only prove that it would be the same; replace nothing.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out files that landed but are not kept.")
    ] = False,
) -> None:
    """Build the warehouse again from the kept files, prove that it is the same, and put it in place.

    It also works where the warehouse is deleted or damaged. Ends with 1 where something differs.
    """
    from turnover_assets.maintenance import rebuild_warehouse
    from turnover_assets.settings import load_settings

    with plain_errors():
        settings = load_settings()
        done = rebuild_warehouse(
            settings,
            lambda _, text: err.print(f"… {escape(text)}", soft_wrap=True),
            check=check,
            allow_missing=allow_missing,
        )
        for line in _account(done):
            err.print(escape(line), soft_wrap=True)
        if done.differences and not done.in_place:
            raise typer.Exit(1)


def _account(done: "Rebuilt") -> list[str]:
    """What was done and found, as lines."""
    lines = [f"{done.files} files landed again; content version {done.contents.version}"]
    lines += [f"{table}: {rows:,} rows" for table, (rows, _) in sorted(done.contents.tables.items())]
    lines += [f"Note: {note}" for note in done.notes]
    if done.compared_with is None:
        lines.append("There was nothing to compare with.")
    elif done.differences:
        lines += [f"Differs from {done.compared_with}:", *(f"  - {told}" for told in done.differences)]
    else:
        lines.append(f"Equal to {done.compared_with}, row for row.")
    if done.in_place:
        lines.append(
            "The new warehouse is in place. The next `turnover run` makes the rest when it is needed."
        )
    elif done.differences:
        lines.append("Nothing was replaced.")
    if done.set_aside:
        lines.append(f"The old one is kept as {done.set_aside}; delete it when you do not need it.")
    return lines
