"""A bench for what-if questions: the tables of a snapshot, prepared once, for many questions side by side.

What belongs here: loading what features are made of, and a catalog of its own for each question. What does
not: questions and answers (core/what_if/).

It has a database of its own with one thread, so that a question never takes all processors from look-ups, and
the sums of levels are those of the pipeline to the last bit. Nothing is loaded before the first question.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import duckdb
import pandas as pd

from turnover_assets.core import relations
from turnover_assets.core.adjustments import ADJUSTMENTS, in_force, read_adjustments
from turnover_assets.core.calendar import index_sql
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.what_if.overlay import Overlay
from turnover_assets.panel import PanelSpec
from turnover_assets.storage.snapshots import Snapshot

BASE = "memory"  # what DuckDB calls the database of a connection to memory


class Bench:
    """The tables of one snapshot that features are made of.

    Args:
        snapshot: The snapshot, which must not be removed before close is called.
        panel: The panel.
    """

    def __init__(self, snapshot: Snapshot, panel: PanelSpec) -> None:
        self.snapshot, self.panel = snapshot, panel
        self._con: duckdb.DuckDBPyConnection | None = None
        self._preparing, self._numbers = threading.Lock(), count(1)
        self._last, self._in_force = 0, pd.DataFrame()

    @property
    def last(self) -> int:
        """Index of the newest period known."""
        self.prepare()
        return self._last

    def prepare(self) -> None:
        """Load and prepare, where that was not done before; others wait meanwhile."""
        with self._preparing:
            if self._con is None:
                con = duckdb.connect(":memory:", config={"threads": 1})
                try:
                    self._load(con)
                except BaseException:
                    con.close()
                    raise
                self._con = con

    @contextmanager
    def open(self) -> Iterator[Overlay]:
        """The tables, for one question to change; nobody else sees its changes."""
        self.prepare()
        assert self._con is not None
        own = f"question_{next(self._numbers)}"
        con = self._con.cursor()
        try:
            con.execute(f"ATTACH ':memory:' AS {own}")
            try:
                yield Overlay(con, self.panel, BASE, own, self._last, self._in_force)
            finally:
                con.execute(f"USE {BASE}; DETACH {own}")
        finally:
            con.close()

    def close(self) -> None:
        """Give the memory back; questions under way must have been answered."""
        with self._preparing:
            if self._con is not None:
                self._con.close()
                self._con = None

    def _load(self, con: duckdb.DuckDBPyConnection) -> None:
        panel = self.panel
        con.execute("CREATE SCHEMA cleaned")
        for name in (panel.series.name, *(table.name for table in panel.covariates)):
            self._copy(con, f"cleaned.{name}", name, f", {index_sql(panel, panel.time)} AS t")
        for table in panel.static:
            self._copy(con, f"cleaned.{table.name}", table.name)
        self._copy(con, ADJUSTMENTS, "adjustments")
        self._copy(con, "main.published", "forecasts")
        self._last = last_period(con, panel)
        decided = read_adjustments(panel, con.execute(f"FROM {ADJUSTMENTS}").df())
        self._in_force = in_force(con, panel, decided, self._last)
        relations.prepare_shared(con, panel, self._last, in_force=self._in_force)
        for name in relations.shared_relations(panel):  # cursors do not see temporary tables
            con.execute(f"CREATE TABLE main.{name} AS FROM temp.main.{name}; DROP TABLE temp.main.{name}")

    def _copy(self, con: duckdb.DuckDBPyConnection, name: str, table: str, more: str = "") -> None:
        path = str(self.snapshot.path(table)).replace("'", "''")
        con.execute(f"CREATE TABLE {name} AS SELECT *{more} FROM read_parquet('{path}')")
