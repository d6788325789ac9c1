"""A snapshot to ask questions of: its tables in DuckDB's memory, asked by many threads at once.

What belongs here: loading a snapshot, and running SQL over it. What does not: which questions there are.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from turnover_assets.core.templating import Records
from turnover_assets.errors import NoSnapshotError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage.snapshots import Snapshot

Values = Sequence[Any] | Mapping[str, Any]


class Stop:
    """Lets a thread that waits for answers end the questions of the one that asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._is_set = False

    def set(self) -> None:
        """End the question under way, and any that is asked after; they raise duckdb.InterruptException."""
        with self._lock:
            self._is_set = True
            if self._cursor is not None:
                self._cursor.interrupt()

    @contextmanager
    def watching(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """The question of this cursor is under way."""
        with self._lock:
            if self._is_set:
                raise duckdb.InterruptException("Nobody waits for the answer any more.")
            self._cursor = cursor
        try:
            yield
        finally:
            with self._lock:
                self._cursor = None


class View:
    """The tables of one snapshot; nothing in it changes as long as it lives.

    Args:
        snapshot: The snapshot, which must not be removed before close is called.
        panel: The panel that it was published for.
        threads: How many threads one question may use.

    Raises:
        NoSnapshotError: It is of another panel, or a file of it cannot be read.
    """

    def __init__(self, snapshot: Snapshot, panel: PanelSpec, threads: int = 1) -> None:
        if snapshot.facts["panel"] != panel.name:
            raise NoSnapshotError(
                f"The snapshot {snapshot.name!r} is of the panel {snapshot.facts['panel']!r}, not of "
                f"{panel.name!r}. Point TURNOVER_PANEL to the panel it was made with, or TURNOVER_HOME to "
                "another data home."
            )
        self.snapshot, self.panel = snapshot, panel
        self._kept = set[str]()
        self._columns: dict[str, frozenset[str]] = {}
        self._con = duckdb.connect(":memory:", config={"threads": threads})
        try:
            for name in snapshot.facts["tables"]:
                path = str(snapshot.path(name)).replace("'", "''")
                self._con.execute(f"CREATE VIEW \"{name}\" AS SELECT * FROM read_parquet('{path}')")
        except duckdb.Error as error:
            self._con.close()
            raise NoSnapshotError(
                f"The published snapshot {snapshot.name!r} cannot be read ({error}). Run `turnover run` to "
                "publish a new one."
            ) from None

    @property
    def facts(self) -> Mapping[str, Any]:
        """What snapshot.json says; see Snapshot."""
        return self.snapshot.facts

    def has(self, table: str) -> bool:
        """Whether the snapshot has a table: an earlier release published fewer."""
        return table in self.snapshot.facts["tables"]

    def columns(self, table: str) -> frozenset[str]:
        """Names of a table's columns, of which an earlier release published fewer as well."""
        if table not in self._columns:
            self._columns[table] = frozenset(self.arrow(f'FROM "{table}" LIMIT 0').column_names)
        return self._columns[table]

    def keep(self, *tables: str) -> None:
        """Hold tables in memory rather than reading their files for each question; those that are stay so."""
        for name in (table for table in tables if self.has(table) and table not in self._kept):
            self._con.execute(f'CREATE TABLE "kept {name}" AS SELECT * FROM "{name}"')
            self._con.execute(f'DROP VIEW "{name}"')
            self._con.execute(f'ALTER TABLE "kept {name}" RENAME TO "{name}"')
            self._kept.add(name)

    def derive(self, name: str, sql: str, values: Values = ()) -> None:
        """Hold the rows of a query as a table of its own, which later questions can name."""
        bound = dict(values) if isinstance(values, Mapping) else list(values)
        self._con.execute(f'CREATE TABLE "{name}" AS {sql}', bound)

    def records(self, sql: str, values: Values = ()) -> Records:
        """The rows of a query, each by the names of its columns; values that are no number are None."""
        table = self.arrow(sql, values)
        return [
            {name: None if value != value else value for name, value in row.items()}
            for row in table.to_pylist()
        ]

    def arrow(self, sql: str, values: Values = (), stop: Stop | None = None) -> pa.Table:
        """The rows of a query as an Arrow table.

        Args:
            sql: The query; identifiers in it come from the panel or the code.
            values: What is bound to its parameters.
            stop: Ends it from another thread.
        """
        cursor = self._con.cursor()  # a connection answers one question at a time, its cursors many
        try:
            bound = dict(values) if isinstance(values, Mapping) else list(values)
            with (stop or Stop()).watching(cursor):
                return cursor.execute(sql, bound).to_arrow_table()
        finally:
            cursor.close()

    def close(self) -> None:
        """Give the memory back; questions under way must have been answered."""
        self._con.close()
