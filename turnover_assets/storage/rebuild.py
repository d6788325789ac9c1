"""Rebuilding the warehouse from the kept files alone, and the proof that nothing differs.

What belongs here: landing every kept file again as it landed before, comparing the result with what is
there, and putting it in place. What does not: how files are kept (kept.py) and what cleaning does, which
the caller hands in.

Invariants:
    - the warehouse in use is replaced in one step, by a whole one, and kept beside it under a dated name;
    - nothing is replaced where the two differ, or where a file that was accepted is not kept.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from turnover_assets.core.cleaning import content_version
from turnover_assets.core.comparison import TableDifference, compare_tables
from turnover_assets.errors import HomeError, NoSnapshotError, TurnoverError, UnreadableFileError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage import landing, manifest
from turnover_assets.storage.durable import sync
from turnover_assets.storage.kept import KeptFiles, kept_files
from turnover_assets.storage.snapshots import Snapshot, lease
from turnover_assets.storage.warehouse import Warehouse

REBUILDING = "warehouse.rebuilding.duckdb"
PROVEN_SCHEMAS = ("raw", "cleaned")
CARRIED_SCHEMAS = (
    "reports",
    "monitoring",
)  # what was found run after run, which no landed file can tell again
Clean = Callable[[duckdb.DuckDBPyConnection], None]
Row = dict[str, Any]


@dataclass(frozen=True)
class Contents:
    """What is in a warehouse, to be compared with another.

    Attributes:
        tables: Rows and a hash that the order of rows does not change, by raw or cleaned table.
        version: The fingerprint of all cleaned values; None where nothing is cleaned yet.
    """

    tables: Mapping[str, tuple[int, int]]
    version: str | None

    def differing(self, other: "Contents", schemas: Sequence[str] = PROVEN_SCHEMAS) -> list[str]:
        """Names of the tables that are not the same in both."""
        names = sorted({*self.tables, *other.tables})
        return [n for n in names if n.split(".")[0] in schemas and self.tables.get(n) != other.tables.get(n)]


@dataclass(frozen=True)
class Present:
    """The warehouse that is there.

    Attributes:
        contents: What is in it.
        cleaned_anew: What would be in it were it cleaned now.
        accepted: Name by digest of the files that it accepted.
    """

    contents: Contents
    cleaned_anew: Contents
    accepted: Mapping[str, str]


@dataclass(frozen=True)
class Rebuilt:
    """What came of a rebuild.

    Attributes:
        files: Accepted files landed again.
        contents: What is in the new warehouse.
        notes: What else a person should know.
        compared_with: What it was compared with, in words; None where there was nothing.
        differences: What differs from that; empty where all is equal.
        in_place: Whether the new warehouse took the place of the old one.
        set_aside: Where the old one is now; None where there was none, or nothing was replaced.
    """

    files: int
    contents: Contents
    notes: tuple[str, ...]
    compared_with: str | None = None
    differences: tuple[str, ...] = ()
    in_place: bool = False
    set_aside: Path | None = None


def rebuild(
    warehouse: Warehouse,
    panel: PanelSpec,
    published: Path,
    clean: Clean,
    *,
    check: bool = False,
    allow_missing: bool = False,
) -> Rebuilt:
    """Build a new warehouse from the kept files, prove that it is the same, and put it in place.

    Args:
        warehouse: The warehouse; it may be missing or damaged.
        panel: The panel.
        published: Folder of the snapshots, to compare with where the warehouse cannot be opened.
        clean: Builds every cleaned table of a connection from its raw tables.
        check: Only prove it; replace nothing.
        allow_missing: Leave out accepted files that are not kept.

    Raises:
        TurnoverError: Files are not kept, or cannot be read any more; all are listed.
        HomeError: The home cannot be written, or is full; the warehouse is as it was.
        WarehouseBusyError: Another process kept the warehouse for too long.
    """
    kept = kept_files(warehouse.path.parent)
    fresh = replace(warehouse, path=warehouse.path.with_name(REBUILDING))
    with warehouse.lock():
        try:
            _remove(fresh.path)
            present, problem = _open(warehouse, panel, kept, clean)
            rows, missing = _to_land(kept, _accepted(present, published))
            if missing and not allow_missing:
                raise TurnoverError(_why_not(missing))
            contents = _land_all(fresh, panel, kept, rows, clean)
            files = sum(row["status"] == "accepted" for row in rows)
            notes = (*([problem] if problem else []), *(f"left out: {file}" for file in missing))
            if present:
                done = _compare_with_present(Rebuilt(files, contents, notes), fresh, warehouse, present)
            else:
                done = _compare_with_snapshot(Rebuilt(files, contents, notes), fresh, panel, published)
            if check or (present and done.differences):
                return done
            if present:
                _carry(fresh, warehouse)
            return replace(done, in_place=True, set_aside=_put_in_place(fresh.path, warehouse.path))
        except OSError as error:
            raise HomeError(
                warehouse.path.parent,
                f"a new warehouse cannot be made ({error.strerror or error})",
                "The old one is still there. Make room or permit writing there, then rebuild again.",
            ) from error
        finally:
            _remove(fresh.path)


def read_contents(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> Contents:
    """What is in the raw and cleaned tables; of the manifest, the accepted files."""
    names = con.execute(
        "SELECT table_schema || '.' || table_name FROM information_schema.tables "
        "WHERE table_schema IN (SELECT unnest(?)) AND table_type = 'BASE TABLE'",
        [list(PROVEN_SCHEMAS)],
    ).fetchall()
    tables = {}
    for (name,) in names:
        rows, total = con.execute(
            f"SELECT count(*), sum(CAST(hash(t) AS HUGEINT)) FROM ({_proven_sql(name)}) AS t"
        ).fetchall()[0]
        tables[name] = (int(rows), int(total or 0))
    whole = {f"cleaned.{table}" for table in panel.tables} <= tables.keys()
    return Contents(tables, content_version(con, panel) if whole else None)


def _proven_sql(table: str) -> str:
    """A refusal proves nothing: the file is looked at again when the panel or the reader changes."""
    return f"FROM {table} WHERE status = 'accepted'" if table == manifest.FILES else f"FROM {table}"


def _open(
    warehouse: Warehouse, panel: PanelSpec, kept: KeptFiles, clean: Clean
) -> tuple[Present | None, str | None]:
    """What is in the warehouse, or why there is nothing to compare with."""
    if not warehouse.path.exists():
        return None, f"there is no {warehouse.path} to compare with"
    try:
        with warehouse.transaction(locked=True) as con:
            manifest.prepare(con, panel)
            landing.settle_pending(con, kept)
            contents = read_contents(con, panel)
            accepted = {r.digest: r.name for r in manifest.records(con, panel) if r.status == "accepted"}
        present = Present(contents, _clean_for_now(warehouse, panel, clean), accepted)
    except (HomeError, duckdb.Error) as error:
        first = str(error).splitlines()[0]
        return None, f"{warehouse.path} cannot be opened to compare with ({first})"
    lacking = [row["name"] for row in kept.records() if _counts(row) and row["digest"] not in accepted]
    if lacking:
        return None, (
            f"{warehouse.path} is no measure: it lacks files that have landed ({', '.join(lacking)}), so it "
            "was made anew or put back from an older backup"
        )
    return present, None


def _clean_for_now(warehouse: Warehouse, panel: PanelSpec, clean: Clean) -> Contents:
    """What would be in the warehouse were it cleaned now; it stays as it is."""
    with warehouse.transaction(locked=True) as con:
        clean(con)
        contents = read_contents(con, panel)
        con.execute("ROLLBACK; BEGIN TRANSACTION")
    return contents


def _counts(row: Row) -> bool:
    return bool(row["status"] == "accepted")


def _accepted(present: Present | None, published: Path) -> Mapping[str, str]:
    """Name by digest of the files known to be accepted: from the warehouse, else from the last snapshot."""
    if present:
        return present.accepted
    with suppress(TurnoverError, OSError), lease(published) as snapshot:
        files = snapshot.read("files")
        accepted = files[files["status"] == "accepted"]
        return dict(zip(accepted["digest"], accepted["name"], strict=True))
    return {}


def _to_land(kept: KeptFiles, accepted: Mapping[str, str]) -> tuple[list[Row], list[str]]:
    """The journal's rows that can land again, and the accepted files that cannot, in words."""
    rows = sorted([*kept.records(), *kept.pending()], key=lambda row: int(row["file_no"]))
    lost = {row["digest"] for row in rows if _counts(row) and not kept.is_whole(row["digest"])}
    missing = [
        f"{row['name']}: {kept.path(row['digest'])} is "
        + ("damaged; move it away first" if kept.has(row["digest"]) else "not there")
        for row in rows
        if row["digest"] in lost
    ]
    journal = {row["digest"] for row in rows}
    missing += [f"{n}: it landed before files were kept" for d, n in accepted.items() if d not in journal]
    return [row for row in rows if row["digest"] not in lost], missing


