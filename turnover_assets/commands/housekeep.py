"""`turnover housekeep`: remove now what nothing needs any more, or see what that would be.

What belongs here: the command and its account. What does not: the work (defs/housekeeping.py).
"""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from turnover_assets.commands.console import err, plain_errors


class AccountFormat(StrEnum):
    """How the account is given."""

    TABLE = "table"
    JSON = "json"


def housekeep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    account_format: Annotated[AccountFormat, typer.Option("--format", help="Format.")] = AccountFormat.TABLE,
) -> None:
    """Remove old records, logs, snapshots, models and leftovers that nothing needs, as the daily job does."""
    from turnover_assets.maintenance import keep_house
    from turnover_assets.settings import load_settings

    def tell(kind: str, text: str) -> None:
        if kind == "wait":
            err.print(f"… {escape(text)}", soft_wrap=True)

    with plain_errors():
        parts = keep_house(load_settings(), tell, dry=dry_run)
        if account_format is AccountFormat.JSON:
            typer.echo(json.dumps(list(parts), indent=2))
        else:
            Console(highlight=False, width=max(err.width, 100)).print(_table(parts))
        removed, freed = (sum(part[name] for part in parts) for name in ("removed", "bytes"))
        did, free = ("Would remove", "free") if dry_run else ("Removed", "freed")
        err.print(f"{did} {removed:,} things and {free} {freed / 1e6:,.1f} MB.")


def _table(parts: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("part", "removed", "MB", "which", "kept and why"):
        table.add_column(name, justify="right" if name in ("removed", "MB") else "left", overflow="fold")
    for part in parts:
        kept = "; ".join(text for text in (part["kept"], part["note"]) if text)
        size = f"{part['bytes'] / 1e6:,.1f}"
        table.add_row(part["part"], f"{part['removed']:,}", size, escape(part["which"]), escape(kept))
    return table
