"""`turnover backtest`: what the platform would have forecast at past cutoffs, beside what was reported.

What belongs here: the command and its account. What does not: the work (backtesting.py, core/backtest.py).
"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from turnover_assets.commands.console import ExportFormat, err, plain_errors, write_frame

if TYPE_CHECKING:
    import pandas as pd

DATE = "%Y-%m-%d"


def backtest(
    windows: Annotated[
        int | None, typer.Option(min=1, help="Newest windows to judge, one horizon apart; default 3.")
    ] = None,
    cutoff: Annotated[
        list[datetime] | None,
        typer.Option(formats=[DATE], help="A cutoff to judge, the date of a period; may be repeated."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Candidate; default the champion's. May be repeated.")
    ] = None,
    level: Annotated[
        str | None, typer.Option(help="Sums by this level of the panel, or `total`, in place of series.")
    ] = None,
    file_format: Annotated[ExportFormat, typer.Option("--format", help="File format.")] = ExportFormat.CSV,
    output: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
) -> None:
    """Judge models by rolling origin: a row for each series, cutoff and horizon, with bounds.

    Features, repairs, weights and intervals are those that could be known at each cutoff; forecasts are
    scored against what was reported. A file that ends in .parquet is written as Parquet.
    """
    from turnover_assets.backtesting import BacktestOrder, hold_backtest
    from turnover_assets.settings import load_settings

    with plain_errors():
        order = BacktestOrder(
            windows=windows or 3,
            cutoffs=tuple(day.date() for day in cutoff or ()),
            models=tuple(model or ()),
            level=level,
        )
        found = hold_backtest(
            load_settings(), order, lambda text: err.print(f"… {escape(text)}", soft_wrap=True)
        )
        err.print(_account(found.scores))
        write_frame(found.rows, output, file_format)


def _account(scores: "pd.DataFrame") -> Table:
    """WAPE, bias and coverage by model and cutoff."""
    table = Table(box=None, pad_edge=False)
    for name in scores.columns:
        table.add_column(str(name), justify="left" if name in ("model", "cutoff") else "right")
    for row in scores.itertuples(index=False):
        table.add_row(*(_shown(value) for value in row))
    return table


def _shown(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.1%}"
    return str(value)
