"""Landing: from files in a folder to kept files, raw rows and a manifest in the warehouse.

What belongs here: which files are new, and landing one, whole or not at all. What does not: finding files
(landing_folder.py), the manifest's own reads and writes (manifest.py), the content of a file (reader.py),
where accepted bytes are kept (kept.py), and judging rows (core/cleaning.py). A user's file is only ever
read: never moved, renamed, changed or deleted.

Invariants:
    - raw rows and their manifest row are written in one transaction;
    - what was read is what is kept: rows come from a copy, which is on disk before they are committed;
    - one content (SHA-256) is accepted once, under whatever name it comes;
    - what is refused has a manifest row with the reason;
    - a refusal is final for a content only: a file that changed under the reader is looked at again.
"""

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from turnover_assets.errors import UnreadableFileError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage.kept import KeptFiles, kept_files
from turnover_assets.storage.landing_folder import LandedFile, content_digest, landing_order
from turnover_assets.storage.manifest import (
    FILE_COLUMNS,
    FILES,
    READER_VERSION,
    FileRecord,
    find,
    insert_record,
    next_file_no,
    prepare,
)
from turnover_assets.storage.reader import FileHead, read_batches, read_head
from turnover_assets.storage.warehouse import Warehouse

CHANGED = "it changed while it was being read; it is landed again once it holds still"


def unseen(landed: Iterable[LandedFile], records: Iterable[FileRecord]) -> list[LandedFile]:
    """The files whose content is not in the manifest yet, one for each content, by name."""
    known = {record.digest for record in records}
    new: dict[str, LandedFile] = {}
    unknown = (file for file in landed if file.digest not in known)
    for file in sorted(unknown, key=lambda file: landing_order(Path(file.name))):
        new.setdefault(file.digest, file)
    return list(new.values())


def land(warehouse: Warehouse, panel: PanelSpec, file: LandedFile, run_id: str) -> FileRecord:
    """Land one file: its rows and its manifest row, or its refusal with the reason.

    Returns:
        The manifest row; the earlier one where this content was accepted before.

    Raises:
        TurnoverError: The warehouse was built with another layout of the panel.
        HomeError: The home cannot be written or is full; nothing was accepted.
    """
    kept = kept_files(warehouse.path.parent)
    try:
        with warehouse.transaction() as con:
            prepare(con, panel)
            settle_pending(con, kept)
            if earlier := _accepted_before(con, file.digest):
                _keep_if_missing(con, panel, kept, file)
                return earlier
            record, row = _accept(con, panel, kept, file, run_id)
    except UnreadableFileError as error:
        return _refuse(warehouse, panel, kept, file, run_id, error.reason)
    kept.settle(row, committed=True)
    return record


def _refuse(
    warehouse: Warehouse, panel: PanelSpec, kept: KeptFiles, file: LandedFile, run_id: str, reason: str
) -> FileRecord:
    """Put a refusal on record; of a file that changed meanwhile, one that is not final."""
    final = reason != CHANGED and content_digest(file.path) == file.digest
    record = FileRecord(file.digest, file.name, "refused", None, 0, reason if final else CHANGED)
    with warehouse.transaction() as con:
        prepare(con, panel)
        if earlier := _accepted_before(con, file.digest):  # by another process, while this one read
            return earlier
        row = _manifest_row(con, panel, file, record, run_id) | {"final": final}
        kept.record(row)
        insert_record(con, row)
    kept.settle(row, committed=True)
    return record


def settle_pending(con: duckdb.DuckDBPyConnection, kept: KeptFiles) -> None:
    """Decide by the manifest what became of landings that were killed around their commit.

    A warehouse that lacks files from before them cannot tell, and leaves them for `turnover rebuild`.

    Raises:
        HomeError: The kept files cannot be read or written.
    """
    for row in kept.pending():
        found = con.execute(
            f"SELECT count(*) FROM {FILES} WHERE file_no = ? AND digest = ?", [row["file_no"], row["digest"]]
        ).fetchall()
        if found[0][0] or row["file_no"] <= next_file_no(con):
            kept.settle(row, committed=bool(found[0][0]))


def land_again(con: duckdb.DuckDBPyConnection, panel: PanelSpec, row: Mapping[str, Any], path: Path) -> None:
    """Land a kept file as it landed before, under the same number, name and time.

    Args:
        con: A transaction of the warehouse to land in.
        panel: The panel to read the file with.
        row: Its record in the journal.
        path: Its bytes.

    Raises:
        UnreadableFileError: It cannot be read any more.
    """
    if row["status"] == "refused":
        insert_record(con, row)
        return
    head, rows = _land_rows(con, panel, path, row["file_no"])
    insert_record(con, {**row, **_facts(head, rows)})


