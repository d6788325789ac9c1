"""A copy of the published tables in Postgres, for other applications.

What belongs here: the connection, and the one transaction that brings the copy to a snapshot. What does not:
types and single tables (postgres_tables.py).

Invariants:
    - the copy is of one snapshot at any moment: everything changes in one transaction, or nothing does;
    - readers never wait for rows: these are deleted and written anew, which locks out nobody who reads, and
      whoever began to read before goes on to see what was there (a truncated or renamed table would be empty
      to them, or another one);
    - tables are never dropped or replaced, so that grants and views of others stay;
    - the password is in no message.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from turnover_assets.errors import PostgresCopyError
from turnover_assets.storage.postgres_address import ESCAPE, Parts
from turnover_assets.storage.postgres_tables import Table, short_name
from turnover_assets.storage.snapshots import Snapshot

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812  (it is a class)
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

SNAPSHOT = "snapshot"
SNAPSHOT_COLUMNS = {
    "id": "text PRIMARY KEY",
    "cutoff": "date NOT NULL",
    "created_at": "timestamp with time zone NOT NULL",
    "copied_at": "timestamp with time zone NOT NULL",
    "panel": "text",
    "horizon": "bigint",
    "model_version": "bigint",
    "code_version": "text",
    "landed_version": "text",
    "tables": "jsonb NOT NULL",  # rows and SHA-256 of each
}
LOCK_TIMEOUT = "60s"  # for who changes or locks a table of the copy
REACH = "Check TURNOVER_POSTGRES_URL, that the server is up, and that it lets this user in from here."
# What to do, by Postgres's code of the error.
REMEDIES = {
    "42501": "Give the user what it lacks: GRANT CREATE ON DATABASE, or a schema that it owns.",
    "0A000": "A view is on a column whose type changes with this release: drop the view, let the copy be "
    "made, and make the view again.",
    "55P03": "Another session keeps a lock on a table of the copy: end it, or wait; it is tried again.",
    "53100": "Make room on the server's disk.",
}


@dataclass(frozen=True)
class Copied:
    """What copying came to.

    Attributes:
        name: The snapshot that is in the database now.
        place: The database, without user and password.
        tables: Rows of each table that was written; others had not changed.
    """

    name: str
    place: str
    tables: Mapping[str, int]


@dataclass(frozen=True)
class Database:
    """A database to copy to.

    Attributes:
        url: Its address, a secret.
        schema: The schema that the copy has for itself.
    """

    url: SecretStr
    schema: str

    @property
    def place(self) -> str:
        """Server, database and schema, without user, password and options."""
        return f"postgresql://{self._parts.servers}/{self._parts.database} (schema {self.schema})"

    @property
    def _parts(self) -> Parts:
        try:
            return Parts.of(self.url.get_secret_value())
        except ValueError as error:
            raise PostgresCopyError("TURNOVER_POSTGRES_URL", str(error), ESCAPE) from None

    def current(self) -> str | None:
        """Name of the snapshot that is in the database; None where there is none.

        Raises:
            PostgresCopyError: The database cannot be asked.
        """
        with self._told(), closing(self._connect()) as connection, connection.cursor() as cursor:
            facts = _facts_there(cursor, self.schema)
        return str(facts["id"]) if facts else None

    def copy(self, snapshot: Snapshot, keys: Mapping[str, Sequence[str]]) -> Copied:
        """Bring the copy to a snapshot, in one transaction; nothing is done where it is there already.

        Args:
            snapshot: The snapshot; the caller has a lease on it.
            keys: Columns of the primary key of tables that have one, by table.

        Raises:
            PostgresCopyError: It cannot be done; what was there stays.
        """
        if SNAPSHOT in snapshot.facts["tables"]:
            remedy = "Let the panel file name the table otherwise, or unset TURNOVER_POSTGRES_URL."
            raise PostgresCopyError(self.place, f"a published table is named {SNAPSHOT!r} too", remedy)
        with self._told(), closing(self._connect()) as connection:
            with connection, connection.cursor() as cursor:
                written = _copy(cursor, self.schema, snapshot, keys)
            _tidy(connection, self.schema, written)
        return Copied(snapshot.name, self.place, written)

    def _connect(self) -> "Connection":
        import psycopg2

        parts = self._parts
        return psycopg2.connect(parts.address, **{**parts.secrets, "client_encoding": "UTF8"})

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what psycopg2 raises into an error for people."""
        try:
            import psycopg2
        except ImportError:
            remedy = "Install the extra `postgres`: pip install 'turnover-assets[postgres]'."
            raise PostgresCopyError(self.place, "psycopg2 is not installed", remedy) from None
        try:
            yield
        except psycopg2.Error as error:
            primary = error.diag.message_primary or (str(error).splitlines() or [type(error).__name__])[0]
            otherwise = REACH if isinstance(error, psycopg2.OperationalError) else ""
            remedy = REMEDIES.get(error.pgcode or "", otherwise)
            # Not chained: the library's own text has the address.
            raise PostgresCopyError(self.place, self._parts.without_secrets(primary), remedy) from None


