"""The DuckDB warehouse and its one writer.

What belongs here: opening the file under the lock, and transactions. What does not: what a newer release
changes in an older file (migrations.py), and any table's content; assets and core/ define those. Nothing else
in the package opens the file.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import duckdb
from filelock import FileLock, Timeout

from turnover_assets.errors import HomeError, WarehouseBusyError
from turnover_assets.settings import Settings
from turnover_assets.storage.migrations import migrate_warehouse, roll_back

FOREIGN_LOCK = "Could not set lock on file"  # how DuckDB begins its error where another process has the file
FOREIGN_LOCK_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Warehouse:
    """The one DuckDB file of a data home.

    DuckDB lets a single process open the file, even to read. So every use is short and under a file
    lock, and others wait for it instead of failing.

    Attributes:
        path: The DuckDB file; made at first use.
        threads: Threads DuckDB may use.
        memory_limit: DuckDB's memory limit, for example `4GB`.
        lock_timeout_seconds: How long to wait for another process.
    """

    path: Path
    threads: int = 2
    memory_limit: str = "4GB"
    lock_timeout_seconds: float = 900.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The warehouse of the home that the settings name."""
        return cls(
            settings.warehouse_path, settings.threads, settings.memory_limit, settings.lock_timeout_seconds
        )

    @contextmanager
    def transaction(self, *, locked: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction: committed where the block ends, rolled back where it raises.

        Args:
            locked: Whether the caller is inside `lock()` already.

        Raises:
            WarehouseBusyError: Another process kept the lock for too long.
            HomeError: The folder cannot be written, or is full.
        """
        with nullcontext() if locked else self.lock(), self._connection() as con:
            con.execute("BEGIN TRANSACTION")
            try:
                yield con
                con.execute("COMMIT")
            except BaseException as error:
                roll_back(con)
                if isinstance(error, duckdb.IOException):
                    raise self._refused(str(error)) from error
                raise

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process out of the file until the block ends, without opening it.

        Raises:
            WarehouseBusyError: Another process kept the lock for too long.
            HomeError: The folder cannot be written.
        """
        lock = FileLock(self.path.with_suffix(".lock"), timeout=self.lock_timeout_seconds)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise WarehouseBusyError(self.path, self.lock_timeout_seconds) from None
        except OSError as error:
            raise self._refused(str(error.strerror)) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        config: dict[str, Any] = {
            "threads": self.threads,
            "memory_limit": self.memory_limit,
            "temp_directory": str(self.path.parent / "tmp"),
            "preserve_insertion_order": True,
        }
        con = self._connect(config)
        try:
            migrate_warehouse(con, self.path)
            yield con
        finally:
            con.close()

    def _connect(self, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
        """Open the file; where a program that does not know our lock has it open, wait as for the lock."""
        until = time.monotonic() + self.lock_timeout_seconds
        while True:
            try:
                return duckdb.connect(str(self.path), config=config)
            except duckdb.IOException as error:
                if FOREIGN_LOCK not in str(error):
                    raise self._refused(str(error)) from error
                if time.monotonic() > until:
                    raise WarehouseBusyError(self.path, self.lock_timeout_seconds) from error
            time.sleep(FOREIGN_LOCK_PAUSE_SECONDS)

    def _refused(self, problem: str) -> HomeError:
        return HomeError(
            self.path.parent,
            problem,
            "Nothing was changed. Check that the folder can be written and has space, then run again.",
        )


def row_count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    """Rows of a table, named as schema.table."""
    return int(con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])