def _why_not(missing: Sequence[str]) -> str:
    listed = "\n".join(f"  - {file}" for file in missing)
    return (
        f"The warehouse cannot be rebuilt, since files that were accepted are not kept:\n{listed}\n"
        "While the warehouse can be used, `turnover run --landing FOLDER` with the same files in FOLDER "
        "keeps them. If it is lost, rebuild with --allow-missing and land them afterwards; they then count "
        "as landed last."
    )


def _land_all(
    fresh: Warehouse, panel: PanelSpec, kept: KeptFiles, rows: Iterable[Row], clean: Clean
) -> Contents:
    """Land and clean in one transaction; every file is read with the panel it was landed with.

    Raises:
        TurnoverError: Some files cannot be read any more; all are listed.
    """
    problems = []
    panels = {panel.digest: panel}
    with fresh.transaction(locked=True) as con:
        manifest.prepare(con, panel)
        for row in rows:
            digest = row["panel_digest"]
            if _counts(row) and digest not in panels:
                panels[digest] = kept.panel(digest)
            try:
                landing.land_again(con, panels.get(digest, panel), row, kept.path(row["digest"]))
            except UnreadableFileError as error:
                problems.append(f"  - {row['name']} ({kept.path(row['digest'])}): {error.reason}")
        if problems:
            raise TurnoverError(
                "Kept files cannot be read as they were when they landed:\n" + "\n".join(problems) + "\n"
                "Rebuild with the release that they landed with."
            )
        clean(con)
        return read_contents(con, panel)


