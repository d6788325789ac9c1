"""Bringing rows of the audit to disk: a bounded queue, and a thread of its own.

What belongs here: waiting, writing, dropping, and counting that. What does not: what a row says (audit.py),
and the files (storage/audit.py).

What waits is bounded in number and bytes; beyond it rows are dropped and counted, by a metric and, once it
can be written again, by a row of the audit itself. Where the folder cannot be written, the rows wait, and are
written once it can be.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from turnover_assets.storage.audit import Row, dropped_row, write_rows

log = logging.getLogger(__name__)

LARGEST_ROWS, LARGEST_BYTES = 100_000, 64 << 20  # that wait to be written
ENOUGH_ROWS = 20_000  # at which the thread does not wait for its time
CLOSING_SECONDS = 10.0


class Recorder:
    """Brings rows to disk in a thread of its own.

    Args:
        folder: Folder of the audit.
        flush_seconds: Time after which a row is on disk at the latest.
        largest_rows: How many rows may wait.
        largest_bytes: How many bytes may.

    Attributes:
        recorded: Rows that are on disk.
        dropped: Rows that were dropped.
        problem: Why rows cannot be written; empty where they can.
    """

    def __init__(
        self,
        folder: Path,
        flush_seconds: float,
        largest_rows: int = LARGEST_ROWS,
        largest_bytes: int = LARGEST_BYTES,
    ) -> None:
        self._folder, self._flush_seconds = folder, flush_seconds
        self._largest_rows, self._largest_bytes = largest_rows, largest_bytes
        self._queue: deque[Row] = deque()
        self._pending: list[Row] = []  # what could not be written yet
        self._bytes_in = self._bytes_out = 0  # each is written by one thread only
        self._told = 0  # dropped rows that the audit itself tells of
        self._wake, self._stop = Event(), Event()
        self._thread: Thread | None = None
        self.recorded = self.dropped = 0
        self.problem = ""

    @property
    def waiting(self) -> int:
        """How many rows are not on disk yet."""
        return len(self._queue) + len(self._pending)

    def add(self, row: Row) -> None:
        """Record a row, or count it as dropped; returns at once."""
        if self.waiting >= self._largest_rows or self._bytes_in - self._bytes_out >= self._largest_bytes:
            self.dropped += 1
            return
        self._bytes_in += _size(row)
        self._queue.append(row)
        if self._thread is None:  # only now, since a server may fork before its first request
            self._thread = Thread(target=self._work, name="audit", daemon=True)
            self._thread.start()
        if len(self._queue) >= ENOUGH_ROWS and not self.problem:
            self._wake.set()

    def flush(self) -> None:
        """Write what waits; only for the thread, and for who has stopped it."""
        while self._queue:
            self._pending.append(self._queue.popleft())
        rows, dropped = self._pending, self.dropped
        if dropped > self._told:
            rows = [*rows, dropped_row(time.time_ns() // 1000, dropped - self._told)]
        if not rows:
            return
        done = 0
        try:
            for done in write_rows(self._folder, rows):  # noqa: B007
                pass
            self._told = dropped
            self._went_well()
        except Exception as error:  # noqa: BLE001  (whatever it is, answers go on, and so does trying)
            self._failed(error)
        written = self._pending[:done]
        self._bytes_out += sum(_size(row) for row in written)
        self.recorded += len(written)
        self._pending = self._pending[done:]

    def close(self) -> None:
        """Write what waits, and end."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)
            self._thread = None

    def collect(self) -> Iterator[Metric]:
        """How things stand, for Prometheus: register this object as a collector."""
        yield CounterMetricFamily("turnover_audit_rows", "Rows of the audit on disk.", self.recorded)
        yield CounterMetricFamily("turnover_audit_dropped", "Rows dropped under overload.", self.dropped)
        yield GaugeMetricFamily("turnover_audit_waiting", "Rows that wait to be written.", self.waiting)
        failing = float(bool(self.problem))
        yield GaugeMetricFamily("turnover_audit_failing", "1 where the audit cannot be written.", failing)

    def _work(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self._flush_seconds)
            self._wake.clear()
            self.flush()
        self.flush()  # what came while it was writing

    def _went_well(self) -> None:
        if self.problem:
            log.warning("The audit is written again; %d rows were dropped so far.", self.dropped)
        self.problem = ""

    def _failed(self, error: Exception) -> None:
        if not self.problem:
            log.error("The audit cannot be written: %s. Answers go on; rows wait, then are dropped.", error)
        self.problem = str(error) or type(error).__name__


def _size(row: Row) -> int:
    return 200 + len(row[5]) + len(row[6]) + len(row[7])
