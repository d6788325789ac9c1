"""`turnover decisions`: what sensors and schedules decided by themselves, and why.

What belongs here: the command and its table. What does not: deciding (defs) and keeping (storage).
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from turnover_assets.commands.console import ExportFormat, err, plain_errors, write_frame

if TYPE_CHECKING:
    import pandas as pd


class Format(StrEnum):
    """How decisions are shown."""

    TABLE = "table"
    CSV = "csv"
    PARQUET = "parquet"


def decisions(
    automation: Annotated[
        str | None, typer.Option(help="Only those of one sensor or schedule, such as refresh_sensor.")
    ] = None,
    newest: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    file_format: Annotated[Format, typer.Option("--format", help="How to show them.")] = Format.TABLE,
    output: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
) -> None:
    """What was decided automatically, the newest first, and why it did something or did nothing."""
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.decision_log import DecisionLog

    with plain_errors():
        found = DecisionLog(load_settings().decisions_path).read(automation, newest)
        if file_format is not Format.TABLE or output is not None:
            chosen = ExportFormat.PARQUET if file_format is Format.PARQUET else ExportFormat.CSV
            write_frame(found, output, chosen)
        elif found.empty:
            err.print("Nothing was decided yet: sensors decide while `turnover ui` runs.")
        else:
            typer.echo(_shown(found))


def _shown(found: "pd.DataFrame") -> str:
    """The decisions as a table; reasons are folded."""
    table = Table(box=None, pad_edge=False)
    for name in ("last (UTC)", "looks", "automation", "outcome", "reason"):
        table.add_column(name, justify="right" if name == "looks" else "left", overflow="fold")
    for row in found.itertuples(index=False):
        moment = f"{row.last_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(moment, str(row.looks), str(row.automation), str(row.outcome), Text(str(row.reason)))
    console = Console(width=140)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()
