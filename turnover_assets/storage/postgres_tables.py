"""Published tables as Postgres has them: names, types, and the text that COPY reads.

What belongs here: from a Parquet file's schema to columns, from its rows to CSV, and how a table that is
there gets the columns and rows of a file. What does not: transactions and connections (postgres_copy.py).
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pyarrow import types

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)
    from psycopg2.sql import Composed

NAME_BYTES = 63  # Postgres cuts longer names, and might then take one for another
BATCH_ROWS = 50_000
TEXT = "text"
# A column of the left type holds what the right ones hold, unchanged.
WIDER: Mapping[str, tuple[str, ...]] = {
    TEXT: ("bigint", "numeric", "double precision", "boolean", "date"),
    "numeric": ("bigint",),
    "double precision": ("bigint",),
}


@dataclass(frozen=True)
class Column:
    """A column of a published table: its name, and its type in Postgres."""

    name: str
    kind: str


def short_name(name: str) -> str:
    """A name as Postgres can have it; the end of one that is too long becomes a fingerprint of the whole."""
    data = name.encode()
    if len(data) <= NAME_BYTES:
        return name
    return f"{data[: NAME_BYTES - 9].decode('utf-8', 'ignore')}_{sha256(data).hexdigest()[:8]}"


def columns_of(path: Path) -> list[Column]:
    """The columns of a Parquet file."""
    return [Column(short_name(field.name), _kind(field.type)) for field in pq.read_schema(path)]


def _kind(found: pa.DataType) -> str:
    """The type that holds every value of an Arrow type.

    Whole numbers are all bigint: which width DuckDB chose for one may change with a release, and a column's
    type cannot while a view of somebody else is on it.
    """
    if types.is_decimal(found):
        return f"numeric({found.precision}, {found.scale})"
    if types.is_timestamp(found):
        return "timestamp with time zone" if found.tz else "timestamp"
    plain = {
        "bigint": types.is_integer(found) and not types.is_uint64(found),
        "numeric": types.is_uint64(found),
        "double precision": types.is_floating(found),
        "boolean": types.is_boolean(found),
        "date": types.is_date(found),
    }
    return next((kind for kind, holds in plain.items() if holds), TEXT)


def csv_batches(path: Path) -> Iterator[io.BytesIO]:
    """The rows of a Parquet file as CSV without a header, some at a time.

    An empty field is null and a quoted one text, also an empty one. Numbers are written such that they are
    read back exactly, with NaN and infinities as such.
    """
    with pq.ParquetFile(path) as source:
        for batch in source.iter_batches(BATCH_ROWS):
            sink = io.BytesIO()
            plain = pa.RecordBatch.from_arrays([_plain(a) for a in batch.columns], names=batch.schema.names)
            pa_csv.write_csv(plain, sink, pa_csv.WriteOptions(include_header=False))
            sink.seek(0)
            yield sink


def _plain(values: pa.Array) -> pa.Array:
    """Values that CSV can have; text without NUL, which Postgres has no place for."""
    if _kind(values.type) != TEXT:
        return values
    if types.is_nested(values.type):
        return pa.array([None if v is None else str(v) for v in values.to_pylist()], pa.string())
    return pc.replace_substring(values.cast(pa.string()), "\0", "\ufffd")


def has_values(path: Path, position: int) -> bool:
    """Whether a column of a Parquet file holds any value; one without says nothing of its type."""
    with pq.ParquetFile(path) as source:
        name = source.schema_arrow.field(position).name
        return any(batch.column(0).null_count < len(batch) for batch in source.iter_batches(columns=[name]))


@dataclass(frozen=True)
class Table:
    """A table of the copy's schema, seen through a cursor of the transaction that brings it up to date.

    Attributes:
        cursor: The cursor.
        schema: Name of the schema.
        name: Name of the table.
    """

    cursor: "Cursor"
    schema: str
    name: str

    def exists(self) -> bool:
        """Whether it is there."""
        self.cursor.execute("SELECT to_regclass(%s)", [f'"{self.schema}"."{self.name}"'])
        return bool(self._rows()[0][0])

    def replace_rows(self, path: Path, key: Sequence[str]) -> None:
        """Let the table have just the rows of a Parquet file, and the file's columns among its own.

        Rows are deleted, not truncated, and the table is never another one: whoever reads meanwhile sees the
        rows before, and grants and views of others stay. A column that the file lacks stays and is empty.

        Args:
            path: The file.
            key: Columns of its primary key; none where it has none.
        """
        columns = columns_of(path)
        if self.exists():
            self._run("DELETE FROM {table}")
            self._fit(path, columns, key)
        else:
            typed = ", ".join(f"{{}} {column.kind}" for column in columns)
            self._run(f"CREATE TABLE {{table}} ({typed})", [column.name for column in columns])
        for batch in csv_batches(path):
            self._copy(columns, batch)
        if key and self._key() != list(key):
            self._run(f"ALTER TABLE {{table}} ADD PRIMARY KEY ({_marks(key)})", key)

    def empty(self) -> None:
        """Let the table have no rows."""
        self._run("DELETE FROM {table}")

    def _fit(self, path: Path, columns: Sequence[Column], key: Sequence[str]) -> None:
        """Give the table, which is empty, the columns of a file; a change of type keeps out who reads it."""
        there = self._columns()
        if (before := self._key()) and before != list(key):
            self.cursor.execute(
                "SELECT conname FROM pg_constraint WHERE contype = 'p' AND conrelid = %s::regclass",
                [f'"{self.schema}"."{self.name}"'],
            )
            self._run("ALTER TABLE {table} DROP CONSTRAINT {}", [str(self._rows()[0][0])])
        for position, column in enumerate(columns):
            kind, _ = there.pop(column.name, ("", False))
            if not kind:
                self._run(f"ALTER TABLE {{table}} ADD COLUMN {{}} {column.kind}", [column.name])
            elif not keeps(kind, column.kind) and has_values(path, position):
                change = f"ALTER TABLE {{table}} ALTER COLUMN {{}} TYPE {column.kind} USING NULL"
                self._run(change, [column.name])
        for name, (_, is_required) in there.items():
            if is_required:
                self._run("ALTER TABLE {table} ALTER COLUMN {} DROP NOT NULL", [name])

    def _columns(self) -> dict[str, tuple[str, bool]]:
        """Type of each column, and whether it may not be null."""
        self.cursor.execute(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [f'"{self.schema}"."{self.name}"'],
        )
        return {str(name): (_plain_kind(kind), bool(required)) for name, kind, required in self._rows()}

    def _key(self) -> list[str]:
        """Columns of the primary key, in its order; none where there is none."""
        self.cursor.execute(
            "SELECT attname FROM pg_index "
            "CROSS JOIN unnest(indkey) WITH ORDINALITY AS part (number, position) "
            "JOIN pg_attribute ON attrelid = indrelid AND attnum = part.number "
            "WHERE indisprimary AND indrelid = %s::regclass ORDER BY position",
            [f'"{self.schema}"."{self.name}"'],
        )
        return [str(row[0]) for row in self._rows()]

    def _copy(self, columns: Sequence[Column], rows: io.BytesIO) -> None:
        names = [column.name for column in columns]
        text = self._composed(f"COPY {{table}} ({_marks(names)}) FROM STDIN WITH (FORMAT csv)", names)
        self.cursor.copy_expert(text, rows)

    def _run(self, text: str, names: Sequence[str] = ()) -> None:
        self.cursor.execute(self._composed(text, names))

    def _composed(self, text: str, names: Sequence[str]) -> "Composed":
        """A statement in which {table} is this table, and each {} a name, quoted."""
        from psycopg2.sql import SQL, Identifier

        return SQL(text).format(*map(Identifier, names), table=Identifier(self.schema, self.name))

    def _rows(self) -> list[tuple[Any, ...]]:
        return list(self.cursor.fetchall())


def _marks(names: Sequence[str]) -> str:
    return ", ".join("{}" for _ in names)


def _plain_kind(kind: str) -> str:
    """A type as columns_of names it."""
    return {"timestamp without time zone": "timestamp"}.get(kind, kind).replace(",", ", ")


def keeps(there: str, kind: str) -> bool:
    """Whether a column of one type takes values of another as they are."""
    return there == kind or kind in WIDER.get(there, ())
