"""`turnover backup` and `turnover restore`: a data home in one archive, and back.

What belongs here: the two commands and their accounts. What does not: the work (storage/backup.py).
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from turnover_assets.commands.console import err, plain_errors


def backup(
    output: Annotated[Path, typer.Option(help="Archive to write: FILE.tar.zst or FILE.tar.gz.")],
    without_warehouse: Annotated[
        bool,
        typer.Option(
            "--without-warehouse", help="Leave the warehouse out, and what only it remembers of past runs."
        ),
    ] = False,
) -> None:
    """Write the data home into one archive, also while the daemon runs."""
    from turnover_assets.maintenance import back_up
    from turnover_assets.settings import load_settings

    with plain_errors():
        done = back_up(
            load_settings(),
            output,
            lambda _, text: err.print(f"… {escape(text)}", soft_wrap=True),
            with_warehouse=not without_warehouse,
        )
        size = f"{done.content_bytes / 1e6:,.1f} MB in {done.archive_bytes / 1e6:,.1f} MB"
        err.print(f"{done.files:,} files, {size}, written to {escape(str(done.path))}", soft_wrap=True)
        for what in done.left_out:
            err.print(f"Left out: {escape(what)}", soft_wrap=True)
        for name in done.damaged:
            err.print(f"Damaged, saved as it is: {escape(name)}; see `turnover doctor`.", soft_wrap=True)


def restore(
    archive: Annotated[Path, typer.Argument(help="Archive that `turnover backup` wrote.", metavar="FILE")],
    into: Annotated[Path | None, typer.Option(help="Home to make; default: TURNOVER_HOME.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move a home that is there aside, under a dated name.")
    ] = False,
) -> None:
    """Put a data home back from an archive: whole and checked, or not at all."""
    from turnover_assets.maintenance import restore as work
    from turnover_assets.settings import load_settings

    with plain_errors():
        settings = load_settings(**({"home": into} if into else {}))
        done = work(
            settings,
            archive,
            lambda _, text: err.print(f"… {escape(text)}", soft_wrap=True),
            replace=replace,
        )
        about = f"of {done.facts['created_at'][:16]}, release {done.facts['release']}"
        err.print(f"{done.files:,} files {about}, are in {escape(str(done.home))}", soft_wrap=True)
        if done.set_aside:
            err.print(
                f"What was there is in {escape(str(done.set_aside))}; delete it when you do not need it.",
                soft_wrap=True,
            )
        if (panel := done.facts["panel"])["digest"] != settings.panel_spec.digest:
            err.print(
                f"It is of the panel {escape(panel['name'])!r} as it was then: name it with TURNOVER_PANEL.",
                soft_wrap=True,
            )
        if not settings.warehouse_path.is_file():
            err.print("It has no warehouse yet: `turnover rebuild` makes it from the kept files.")
