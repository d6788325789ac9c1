"""`turnover adjustments`: what is repaired in the history, and the steward's word on it.

What belongs here: showing adjustments, and entering decisions on them into the ledger. What does not: what
follows from a decision (core/adjustments.py), and writing the file (storage/ledger.py).
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from turnover_assets.commands.console import PIPED_WIDTH, err, plain_errors, user_name
from turnover_assets.errors import NoSnapshotError, TurnoverError, UnknownNameError

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

    with plain_errors():
        settings = load_settings()
        try:
            known = _published(settings)
        except NoSnapshotError:
            known = []  # the ledger's entries can be shown all the same
        coming = _coming(settings, known)
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
        settings, found = _found(adjustment_id)
        remedy: dict[str, Any] = {"factor": found.factor, "value": found.value}
        if factor is not None:
            remedy = {"factor": factor}
        elif found.remedy == "empty":
            remedy = {"missing": True}
        _enter(settings, "adjustment", found, remedy, reason or found.reason, who)


@app.command()
def veto(
    adjustment_id: Identifier,
    reason: Annotated[str, typer.Option(help="Why the detector is mistaken.")],
    who: Who = None,
) -> None:
    """Enter into the ledger that a detector is mistaken, so that its adjustment does not apply."""
    with plain_errors():
        settings, found = _found(adjustment_id)
        _enter(settings, "veto", found, {}, reason, who)


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
    """The adjustments of the current snapshot; none where it is of a release that had none."""
    from turnover_assets.core.adjustments import read_adjustments
    from turnover_assets.storage.snapshots import lease

    with lease(settings.published_path) as snapshot:
        if "adjustments" not in snapshot.facts["tables"]:
            return []
        return read_adjustments(settings.panel_spec, snapshot.read("adjustments"))


def _coming(settings: "Settings", known: "list[Adjustment]") -> "list[Adjustment]":
    """What the ledger as it is now makes of the published adjustments."""
    from turnover_assets.core.adjustments import settle
    from turnover_assets.storage.ledger import read_ledger

    ledger = read_ledger(settings.ledger_path, settings.panel_spec)
    rows = {a.adjustment_id: a.rows for a in known}
    detected = [a for a in known if a.origin == "detector"]
    settled = settle(detected, ledger, settings.adjustment_strength)
    return [replace(a, rows=rows.get(a.adjustment_id, 0)) for a in settled]


def _found(beginning: str) -> "tuple[Settings, Adjustment]":
    """The one detector's adjustment whose id begins so."""
    from turnover_assets.settings import load_settings

    settings = load_settings()
    known = _published(settings)
    detected = {a.adjustment_id: a for a in known if a.origin == "detector"}
    if any(a.adjustment_id.startswith(beginning) for a in known if a.origin == "steward"):
        raise TurnoverError(
            f"{beginning!r} is an entry of the ledger itself. Change it there: {settings.ledger_path}"
        )
    chosen = [a for name, a in detected.items() if name.startswith(beginning)]
    if not chosen:
        raise UnknownNameError("detector's adjustment", beginning, list(detected) or ["none"])
    if len(chosen) > 1:
        names = ", ".join(sorted(a.adjustment_id for a in chosen))
        raise TurnoverError(f"{beginning!r} may be any of {names}. Give more of the id.")
    return settings, chosen[0]


def _enter(
    settings: "Settings",
    kind: Literal["adjustment", "veto"],
    found: "Adjustment",
    remedy: Mapping[str, Any],
    reason: str,
    who: str | None,
) -> None:
    """Write an entry on what a detector found, and say what follows."""
    from turnover_assets.core.calendar import label_of
    from turnover_assets.storage.ledger import add_entry

    panel = settings.panel_spec
    fields = {
        **({"where": found.where} if found.where else {"all": True}),
        "since": label_of(panel, found.since),
        "until": None if found.until is None else label_of(panel, found.until),
        **remedy,
        "reason": reason,
        "who": who or user_name(),
        "when": date.today(),
    }
    added = add_entry(settings.ledger_path, panel, kind, fields)
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