def mend_kept(warehouse: Warehouse, panel: PanelSpec, files: Iterable[LandedFile]) -> list[str]:
    """Keep files that were accepted by a release that kept none, and settle what a kill left open.

    Args:
        warehouse: The warehouse.
        panel: The panel.
        files: Files that are there now; those not accepted, or kept already, are passed over.

    Returns:
        Names of the files kept.

    Raises:
        HomeError: The home cannot be written or is full.
    """
    kept = kept_files(warehouse.path.parent)
    missing = [file for file in files if not kept.has(file.digest)]
    if not missing and not kept.pending():
        return []
    with warehouse.transaction() as con:
        prepare(con, panel)
        settle_pending(con, kept)
        return [file.name for file in missing if _keep_if_missing(con, panel, kept, file)]


def _accepted_before(con: duckdb.DuckDBPyConnection, digest: str) -> FileRecord | None:
    earlier = find(con, digest)
    return earlier if earlier and earlier.status == "accepted" else None


def _accept(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, kept: KeptFiles, file: LandedFile, run_id: str
) -> tuple[FileRecord, dict[str, Any]]:
    """Copy a file, land the copy's rows, and keep it; all of it counts once the transaction commits.

    Raises:
        UnreadableFileError: It is refused; nothing of it is kept.
    """
    with kept.copied(file.path) as copy:
        if copy.digest != file.digest:
            raise UnreadableFileError(CHANGED)
        head, rows = _land_rows(con, panel, copy.path, next_file_no(con))
        record = FileRecord(file.digest, file.name, "accepted", head.table, rows, None)
        row = _manifest_row(con, panel, file, record, run_id) | _facts(head, rows)
        kept.keep(copy, panel)
        kept.record(row)
        insert_record(con, row)
    return record, row


def _keep_if_missing(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, kept: KeptFiles, file: LandedFile
) -> bool:
    """Keep the bytes of an accepted file that are not; the record first, which alone is «not kept»."""
    shown = ", ".join(name if name != "landed_at" else "CAST(landed_at AS VARCHAR)" for name in FILE_COLUMNS)
    found = con.execute(
        f"SELECT {shown} FROM {FILES} WHERE digest = ? AND status = 'accepted'", [file.digest]
    ).fetchall()
    if not found or kept.has(file.digest):
        return False
    try:
        with kept.copied(file.path) as copy:
            if copy.digest != file.digest:
                return False
            row = dict(zip(FILE_COLUMNS, found[0], strict=True))
            if not kept.has_record(row):  # it has one where bytes that were kept are lost
                kept.record(row, committed=True)
            kept.keep(copy, panel)
    except UnreadableFileError:  # it is accepted all the same
        return False
    return True


def _land_rows(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, path: Path, number: int
) -> tuple[FileHead, int]:
    """Write a file's raw rows; gives what the file is and how many rows it has."""
    head, rows = read_head(path, panel), 0
    columns = ", ".join(("line", *panel.tables[head.table], "malformed"))
    for batch in read_batches(path, panel, head):
        con.register("batch", batch)
        con.execute(
            f"INSERT INTO raw.{head.table} (file_no, {columns}) SELECT ?, {columns} FROM batch", [number]
        )
        con.unregister("batch")
        rows += batch.num_rows
    return head, rows


def _facts(head: FileHead, rows: int) -> dict[str, Any]:
    """What reading a file tells the manifest."""
    return {
        "table_name": head.table,
        "row_count": rows,
        "format": head.format,
        "delimiter": head.delimiter,
        "extra_columns": list(head.extra_columns),
    }


def _manifest_row(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, file: LandedFile, record: FileRecord, run_id: str
) -> dict[str, Any]:
    """The manifest's row of a record, under the number that its raw rows carry."""
    return dict.fromkeys(FILE_COLUMNS) | {
        "file_no": next_file_no(con),
        "digest": record.digest,
        "name": record.name,
        "path": os.fsencode(file.path).decode("utf-8", "replace"),
        "status": record.status,
        "row_count": record.rows,
        "reason": record.reason,
        "final": True,
        "panel_digest": panel.digest,
        "reader_version": READER_VERSION,
        "landed_at": datetime.now(UTC).isoformat(),
        "run_id": run_id,
    }