def _compare_with_present(done: Rebuilt, fresh: Warehouse, warehouse: Warehouse, present: Present) -> Rebuilt:
    differing = present.contents.differing(done.contents)
    notes = done.notes
    if differing and not present.cleaned_anew.differing(done.contents):
        notes = (*notes, f"{warehouse.path} was due to be cleaned again; it is compared as cleaned now")
        differing = []
    return replace(
        done,
        compared_with=str(warehouse.path),
        differences=tuple(_explain(fresh, warehouse, done.contents, present.contents, differing)),
        notes=notes,
    )


def _explain(
    fresh: Warehouse, warehouse: Warehouse, rebuilt: Contents, present: Contents, names: Sequence[str]
) -> list[str]:
    """What differs in each table, with examples."""
    told = []
    with duckdb.connect(config={"threads": fresh.threads, "memory_limit": fresh.memory_limit}) as con:
        _attach(con, fresh.path, "rebuilt")
        _attach(con, warehouse.path, "present")
        for name in names:
            if name in rebuilt.tables and name in present.tables:
                sides = [
                    _proven_sql(name).replace("FROM ", f"FROM {side}.") for side in ("rebuilt", "present")
                ]
                told.append(_in_words(name, compare_tables(con, sides[0], sides[1], [])))
            else:
                told.append(
                    f"{name} is only in the {'new' if name in rebuilt.tables else 'present'} warehouse"
                )
    return told


def _in_words(table: str, found: TableDifference) -> str:
    examples = "; ".join(
        str(row.keys_) for row in found.examples.rename(columns={"keys": "keys_"}).itertuples()
    )
    return (
        f"{table}: {found.only_a} rows only in the new one, {found.only_b} only in the present one, "
        f"{found.changed} changed" + (f", for example {examples}" if examples else "")
    )


def _compare_with_snapshot(done: Rebuilt, fresh: Warehouse, panel: PanelSpec, published: Path) -> Rebuilt:
    """Compare the cleaned series with the published ones."""
    try:
        with lease(published) as snapshot:
            found = _against(snapshot, fresh, panel)
            return replace(
                done,
                compared_with=f"the published snapshot {snapshot.name}",
                differences=() if found.equal else (_in_words(f"cleaned.{panel.series.name}", found),),
            )
    except NoSnapshotError as error:
        return replace(done, notes=(*done.notes, str(error)))


def _against(snapshot: Snapshot, fresh: Warehouse, panel: PanelSpec) -> TableDifference:
    name = panel.series.name
    path = str(snapshot.path(name)).replace("'", "''")
    with fresh.transaction(locked=True) as con:
        published = f"FROM read_parquet('{path}')"
        columns = ", ".join(row[0] for row in con.execute(f"DESCRIBE {published}").fetchall())
        keys = [*panel.keys, panel.time]
        return compare_tables(con, f"SELECT {columns} FROM cleaned.{name}", published, keys)


def _carry(fresh: Warehouse, warehouse: Warehouse) -> None:
    """Take over the tables that keep the past of every run."""
    with duckdb.connect(config={"threads": fresh.threads, "memory_limit": fresh.memory_limit}) as con:
        _attach(con, fresh.path, "rebuilt", "")
        _attach(con, warehouse.path, "present")
        names = con.execute(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables "
            "WHERE table_catalog = 'present' AND table_schema IN (SELECT unnest(?))",
            [list(CARRIED_SCHEMAS)],
        ).fetchall()
        for (table,) in names:
            con.execute(f"CREATE OR REPLACE TABLE rebuilt.{table} AS FROM present.{table}")


def _attach(con: duckdb.DuckDBPyConnection, path: Path, name: str, options: str = "(READ_ONLY)") -> None:
    con.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS {name} {options}")


def _put_in_place(fresh: Path, path: Path) -> Path | None:
    """Replace the warehouse in one step; what was there stays under a second name, which is returned.

    There is no moment without a warehouse: one would start from nothing if a run came just then.
    """
    aside = path.with_name(f"{path.stem}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%f}{path.suffix}")
    sync(fresh)
    if (log := _log_of(path)).exists():  # only beside a warehouse that cannot be opened
        log.rename(_log_of(aside))
    if there := path.exists():
        os.link(path, aside)
    fresh.replace(path)
    sync(path.parent)
    return aside if there else None


def _log_of(path: Path) -> Path:
    """DuckDB's write-ahead log of a file."""
    return path.with_name(f"{path.name}.wal")


def _remove(path: Path) -> None:
    for leftover in (path, _log_of(path)):
        leftover.unlink(missing_ok=True)
