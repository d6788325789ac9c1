"""`turnover keys`: make, list, revoke and replace the keys of the REST API and the web page.

What belongs here: the commands and their tables. What does not: keeping keys (storage/api_keys.py), and who
is let in by them (serving/access).
"""

import csv
import io
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from turnover_assets.commands.console import PIPED_WIDTH, err, plain_errors
from turnover_assets.core.api_keys import SCOPES, parse_rate
from turnover_assets.errors import TurnoverError, UnknownNameError

if TYPE_CHECKING:
    from turnover_assets.core.api_keys import Scope
    from turnover_assets.storage.api_keys import ApiKey, KeyStore, NewKey

app = typer.Typer(help="Keys of the API and the web page: make, list, revoke, replace.", no_args_is_help=True)
STYLES = {"active": "", "replaced": "yellow", "expired": "dim", "revoked": "dim"}
COLUMNS = ("id", "name", "state", "scopes", "rate", "ab_share", "created_at", "expires_at", "revoked_at")
Which = Annotated[str, typer.Argument(help="Id or name of the key.", metavar="KEY")]
Expires = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day (UTC) on which it works.")
]


class KeysFormat(StrEnum):
    """How keys are listed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose it is, or what for.")],
    scope: Annotated[
        list[str] | None, typer.Option(help=f"What it permits: {', '.join(SCOPES)}; may be repeated.")
    ] = None,
    expires: Expires = None,
    rate: Annotated[
        str,
        typer.Option(help="Requests it may send: 600/minute or the like, or unlimited; else the setting."),
    ] = "",
    ab_share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the series that the challenger answers for it, a test."),
    ] = None,
) -> None:
    """Make a key and print it, once: only its digest is kept. Running servers know it within seconds."""
    with plain_errors():
        made = _store().create(
            name,
            _scopes(scope or ["read"]),
            datetime.now(UTC),
            expires_at=_end_of(expires),
            rate=_rate(rate),
            ab_share=ab_share,
        )
        _hand_over(made)


@app.command("list")
def list_keys(
    list_format: Annotated[KeysFormat, typer.Option("--format", help="Format.")] = KeysFormat.TABLE,
) -> None:
    """Show which keys there are; the keys themselves nobody can show any more."""
    with plain_errors():
        rows = [_row(key) for key in _store().read()]
        if list_format is KeysFormat.JSON:
            typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        elif list_format is KeysFormat.CSV:
            typer.echo(_as_csv(rows))
        elif rows:
            typer.echo(_as_table(rows))
        else:
            err.print("There is no key yet: `turnover keys create --name NAME --scope read` makes one.")


@app.command()
def revoke(which: Which) -> None:
    """End a key, or all keys of a name, for ever. Running servers refuse it within seconds."""
    with plain_errors():
        for key in _store().revoke(which, datetime.now(UTC)):
            err.print(f"Revoked: {escape(key.name)} ({key.key_id}).", soft_wrap=True)


@app.command()
def rotate(
    which: Which,
    overlap_hours: Annotated[
        float, typer.Option(min=0, help="Hours for which the old key still works.")
    ] = 24.0,
    expires: Expires = None,
) -> None:
    """Make a key in place of another, with the same name, scopes and rate, and print it, once."""
    with plain_errors():
        overlap = timedelta(hours=overlap_hours)
        made = _store().rotate(which, datetime.now(UTC), overlap, _end_of(expires))
        _hand_over(made)
        until = f"{datetime.now(UTC) + overlap:%Y-%m-%d %H:%M} UTC at most" if overlap else "no longer"
        err.print(f"The key before it works {'until ' if overlap else ''}{until}.")


def _store() -> "KeyStore":
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.api_keys import KeyStore

    return KeyStore(load_settings().keys_path)


def _scopes(names: Sequence[str]) -> "list[Scope]":
    """The scopes that were named.

    Raises:
        UnknownNameError: One is none.
    """
    for name in names:
        if name not in SCOPES:
            raise UnknownNameError("scope", name, SCOPES)
    return [scope for scope in SCOPES if scope in names]


def _rate(text: str) -> str:
    """A rate as it was given, if it is one.

    Raises:
        TurnoverError: It is none.
    """
    try:
        if text:
            parse_rate(text)
    except ValueError as error:
        raise TurnoverError(f"{error}; or write unlimited.") from None
    return text


def _end_of(day: datetime | None) -> datetime | None:
    return day.replace(tzinfo=UTC) + timedelta(days=1) if day else None


def _hand_over(made: "NewKey") -> None:
    """Print a key to standard output, and all about it to standard error."""
    key = made.kept
    until = f", until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else ""
    scopes = ", ".join(scope for scope in SCOPES if scope in key.scopes)
    err.print(f"Key {key.key_id} for {escape(key.name)!r}: {scopes}{until}.", soft_wrap=True)
    err.print("Keep it now: it is shown this once. Send it in the header X-API-Key.")
    typer.echo(made.secret)


def _row(key: "ApiKey") -> dict[str, Any]:
    """What is told of a key, by column; nothing of its digest."""
    return {
        "id": key.key_id,
        "name": key.name,
        "state": key.state(datetime.now(UTC)),
        "scopes": [scope for scope in SCOPES if scope in key.scopes],
        "rate": key.rate,
        "ab_share": key.ab_share,
        **{
            name: moment.isoformat(timespec="seconds") if moment else None
            for name, moment in (
                ("created_at", key.created_at),
                ("expires_at", key.expires_at),
                ("revoked_at", key.revoked_at),
            )
        },
    }


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "scopes": " ".join(row["scopes"])} for row in rows)
    return stream.getvalue().rstrip("\n")


def _as_table(rows: Sequence[dict[str, Any]]) -> str:
    table = Table(box=None, pad_edge=False)
    for name in ("id", "name", "state", "scopes", "rate", "A/B share", "created (UTC)", "works until (UTC)"):
        table.add_column(name, overflow="fold", no_wrap=name in ("id", "state"))
    for row in rows:
        share = "" if row["ab_share"] is None else f"{row['ab_share']:.0%}"
        times = [(row[name] or "")[:16].replace("T", " ") for name in ("created_at", "expires_at")]
        scopes, style = ", ".join(row["scopes"]), STYLES[row["state"]]
        texts = (row["id"], escape(row["name"]), row["state"], scopes, row["rate"], share, *times)
        table.add_row(*texts, style=style or None)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")
