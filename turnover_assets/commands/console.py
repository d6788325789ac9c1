"""What commands share: the console for people, plain errors, file formats, files written whole, who decides.

What belongs here: helpers that two or more commands use. What does not: the commands.
"""

import getpass
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import typer
from rich.console import Console
from rich.markup import escape

from turnover_assets.errors import TurnoverError

if TYPE_CHECKING:
    import pandas as pd

err = Console(stderr=True, highlight=False)


class ExportFormat(StrEnum):
    """File formats of exported tables."""

    CSV = "csv"
    PARQUET = "parquet"


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print an error of ours as its message alone, and end with exit code 1."""
    try:
        yield
    except TurnoverError as error:
        err.print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err.print("Stopped. What had landed and was published stays; run again to go on.")
        raise typer.Exit(130) from None


def user_name() -> str:
    """Name of the user of this system.

    Raises:
        TurnoverError: The system does not say.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise TurnoverError("This system does not say who you are. Name yourself with --who.") from None


def write_frame(table: "pd.DataFrame", output: Path | None, file_format: ExportFormat) -> None:
    """Write a table to a file, whole or not at all, or to standard output.

    A file whose name ends in .parquet is written as Parquet, whatever the format.

    Raises:
        TurnoverError: It cannot be written.
    """
    parquet = file_format is ExportFormat.PARQUET or (output is not None and output.suffix == ".parquet")

    def write(stream: BinaryIO) -> None:
        table.to_parquet(stream, index=False) if parquet else table.to_csv(stream, index=False)

    if output is None:
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        write_whole(output, write)
        err.print(f"{len(table):,} rows written to {escape(str(output))}", soft_wrap=True)


def write_whole(output: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file that is there whole or not at all; a pipe or device is written as it is.

    Args:
        output: The file.
        write: Writes the content to a binary stream.

    Raises:
        TurnoverError: It cannot be written.
    """
    target = output.resolve()
    whole = target.is_file() or not target.exists()
    fresh = target.with_name(f".{target.name}.partial") if whole else target
    try:
        with fresh.open("wb") as stream:
            write(stream)
        if whole:
            fresh.replace(target)
    except OSError as error:
        raise TurnoverError(
            f"{output} cannot be written ({error.strerror or error}). Name with --output a file in a folder "
            "that exists and can be written."
        ) from error
    finally:
        if whole:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
