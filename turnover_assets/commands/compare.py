"""`turnover compare`: two published snapshots side by side.

What belongs here: arguments, and the account in words. What does not: the comparison (storage/comparison.py).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.markup import escape

from turnover_assets.commands.console import ExportFormat, err, plain_errors, write_whole

if TYPE_CHECKING:
    import duckdb

    from turnover_assets.core.comparison import TableDifference
    from turnover_assets.storage.comparison import Change, SnapshotDifference

NAMES_SHOWN = 10


def compare(
    a: Annotated[
        str, typer.Argument(help="A snapshot: its id, how that begins, current or previous.")
    ] = "previous",
    b: Annotated[str, typer.Argument(help="The snapshot to set beside it.")] = "current",
    output: Annotated[Path | None, typer.Option(help="File for every cell that differs.")] = None,
    file_format: Annotated[
        ExportFormat, typer.Option("--format", help="Format of that file.")
    ] = ExportFormat.CSV,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 1 where the values differ, as diff does.")
    ] = False,
) -> None:
    """Set two published snapshots side by side and list what differs."""
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.comparison import compare_snapshots, comparing, find_snapshot
    from turnover_assets.storage.snapshots import lease

    with plain_errors(), ExitStack() as reading:
        settings = load_settings()
        published = settings.published_path
        names = [find_snapshot(published, name).name for name in (a, b)]
        sides = [reading.enter_context(lease(published, name)) for name in names]
        with comparing(settings) as con:
            found = compare_snapshots(con, settings.panel_spec, *sides)
            for line in account(found, settings.panel_spec.series.name, settings.panel_spec.target):
                typer.echo(line)
            if output is not None:
                _write_cells(con, output, file_format)
        if exit_code and not found.equal:
            raise typer.Exit(1)


def _write_cells(con: "duckdb.DuckDBPyConnection", output: Path, file_format: ExportFormat) -> None:
    """Every differing cell, in bounded memory."""
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    from turnover_assets.core.comparison import CELLS

    def write(stream: BinaryIO) -> None:
        reader = con.sql(f"FROM {CELLS} ORDER BY ALL").to_arrow_reader()
        writer = (pa_csv.CSVWriter if file_format is ExportFormat.CSV else pq.ParquetWriter)(
            stream, reader.schema
        )
        with writer:
            for batch in reader:
                writer.write_batch(batch)

    write_whole(output, write)
    err.print(f"Differing cells written to {escape(str(output))}", soft_wrap=True)


def account(found: "SnapshotDifference", series: str, target: str) -> Iterator[str]:
    """The account for people, line by line.

    Args:
        found: The comparison.
        series: Name of the series table.
        target: Name of the target.
    """
    for side, snapshot in (("A", found.a), ("B", found.b)):
        yield f"{side}  {snapshot.name}, published {snapshot.facts.get('created_at', 'at an unknown time')}"
    if found.facts:
        yield "\nFacts that differ"
        yield from (f"  {change.what:<28} {change.a} -> {change.b}" for change in found.facts)
    yield from _tables(found)
    if series in found.tables:
        yield from _series(found, found.tables[series], target)
    if found.forecasts:
        yield "\nForecasts that changed most, added up over the periods that both forecast"
        yield from (f"  {_amounts(change)}" for change in found.forecasts)
    yield "\nThe values are the same." if found.equal else "\nThe values differ."


def _tables(found: "SnapshotDifference") -> Iterator[str]:
    yield f"\n{'Table':<22}{'rows A':>12}{'rows B':>12}{'only A':>10}{'only B':>10}{'changed':>10}"
    for name, table in found.tables.items():
        counts = f"{table.only_a:>10,}{table.only_b:>10,}{table.changed:>10,}"
        columns = ", ".join(f"{column} {count:,}" for column, count in table.changed_by_column.items())
        yield f"  {name:<20}{table.rows_a:>12,}{table.rows_b:>12,}{counts}  {columns}".rstrip()
        for side, names in (("A", table.columns_only_a), ("B", table.columns_only_b)):
            if names:
                yield f"    columns in {side} only: {', '.join(names)}"
    for side, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            yield f"  in {side} only: {', '.join(names)}"


def _series(found: "SnapshotDifference", table: "TableDifference", target: str) -> Iterator[str]:
    if not table.equal:
        yield f"\nTotal {target}"
        yield from (f"  {_amounts(change)}" for change in found.totals)
    restated = table.changed_by_column.get(target, 0)
    if restated:
        yield f"\nRestated: {restated:,} values of {target}"
        yield from (f"  {_amounts(change)}" for change in found.restated)
        yield from _more(restated - len(found.restated), "values (--output FILE lists all)")
    for side, names in (("New series (in B only)", found.new), ("Gone series (in A only)", found.gone)):
        if names:
            yield f"\n{side}: {len(names):,}"
            yield from (f"  {name}" for name in names[:NAMES_SHOWN])
            yield from _more(len(names) - NAMES_SHOWN, "series")


def _more(count: int, what: str) -> Sequence[str]:
    return [f"  … and {count:,} more {what}"] if count > 0 else []


def _amounts(change: "Change") -> str:
    share = f" ({change.b / change.a - 1:+.2%})" if change.a and change.b is not None else ""
    return f"{change.what}: {_number(change.a)} -> {_number(change.b)}{share}"


def _number(value: Any) -> str:
    return "none" if value is None else f"{value:,.2f}"
