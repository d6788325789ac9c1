"""`turnover files`: what has become of each file that landed, as of now.

What belongs here: the command. What does not: the list (storage/landed_list.py).
"""

from pathlib import Path
from typing import Annotated

import typer

from turnover_assets.commands.console import ExportFormat, plain_errors, write_frame


def files(
    refused: Annotated[bool, typer.Option("--refused", help="Only files that were refused.")] = False,
    file_format: Annotated[ExportFormat, typer.Option("--format", help="File format.")] = ExportFormat.CSV,
    output: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
) -> None:
    """List every file that has landed or was refused, with its rows or the reason.

    Unlike `turnover export files`, which is of the newest publishing, it is the list as it is now.
    """
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.landed_list import list_files

    with plain_errors():
        home = load_settings().home.absolute()
        write_frame(list_files(home, refused=refused), output, file_format)
