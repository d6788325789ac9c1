"""The audit of requests as files: append-only segments of Parquet, in a folder for each day (UTC).

What belongs here: the columns, writing segments, merging small ones, removing old days, and reading. What
does not: what is recorded of a request (serving/audit.py), and showing it (commands/audit.py).

    <home>/audit/2026-11-28/093005-api-1-17-3f9a2c.parquet     time, host, process, a number that was drawn
    <home>/audit/2026-11-27/merged-7be1d0….parquet             what housekeeping made of that day's segments

Invariants:
    - a segment appears under its name only once it is whole and on disk, and is never changed;
    - names are unique, so any number of processes write side by side without waiting for each other;
    - a merged file names the segments it was made of, which count no more from the moment it has its name, so
    a
      kill at any point neither loses a row nor shows one twice;
    - files are removed only while nobody reads; who reads locks the folder.
"""

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from turnover_assets.core.housekeeping import Sweep
from turnover_assets.errors import HomeError
from turnover_assets.storage.durable import PARTIAL, exclusive, shared, sync

SCHEMA = pa.schema(
    [
        ("asked_at", pa.timestamp("us", "UTC")),
        ("request_id", pa.string()),
        ("caller", pa.string()),
        ("method", pa.string()),
        ("route", pa.string()),
        ("path", pa.string()),
        ("query", pa.string()),
        ("body", pa.string()),
        ("body_bytes", pa.int64()),
        ("status", pa.int16()),
        ("milliseconds", pa.float64()),
        ("bytes", pa.int64()),
        ("snapshot", pa.string()),
        ("model_version", pa.int32()),
        ("role", pa.string()),
        ("predictions", pa.int32()),
        ("dropped", pa.int64()),
    ]
)
COLUMNS = tuple(SCHEMA.names)
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
DAY_MICROSECONDS = 86_400_000_000
MERGED, REPLACES = "merged-", "replaces"
OWNER_ONLY = 0o600
BATCH = 500  # rows that are turned into columns at once; in between, requests go on
SETTLED_SECONDS = 600  # a segment of today is merged once it is older
SMALL_BYTES = 64 << 20  # larger files are merged no further
MEMORY = "512MB"
HOST = re.sub(r"[^0-9A-Za-z.-]", "-", socket.gethostname())[:40] or "host"
Row = tuple[Any, ...]


@dataclass(frozen=True)
class AuditFilter:
    """Which rows are meant.

    Attributes:
        since: From when on.
        until: Before when.
        caller: Id of a key or caller.
        route: A route, or the beginning of a path.
        status: A status, or a class of them such as `4xx`.
    """

    since: datetime | None = None
    until: datetime | None = None
    caller: str = ""
    route: str = ""
    status: str = ""


def dropped_row(at: int, count: int) -> Row:
    """The row that tells how many others were dropped up to a time."""
    return (at, "", "", "", "", "", "", "", 0, 0, 0.0, 0, "", None, "", None, count)


