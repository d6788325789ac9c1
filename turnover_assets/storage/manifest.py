"""The manifest raw.files: what became of each landed file, and the raw tables beside it.

What belongs here: the manifest's columns, its rows read and written, the raw tables made, and what is on
record set against what is in a folder. What does not: reading files and deciding about them (landing.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

import duckdb

from turnover_assets.errors import TurnoverError
from turnover_assets.panel import PanelSpec

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
Status = Literal["accepted", "refused"]


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


def records(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> list[FileRecord]:
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


def next_file_no(con: duckdb.DuckDBPyConnection) -> int:
    """The number that the next file gets."""
    return int(con.execute(f"SELECT coalesce(max(file_no), 0) + 1 FROM {FILES}").fetchall()[0][0])


def insert_record(con: duckdb.DuckDBPyConnection, row: Mapping[str, Any]) -> None:
    """Write a manifest row, in place of an earlier refusal of the content."""
    con.execute(f"DELETE FROM {FILES} WHERE digest = ? AND status = 'refused'", [row["digest"]])
    con.execute(
        f"INSERT INTO {FILES} VALUES ({', '.join('?' * len(FILE_COLUMNS))})",
        [row[name] for name in FILE_COLUMNS],
    )
