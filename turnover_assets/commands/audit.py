"""`turnover audit`: what was asked of the API and the web page, by whom, and what was answered.

What belongs here: the command, its summary for people, and rows for programs. What does not: what is recorded
(serving/audit.py), and the files (storage/audit.py).
"""

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from turnover_assets.commands.console import err, hand_out, plain_errors
from turnover_assets.errors import TurnoverError

if TYPE_CHECKING:
    import duckdb

    from turnover_assets.storage.audit import AuditFilter

PIPED_WIDTH = 140  # characters, where the output is no terminal
ROWS_AT_ONCE = 10_000
MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
STATUS = re.compile(r"[1-5](\d\d|xx)|0")
TOTALS = """
SELECT count(*) FILTER (dropped = 0), min(asked_at), max(asked_at), coalesce(sum(dropped), 0)::BIGINT FROM
audit
"""
FIGURES = """
count(*), count(*) FILTER (status BETWEEN 400 AND 499), count(*) FILTER (status >= 500 OR status = 0),
median(milliseconds), quantile_cont(milliseconds, 0.99), sum(bytes)::BIGINT
"""
BY_ROUTE = f"""
SELECT method || ' ' || CASE route WHEN '' THEN '(no route)' ELSE route END AS what, {FIGURES} FROM audit
WHERE dropped = 0 GROUP BY what ORDER BY count(*) DESC, what LIMIT 20
"""
BY_CALLER = f"""
SELECT CASE caller WHEN '' THEN '(nobody)' ELSE caller END AS who, {FIGURES} FROM audit
WHERE dropped = 0 GROUP BY who ORDER BY count(*) DESC, who LIMIT 20
"""
BY_MODEL = f"""
SELECT concat_ws(' ', role, 'version', model_version) AS model, {FIGURES} FROM audit
WHERE model_version IS NOT NULL GROUP BY role, model_version ORDER BY count(*) DESC, model LIMIT 20
"""


class AuditFormat(StrEnum):
    """How rows are given."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"


def audit(
    since: Annotated[
        datetime | None, typer.Option(formats=MOMENTS, help="From when on (UTC); default: a week back.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=MOMENTS, help="Until when (UTC); a day is meant whole.")
    ] = None,
    key: Annotated[str, typer.Option(help="Id of a key, or another caller as the audit names it.")] = "",
    route: Annotated[str, typer.Option(help="A route, or the beginning of a path.")] = "",
    status: Annotated[str, typer.Option(help="A status such as 404, or a class such as 5xx.")] = "",
    file_format: Annotated[
        AuditFormat | None, typer.Option("--format", help="Give the rows, rather than a summary.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File for the rows; default: standard output.")] = None,
) -> None:
    """What was asked of the servers of this home: a summary, or every row with --format or --output."""
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.audit import opened_audit

    with plain_errors():
        chosen = _chosen(since, until, key, route, status)
        with opened_audit(load_settings().audit_path, chosen) as con:
            if file_format or output:
                _give(con, file_format or _format_of(output), output)
            else:
                _summarise(con, chosen)


def _chosen(
    since: datetime | None, until: datetime | None, key: str, route: str, status: str
) -> "AuditFilter":
    from turnover_assets.storage.audit import AuditFilter

    if status and not STATUS.fullmatch(status):
        raise TurnoverError(f"{status!r} is no status: write one such as 404, or a class such as 5xx.")
    begin = since.replace(tzinfo=UTC) if since else datetime.now(UTC) - timedelta(days=7)
    end = until.replace(tzinfo=UTC) if until else None
    if end and (end.hour, end.minute, end.second) == (0, 0, 0):
        end += timedelta(days=1)
    return AuditFilter(begin, end, key, route, status)


def _format_of(output: Path | None) -> AuditFormat:
    """The format that a file's name asks for; csv where it asks for none."""
    suffix = output.suffix.removeprefix(".") if output else ""
    return AuditFormat(suffix) if suffix in [*AuditFormat] else AuditFormat.CSV


def _give(con: "duckdb.DuckDBPyConnection", file_format: AuditFormat, output: Path | None) -> None:
    """Write the rows, in bounded memory."""
    hand_out(output, lambda stream: _write(con, file_format, stream), "Written to")


def _write(con: "duckdb.DuckDBPyConnection", file_format: AuditFormat, stream: BinaryIO) -> None:
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    reader = con.execute("FROM audit ORDER BY asked_at").to_arrow_reader(ROWS_AT_ONCE)
    if file_format is AuditFormat.JSON:
        for batch in reader:
            for row in batch.to_pylist():
                stream.write(json.dumps(row, default=lambda at: at.isoformat(), ensure_ascii=False).encode())
                stream.write(b"\n")
        return
    writer = pa_csv.CSVWriter if file_format is AuditFormat.CSV else pq.ParquetWriter
    with writer(stream, reader.schema) as table:
        for batch in reader:
            table.write_batch(batch)


def _summarise(con: "duckdb.DuckDBPyConnection", chosen: "AuditFilter") -> None:
    """Tell how many requests there were, of whom, on what, and how they went."""
    requests, first, last, dropped = con.execute(TOTALS).fetchall()[0]
    if dropped:
        err.print(f"[yellow]{dropped:,} rows were dropped under overload: the figures lack them.[/]")
    if not requests:
        err.print(f"No request is recorded since {chosen.since:%Y-%m-%d %H:%M} UTC.")
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    console.print(f"{requests:,} requests from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC")
    for title, query in (("route", BY_ROUTE), ("caller", BY_CALLER), ("model", BY_MODEL)):
        if found := con.execute(query).fetchall():
            console.print()
            console.print(_table(title, found))


def _table(title: str, rows: Sequence[tuple[Any, ...]]) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, overflow="fold")
    for name in ("requests", "4xx", "5xx", "median ms", "p99 ms", "MB"):
        table.add_column(name, justify="right")
    for what, count, wrong, failed, median, slowest, size in rows:
        figures = (f"{count:,}", f"{wrong:,}", f"{failed:,}", f"{median:,.1f}", f"{slowest:,.1f}")
        table.add_row(escape(str(what)), *figures, f"{size / 1e6:,.1f}")
    return table
