"""What commands share: the console for people, plain errors, file formats, files written whole, who decides.

What belongs here: helpers that two or more commands use. What does not: the commands.
"""

import getpass
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from turnover_assets.core.log_lines import log_line
from turnover_assets.errors import TurnoverError

if TYPE_CHECKING:
    import pandas as pd


PIPED_WIDTH = 160  # characters, where the output is no terminal


class _Messages(Console):
    """Messages for people; where logs are for programs, a JSON line each."""

    def print(self, *objects: Any, level: str = "INFO", **options: Any) -> None:
        """Print as rich does; `level` is that of the JSON line."""
        from turnover_assets.settings import wanted_log_format

        if wanted_log_format() == "json":
            texts = [Text.from_markup(each).plain if isinstance(each, str) else str(each) for each in objects]
            write_log_line(level, " ".join(texts))
        else:
            super().print(*objects, **options)


err = _Messages(stderr=True, highlight=False)


def write_log_line(level: str, message: str, **facts: Any) -> None:
    """Write a JSON line to standard error."""
    sys.stderr.write(f"{log_line(datetime.now(UTC), level, message, **facts)}\n")
    sys.stderr.flush()


class ExportFormat(StrEnum):
    """File formats of exported tables."""

    CSV = "csv"
    PARQUET = "parquet"


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print an error of ours as its message alone, and end with exit code 1."""
    from turnover_assets.settings import wanted_log_format

    if wanted_log_format() == "json":
        _log_as_json()
    try:
        yield
    except TurnoverError as error:
        err.print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True, level="ERROR")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err.print("Stopped. What had landed and was published stays; run again to go on.")
        raise typer.Exit(130) from None


class _JsonLines(logging.Formatter):
    """What libraries log and warn of, in the same form."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a JSON line."""
        kind, error = (record.exc_info or (None, None))[:2]
        return log_line(
            datetime.fromtimestamp(record.created, UTC),
            record.levelname,
            record.getMessage(),
            logger=record.name,
            exception=kind.__name__ if kind else None,
            error=str(error) if error else None,
        )


def _log_as_json() -> None:
    """Let everything that this process logs, warns of or dies of be a JSON line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The last line of a command that ends by an error that is not expected."""
    where = traceback.extract_tb(trace)[-1:] if trace else []
    write_log_line(
        "CRITICAL",
        "The command ended by an error that is not expected.",
        exception=kind.__name__,
        error=str(error),
        where=f"{where[0].filename}:{where[0].lineno}" if where else None,
    )


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

    hand_out(output, write, f"{len(table):,} rows written to")


def hand_out(output: Path | None, write: Callable[[BinaryIO], None], told: str) -> None:
    """Write to a file, whole or not at all, and say so; or to standard output.

    Args:
        output: The file; None for standard output.
        write: Writes into an open stream.
        told: What is said before the name of the file.

    Raises:
        TurnoverError: It cannot be written.
    """
    if output is None:
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        write_whole(output, write)
        err.print(f"{told} {escape(str(output))}", soft_wrap=True)


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
