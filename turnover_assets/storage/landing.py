"""Landing: from files in a folder to kept files, raw rows and a manifest in the warehouse.

What belongs here: listing a folder, fingerprints, the manifest raw.files, and the raw tables. What does
not: the content of a file (reader.py), where accepted bytes are kept (kept.py), and judging rows
(core/cleaning.py). A user's file is only ever read: never moved, renamed, changed or deleted.

Invariants:
    - raw rows and their manifest row are written in one transaction;
    - what was read is what is kept: rows come from a copy, which is on disk before they are committed;
    - one content (SHA-256) is accepted once, under whatever name it comes;
    - what is refused has a manifest row with the reason;
    - a refusal is final for a content only: a file that changed under the reader is looked at again.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import duckdb

from turnover_assets.errors import TurnoverError, UnreadableFileError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage.kept import KeptFiles, kept_files
from turnover_assets.storage.reader import FileHead, fingerprint, read_batches, read_head
from turnover_assets.storage.warehouse import Warehouse

FILES = "raw.files"
FILE_COLUMNS = {
    "file_no": "INTEGER PRIMARY KEY",
    "digest": "VARCHAR UNIQUE NOT NULL",
    "name": "VARCHAR NOT NULL",
    "path": "VARCHAR NOT NULL",
    "status": "VARCHAR NOT NULL",
    "table_name": "VARCHAR",
    "row_count": "BIGINT NOT NULL",
    "reason": "VARCHAR",
    "format": "VARCHAR",
    "delimiter": "VARCHAR",
    "extra_columns": "VARCHAR[]",
    "final": "BOOLEAN NOT NULL",
    "panel_digest": "VARCHAR NOT NULL",
    "reader_version": "VARCHAR NOT NULL",
    "landed_at": "TIMESTAMPTZ NOT NULL",
    "run_id": "VARCHAR",
}
# The manifest as published: one row for each file, in the order they landed.
FILES_QUERY = (
    "SELECT file_no, name, status, table_name, row_count AS rows, reason, digest, format, delimiter, "
    f"array_to_string(extra_columns, ', ') AS extra_columns, landed_at FROM {FILES} ORDER BY file_no"
)
READER_VERSION = "1"  # raise it when a file refused before may be readable now
UNFINISHED_SUFFIXES = (".part", ".partial", ".tmp", ".crdownload", ".swp", "~")
CHANGED = "it changed while it was being read; it is landed again once it holds still"
Status = Literal["accepted", "refused"]


@dataclass(frozen=True)
class LandedFile:
    """A file found in a landing folder.

    Attributes:
        path: Where it is.
        name: Its path inside the landing folder, with forward slashes.
        digest: SHA-256 of its content, hexadecimal.
    """

    path: Path
    name: str
    digest: str

    @property
    def partition_key(self) -> str:
        """Name and content in one text, unique for a content under a name."""
        safe = "".join(c if c.isprintable() else "?" for c in self.name).replace("...", "…")
        return f"{safe}@{self.digest[:12]}"


@dataclass(frozen=True)
class FileRecord:
    """What became of a landed file: one row of the manifest.

    Attributes:
        digest: SHA-256 of the content.
        name: Name under which it was first seen.
        status: `accepted` or `refused`.
        table: The panel table it fits, None where refused before that was known.
        rows: Rows landed.
        reason: Why it was refused; None where accepted.
    """

    digest: str
    name: str
    status: Status
    table: str | None
    rows: int
    reason: str | None


def list_folder(folder: Path) -> list[Path]:
    """Files of a landing folder and its subfolders, by name; hidden and unfinished ones left out.

    Links to files are followed, links to folders are not.

    Raises:
        TurnoverError: The folder or one below it is missing or cannot be listed (never an empty list
            instead).
    """
    found: list[Path] = []
    try:
        for parent, subfolders, names in os.walk(folder, onerror=_raise):
            subfolders[:] = [name for name in subfolders if not _is_left_out(Path(parent, name))]
            found += [Path(parent, name) for name in names if _is_finished(name)]
        return sorted((path for path in found if path.is_file()), key=_landing_order)
    except OSError as error:
        raise TurnoverError(
            f"The landing folder {error.filename or folder} cannot be listed ({error.strerror}). "
            "Check the path and its permissions."
        ) from None


def _raise(error: OSError) -> None:
    raise error


def _is_left_out(folder: Path) -> bool:
    """Hidden folders, and data homes: what the platform itself writes does not land."""
    try:
        return folder.name.startswith(".") or (folder / "dagster" / "dagster.yaml").is_file()
    except OSError:  # the listing itself will say that it cannot be read
        return False


def _landing_order(path: Path) -> tuple[tuple[str, ...], str]:
    """By name without its endings first, so that `a (1).csv` and `a_restated.csv` come after `a.csv`."""
    return (*path.parent.parts, path.name.partition(".")[0]), path.name


def _is_finished(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(UNFINISHED_SUFFIXES)


def scan(folder: Path) -> list[LandedFile]:
    """Fingerprint every file of a landing folder, by name; a file that vanishes meanwhile is left out."""
    landed = []
    for path in list_folder(folder):
        digest = content_digest(path)
        if path.exists():
            landed.append(LandedFile(path, readable_name(path, folder), digest))
    return landed


def readable_name(path: Path, folder: Path) -> str:
    """The path inside a folder as text; what is not UTF-8 in it is shown as a replacement character."""
    return os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "replace")


def content_digest(path: Path) -> str:
    """SHA-256 of the content; where it cannot be read, of path and problem, which stand for it."""
    try:
        return fingerprint(path)
    except UnreadableFileError as error:
        return sha256(os.fsencode(f"{path}:{error.reason}")).hexdigest()


def unseen(landed: Iterable[LandedFile], records: Iterable[FileRecord]) -> list[LandedFile]:
    """The files whose content is not in the manifest yet, one for each content, by name."""
    known = {record.digest for record in records}
    new: dict[str, LandedFile] = {}
    for file in sorted(landed, key=lambda file: _landing_order(Path(file.name))):
        if file.digest not in known:
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
        _insert_record(con, row)
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
        if found[0][0] or row["file_no"] <= _next_file_no(con):
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
        _insert_record(con, row)
        return
    head, rows = _land_rows(con, panel, path, row["file_no"])
    _insert_record(con, {**row, **_facts(head, rows)})


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


def manifest(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> list[FileRecord]:
    """All files on record that need no further look, in the order they landed.

    A refusal counts only under the panel and the reader that refused: after a change of either, the
    file is new again. So is a content that could not be read whole because the file changed meanwhile.
    """
    prepare(con, panel)
    rows = con.execute(
        f"SELECT digest, name, status, table_name, row_count, reason FROM {FILES} "
        "WHERE status = 'accepted' OR (final AND panel_digest = ? AND reader_version = ?) "
        "ORDER BY file_no",
        [panel.digest, READER_VERSION],
    ).fetchall()
    return [FileRecord(*row) for row in rows]


def landed_version(records: Sequence[FileRecord], panel: PanelSpec) -> str:
    """Fingerprint of what has been accepted, in the order it landed, and of the panel."""
    accepted = "\n".join(record.digest for record in records if record.status == "accepted")
    return sha256(f"{panel.digest}\n{accepted}".encode()).hexdigest()[:16]


def prepare(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> None:
    """Make the manifest and the raw tables where they are missing.

    Raises:
        TurnoverError: A raw table has other columns than the panel now asks for.
    """
    definition = ", ".join(f"{name} {kind}" for name, kind in FILE_COLUMNS.items())
    con.execute(f"CREATE TABLE IF NOT EXISTS {FILES} ({definition})")
    for name, columns in panel.tables.items():
        typed = ", ".join(f"{column} VARCHAR" for column in columns)
        con.execute(
            f"CREATE TABLE IF NOT EXISTS raw.{name} "
            f"(file_no INTEGER NOT NULL, line BIGINT NOT NULL, {typed}, malformed VARCHAR)"
        )
        found = [row[0] for row in con.execute(f"DESCRIBE raw.{name}").fetchall()]
        if found != ["file_no", "line", *columns, "malformed"]:
            raise TurnoverError(
                f"The warehouse holds raw.{name} with the columns {', '.join(found)}, but the panel "
                f"{panel.name!r} asks for {', '.join(columns)}. Use the panel it was built with, or another "
                "TURNOVER_HOME and land the files again."
            )


def find(con: duckdb.DuckDBPyConnection, digest: str) -> FileRecord | None:
    """The manifest row of a content, if there is one."""
    rows = con.execute(
        f"SELECT digest, name, status, table_name, row_count, reason FROM {FILES} WHERE digest = ?", [digest]
    ).fetchall()
    return FileRecord(*rows[0]) if rows else None


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
        head, rows = _land_rows(con, panel, copy.path, _next_file_no(con))
        record = FileRecord(file.digest, file.name, "accepted", head.table, rows, None)
        row = _manifest_row(con, panel, file, record, run_id) | _facts(head, rows)
        kept.keep(copy, panel)
        kept.record(row)
        _insert_record(con, row)
    return record, row


def _keep_if_missing(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, kept: KeptFiles, file: LandedFile
) -> bool:
    """Keep the bytes of a file that was accepted without; the record first, which alone is «not kept»."""
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
            kept.record(dict(zip(FILE_COLUMNS, found[0], strict=True)), committed=True)
            kept.keep(copy, panel)
    except UnreadableFileError:  # it is accepted all the same
        return False
    return True


def _next_file_no(con: duckdb.DuckDBPyConnection) -> int:
    return int(con.execute(f"SELECT coalesce(max(file_no), 0) + 1 FROM {FILES}").fetchall()[0][0])


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
        "file_no": _next_file_no(con),
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


def _insert_record(con: duckdb.DuckDBPyConnection, row: Mapping[str, Any]) -> None:
    """Write a manifest row, in place of an earlier refusal of the content."""
    con.execute(f"DELETE FROM {FILES} WHERE digest = ? AND status = 'refused'", [row["digest"]])
    con.execute(
        f"INSERT INTO {FILES} VALUES ({', '.join('?' * len(FILE_COLUMNS))})",
        [row[name] for name in FILE_COLUMNS],
    )
