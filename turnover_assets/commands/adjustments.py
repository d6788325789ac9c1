"""`turnover adjustments`: what is repaired in the history, and the steward's word on it.

What belongs here: showing adjustments, and entering decisions on them into the ledger. What does not: what
follows from a decision (core/adjustments.py), and entering it (storage/stewardship.py).
"""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from turnover_assets.commands.console import PIPED_WIDTH, err, plain_errors, user_name
from turnover_assets.errors import NoSnapshotError

if TYPE_CHECKING:
    import pandas as pd

    from turnover_assets.core.adjustments import Adjustment
    from turnover_assets.settings import Settings

app = typer.Typer(help="Repairs of the history: see them, accept or veto them.", no_args_is_help=True)


class Status(StrEnum):
    """What has become of an adjustment; see core.adjustments.Status."""

    APPLIED = "applied"
    PROPOSED = "proposed"
    VETOED = "vetoed"
    OVERRULED = "overruled"


class TableFormat(StrEnum):
    """How a table is shown."""

    TABLE = "table"
    CSV = "csv"


Identifier = Annotated[str, typer.Argument(help="Id from the list, or its beginning.", metavar="ID")]
Who = Annotated[str | None, typer.Option(help="Who decides; default: the user of this system.")]


@app.command("list")
def list_adjustments(
    status: Annotated[list[Status] | None, typer.Option(help="Only these; may be repeated.")] = None,
    table_format: Annotated[TableFormat, typer.Option("--format", help="Format.")] = TableFormat.TABLE,
) -> None:
    """Show all adjustments, as they will stand after the next run.

    Those that the published snapshot does not have so yet are marked.
    """
    from turnover_assets.core.adjustments import adjustments_table
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.stewardship import coming_adjustments

    with plain_errors():
        settings = load_settings()
        try:
            known = _published(settings)
        except NoSnapshotError:
            known = []  # the ledger's entries can be shown all the same
        coming = coming_adjustments(settings, known)
        table = adjustments_table(settings.panel_spec, coming)
        stands = {(a.adjustment_id, a.status) for a in known}
        table["published"] = [(a.adjustment_id, a.status) in stands for a in coming]
        if status:
            table = table[table["status"].isin([wanted.value for wanted in status])]
        if table_format is TableFormat.CSV:
            table.to_csv(sys.stdout, index=False)
        else:
            _show(table)


@app.command()
def accept(
    adjustment_id: Identifier,
    who: Who = None,
    reason: Annotated[str | None, typer.Option(help="Why; default: the finding in words.")] = None,
    factor: Annotated[
        float | None, typer.Option(help="Reported over true value; default: the finding's.")
    ] = None,
) -> None:
    """Enter what a detector found into the ledger, so that it applies whatever its strength.

    What still goes on is entered without an end; give it one in the ledger when it stops.
    """
    with plain_errors():
        _decide(adjustment_id, "accept", reason, who, factor)


@app.command()
def veto(
    adjustment_id: Identifier,
    reason: Annotated[str, typer.Option(help="Why the detector is mistaken.")],
    who: Who = None,
) -> None:
    """Enter into the ledger that a detector is mistaken, so that its adjustment does not apply."""
    with plain_errors():
        _decide(adjustment_id, "veto", reason, who)


@app.command()
def check() -> None:
    """Validate the ledger; lists everything that is wrong with it."""
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.ledger import read_ledger

    with plain_errors():
        settings = load_settings()
        ledger, path = read_ledger(settings.ledger_path, settings.panel_spec), settings.ledger_path
        if not path.exists():
            err.print(f"There is no ledger; it would be {escape(str(path))}.", soft_wrap=True)
            return
        entries = f"{len(ledger.corrections)} adjustments and {len(ledger.vetoes)} vetoes"
        err.print(f"{escape(str(path))} is valid: {entries}.", soft_wrap=True)


def _published(settings: "Settings") -> "list[Adjustment]":
    """The adjustments of the current snapshot."""
    from turnover_assets.storage.snapshots import lease
    from turnover_assets.storage.stewardship import published_adjustments

    with lease(settings.published_path) as snapshot:
        return published_adjustments(snapshot, settings)


def _decide(
    beginning: str,
    verdict: Literal["accept", "veto"],
    reason: str | None,
    who: str | None,
    factor: float | None = None,
) -> None:
    """Write an entry on what a detector found, and say what follows."""
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.stewardship import Word, enter, find_detected

    settings = load_settings()
    found = find_detected(settings, _published(settings), beginning)
    added = enter(settings, found, Word(verdict, who or user_name(), reason or found.reason, factor))
    err.print(f"Added to {escape(str(settings.ledger_path))}:\n\n{escape(added)}", soft_wrap=True)
    err.print("It applies from the next `turnover run` on; where the sensors are on, they start one.")


def _show(table: "pd.DataFrame") -> None:
    """Print adjustments for people, on standard output."""
    if table.empty:
        err.print("There are no such adjustments.")
        return
    shown = Table(box=None, pad_edge=False)
    for name in ("id", "status", "by", "where", "since", "until", "repair", "rows", "strength", "reason"):
        shown.add_column(name, no_wrap=name in ("id", "since", "until"), overflow="fold")
    for row in table.to_dict("records"):
        shown.add_row(
            row["adjustment_id"],
            row["status"] if row["published"] else f"{row['status']} *",
            escape(row["who"] or row["origin"]),
            escape(row["selector"]),
            str(row["since"]),
            "goes on" if row["until"] is None else str(row["until"]),
            _repair(row["factor"], row["value"]),
            f"{row['rows']:,}",
            "" if row["strength"] is None else f"{row['strength']:.1f}",
            escape(row["reason"]),
        )
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    Console(highlight=False, width=width).print(shown)
    if not table["published"].all():
        err.print("* from the next run on")


def _repair(factor: float | None, value: float | None) -> str:
    if factor is not None:
        return f"÷ {factor:.4g}"
    return "as missing" if value is None else f"= {value:,.2f}"