def write_rows(folder: Path, rows: Sequence[Row]) -> Iterator[int]:
    """Write rows into segments, one for each day they are of.

    Args:
        folder: Folder of the audit.
        rows: Values in the order of COLUMNS; `asked_at` in microseconds since 1970.

    Yields:
        After each segment, how many of the rows are on disk by then.

    Raises:
        OSError: A segment cannot be written; nothing is left of it.
    """
    done = 0
    for day, group in groupby(rows, lambda row: row[0] // DAY_MICROSECONDS):
        chosen = list(group)
        _write_segment(folder / str(date(1970, 1, 1) + timedelta(days=day)), chosen)
        done += len(chosen)
        yield done


def _write_segment(day: Path, rows: Sequence[Row]) -> None:
    day.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    day.mkdir(mode=0o700, exist_ok=True)
    name = f"{datetime.now(UTC):%H%M%S}-{HOST}-{os.getpid()}-{uuid4().hex[:12]}.parquet"
    partial = day / f"{PARTIAL}{name}"
    try:
        pq.write_table(_table(rows), partial, compression="zstd")
        partial.chmod(OWNER_ONLY)
        sync(partial)
        partial.rename(day / name)
    except pa.ArrowException as error:
        raise OSError(0, str(error)) from error
    finally:
        partial.unlink(missing_ok=True)


def _table(rows: Sequence[Row]) -> pa.Table:
    batches = []
    for first in range(0, len(rows), BATCH):
        batches.append(_batch(rows[first : first + BATCH]))
        time.sleep(0)  # lets the thread that answers requests go on
    return pa.Table.from_batches(batches, SCHEMA)


def _batch(rows: Sequence[Row]) -> pa.RecordBatch:
    """Rows as columns; one that cannot be written, as a text with half a character, counts as dropped."""
    try:
        columns = zip(*rows, strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        return pa.record_batch(arrays, schema=SCHEMA)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        if len(rows) == 1:
            return _batch([dropped_row(rows[0][0], 1)])
        half = len(rows) // 2
        parts = pa.Table.from_batches([_batch(rows[:half]), _batch(rows[half:])])
        return parts.combine_chunks().to_batches()[0]


def days(folder: Path) -> list[Path]:
    """The folders of days, the oldest first."""
    return sorted(path for path in folder.glob("*-*-*") if DAY.fullmatch(path.name))


def segments(day: Path) -> list[Path]:
    """The files of a day that count: all but those that a merged one was made of."""
    files = {path.name: path for path in day.glob("[!.]*.parquet")}
    for name in [name for name in files if name.startswith(MERGED)]:
        for replaced in _replaced(files[name]) if name in files else ():
            files.pop(replaced, None)
    return [files[name] for name in sorted(files)]


def _replaced(merged: Path) -> list[str]:
    found = pq.read_metadata(merged).metadata or {}
    return list(json.loads(found.get(REPLACES.encode(), b"[]")))


@contextmanager
def opened_audit(folder: Path, chosen: AuditFilter) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the view `audit` of the rows that are meant; the files stay until the block ends.

    Raises:
        HomeError: A file cannot be read. What fails in the block for other reasons is not of the audit.
    """
    with shared(folder) if folder.is_dir() else nullcontext():
        files = _files_of(folder, chosen)
        try:
            with duckdb.connect(":memory:", config={"threads": 2, "memory_limit": MEMORY}) as con:
                con.execute("SET TimeZone = 'UTC'")
                con.register("no_rows", SCHEMA.empty_table())
                con.execute(f"CREATE VIEW audit AS {_query(files, chosen)}")
                yield con
        except (duckdb.Error, pa.ArrowException) as error:
            raise _unreadable(folder, error) from error


def _files_of(folder: Path, chosen: AuditFilter) -> list[str]:
    try:
        return [str(path) for day in _days_of(folder, chosen) for path in segments(day)]
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> HomeError:
    return HomeError(
        folder.parent,
        f"the audit in {folder} cannot be read ({error})",
        "Permit reading there; move a damaged file away: the others go on without it.",
    )


def _days_of(folder: Path, chosen: AuditFilter) -> list[Path]:
    since = f"{chosen.since:%Y-%m-%d}" if chosen.since else ""
    until = f"{chosen.until:%Y-%m-%d}" if chosen.until else "9999-12-31"
    return [day for day in days(folder) if since <= day.name <= until]


def _query(files: Sequence[str], chosen: AuditFilter) -> str:
    """The rows that are meant; values are written as literals, since a view can have no parameters."""
    listed = ", ".join(_literal(file) for file in files)
    source = f"read_parquet([{listed}], union_by_name = true)" if files else "no_rows"
    conditions = ["true"]
    if chosen.since:
        conditions.append(f"asked_at >= TIMESTAMPTZ {_literal(chosen.since.isoformat())}")
    if chosen.until:
        conditions.append(f"asked_at < TIMESTAMPTZ {_literal(chosen.until.isoformat())}")
    if chosen.caller:
        conditions.append(f"caller = {_literal(chosen.caller)}")
    if chosen.route:
        text = _literal(chosen.route)
        conditions.append(f"(route = {text} OR starts_with(path, {text}))")
    if chosen.status:
        first = "status // 100" if chosen.status.endswith("xx") else "status"
        conditions.append(f"{first} = {int(chosen.status.removesuffix('xx'))}")
    return f"SELECT {', '.join(COLUMNS)} FROM {source} WHERE {' AND '.join(conditions)}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def sweep_audit(folder: Path, keep_days: int, now: datetime, *, remove: bool) -> Sweep:
    """Remove days that are too old, and merge the small segments of the others.

    Args:
        folder: Folder of the audit.
        keep_days: How many days are kept, today not counted.
        now: The present moment.
        remove: Whether to do it, or only tell.
    """
    part = "audit of requests"
    if not folder.is_dir():
        return Sweep(part)
    oldest = f"{now - timedelta(days=keep_days):%Y-%m-%d}"
    with exclusive(folder) as alone:
        if not alone and remove:
            return Sweep(part, note="left for the next time: somebody reads it")
        old = [day for day in days(folder) if day.name < oldest]
        freed = sum(path.stat().st_size for day in old for path in day.glob("*"))
        for day in old if remove else ():
            shutil.rmtree(day, ignore_errors=True)
        kept = [day for day in days(folder) if day.name >= oldest]
        merged = [_merge(day, now, remove=remove) for day in kept]
    did = "merged" if remove else "would merge"
    note = f"{did} {sum(merged):,} small files" if any(merged) else ""
    return Sweep(part, tuple(day.name for day in old), freed, {"days": len(kept)}, note)


def _merge(day: Path, now: datetime, *, remove: bool) -> int:
    """Merge the settled small files of a day into one; gives how many were."""
    there = {path.name for path in day.glob("[!.]*.parquet")}
    counting = segments(day)
    before = now.timestamp() - SETTLED_SECONDS
    small = [path for path in counting if _is_ripe(path, before)]
    if remove:
        for name in there - {path.name for path in counting}:  # of a merging that was killed
            (day / name).unlink(missing_ok=True)
    if len(small) < 2:
        return 0
    if remove:
        _merge_files(day, small)
    return len(small)


def _is_ripe(path: Path, before: float) -> bool:
    found = path.stat()
    return found.st_size < SMALL_BYTES and found.st_mtime < before


def _merge_files(day: Path, files: Iterable[Path]) -> None:
    files = list(files)
    name = f"{MERGED}{uuid4().hex[:12]}.parquet"
    partial = day / f"{PARTIAL}{name}"
    names = _literal(json.dumps([path.name for path in files]))
    listed = ", ".join(_literal(str(path)) for path in files)
    try:
        with duckdb.connect(":memory:", config={"threads": 1, "memory_limit": MEMORY}) as con:
            options = f"FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{REPLACES}: {names}}}"
            rows = f"SELECT * FROM read_parquet([{listed}], union_by_name = true)"
            con.execute(f"COPY ({rows}) TO {_literal(str(partial))} ({options})")
        partial.chmod(OWNER_ONLY)
        sync(partial)
        partial.rename(day / name)
        sync(day)
    finally:
        partial.unlink(missing_ok=True)
    for path in files:
        path.unlink(missing_ok=True)