def _facts_there(cursor: "Cursor", schema: str) -> Mapping[str, Any] | None:
    """What the copy says of itself; None where there is none yet."""
    if not Table(cursor, schema, SNAPSHOT).exists():
        return None
    cursor.execute(_named("SELECT id, tables FROM {}.{}", schema, SNAPSHOT))
    rows = cursor.fetchall()
    return {"id": rows[0][0], "tables": rows[0][1]} if rows else None


def _named(text: str, *names: str) -> Any:
    from psycopg2.sql import SQL, Identifier

    return SQL(text).format(*map(Identifier, names))


def _copy(
    cursor: "Cursor", schema: str, snapshot: Snapshot, keys: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """Bring everything to a snapshot; gives the rows of each table that was written."""
    cursor.execute("SET LOCAL lock_timeout = %s", [LOCK_TIMEOUT])
    cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"turnover-assets copy {schema}"])
    there = _facts_there(cursor, schema)
    if there and there["id"] == snapshot.name:
        return {}
    _make_schema(cursor, schema)
    before: Mapping[str, Any] = there["tables"] if there else {}
    written: dict[str, int] = {}
    for name, noted in snapshot.facts["tables"].items():
        table = Table(cursor, schema, short_name(name))
        if before.get(name, {}).get("sha256") != noted["sha256"] or not table.exists():
            table.replace_rows(snapshot.path(name), [short_name(column) for column in keys.get(name, ())])
            written[name] = int(noted["rows"])
    for name in sorted({*before} - {*snapshot.facts["tables"]}):
        table = Table(cursor, schema, short_name(name))
        if before[name]["rows"] and table.exists():
            table.empty()
            written[name] = 0
    _note(cursor, schema, snapshot, gone={*before} - {*snapshot.facts["tables"]})
    return written


def _make_schema(cursor: "Cursor", schema: str) -> None:
    """Make the schema and the table on the copy itself where they are missing."""
    cursor.execute("SELECT to_regnamespace(%s)", [f'"{schema}"'])
    if cursor.fetchall()[0][0] is None:  # who may not make schemas may use one that is there
        cursor.execute(_named("CREATE SCHEMA {}", schema))
    if not Table(cursor, schema, SNAPSHOT).exists():
        typed = ", ".join(f"{name} {kind}" for name, kind in SNAPSHOT_COLUMNS.items())
        cursor.execute(_named(f"CREATE TABLE {{}}.{{}} ({typed})", schema, SNAPSHOT))


def _note(cursor: "Cursor", schema: str, snapshot: Snapshot, gone: set[str]) -> None:
    """Put what the copy is now into its table `snapshot`, its only row."""
    facts = snapshot.facts
    tables = {name: {"rows": t["rows"], "sha256": t["sha256"]} for name, t in facts["tables"].items()}
    tables |= {name: {"rows": 0, "sha256": ""} for name in sorted(gone)}
    row = {
        "id": snapshot.name,
        "cutoff": facts["cutoff"],
        "created_at": facts["created_at"],
        "copied_at": datetime.now(UTC),
        "panel": facts.get("panel"),
        "horizon": facts.get("horizon"),
        "model_version": facts.get("model", {}).get("version"),
        "code_version": facts.get("code_version"),
        "landed_version": facts.get("landed_version"),
        "tables": json.dumps(tables),
    }
    cursor.execute(_named("DELETE FROM {}.{}", schema, SNAPSHOT))
    names, marks = ", ".join(row), ", ".join(["%s"] * len(row))
    cursor.execute(
        _named(f"INSERT INTO {{}}.{{}} ({names}) VALUES ({marks})", schema, SNAPSHOT), [*row.values()]
    )


def _tidy(connection: "Connection", schema: str, written: Mapping[str, int]) -> None:
    """Give the room of deleted rows back to the tables, and the planner new figures; nobody waits for it."""
    import psycopg2

    connection.autocommit = True
    with suppress(psycopg2.Error), connection.cursor() as cursor:  # autovacuum does the same later
        for name in written:
            cursor.execute(_named("VACUUM (ANALYZE, TRUNCATE FALSE) {}.{}", schema, short_name(name)))
