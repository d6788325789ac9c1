"""The reader against damaged files: each is read whole or refused with a reason, in bounded time and memory.

`benchmarks/reader_fuzz.py` does the same with as many files as one likes, each batch in a process of its own.
"""

import csv
import gzip
import io
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from turnover_assets.errors import UnreadableFileError
from turnover_assets.panel import default_panel
from turnover_assets.storage import manifest
from turnover_assets.storage.reader import read_batches, read_head
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import land_text
from turnover_assets_tests.mutations import HEADER, Mutant, mutant, seeds

PANEL = default_panel()
MUTANTS = [range(1_000), pytest.param(range(1_000, 6_000), marks=pytest.mark.slow)]
LANDED = range(6_000, 6_025)
LONGEST_SECONDS = 10.0  # a file of this kind takes milliseconds; the machine may be busy


@dataclass(frozen=True)
class Outcome:
    """What became of a file: its delimiter and rows, or the reason why it was refused."""

    delimiter: str | None = None
    rows: pa.Table | None = None
    reason: str = ""


def read_or_refuse(path: Path) -> Outcome:
    """Read a file whole; anything but a refusal that is raised comes through."""
    try:
        head = read_head(path, PANEL)
        return Outcome(head.delimiter, pa.concat_tables(read_batches(path, PANEL, head)))
    except UnreadableFileError as error:
        return Outcome(reason=error.reason)


def rows_by_other_means(content: bytes, delimiter: str | None) -> int:
    """How many rows a file has, by the libraries' whole-file ways; fails where they find damage."""
    if delimiter is None:
        return pq.read_metadata(pa.BufferReader(content)).num_rows
    plain = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    text = plain.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    return sum(len(record) > 1 or any(field.strip() for field in record) for record in records) - 1


def judge(damaged: Mutant, outcome: Outcome) -> None:
    """A refusal says why in a line; what was accepted has every row that the libraries find, in order."""
    if outcome.rows is None:
        assert 0 < len(outcome.reason) < 1000, damaged
        assert outcome.reason.isprintable(), damaged
        return
    lines = outcome.rows["line"].to_pylist()
    assert lines, damaged
    assert lines == sorted(set(lines)), damaged
    assert len(lines) == rows_by_other_means(damaged.content, outcome.delimiter), damaged


@pytest.mark.parametrize("name", seeds())
def test_the_files_that_are_damaged_were_sound(tmp_path: Path, name: str) -> None:
    (tmp_path / "landed").write_bytes(seeds()[name])

    rows = read_or_refuse(tmp_path / "landed").rows

    assert rows is not None
    assert rows.num_rows in (40, 60)
    assert rows["malformed"].null_count == rows.num_rows


@pytest.mark.parametrize("numbers", MUTANTS, ids=str)
def test_a_damaged_file_is_read_whole_or_refused_with_a_reason(tmp_path: Path, numbers: range) -> None:
    path, refused, slowest = tmp_path / "landed", 0, 0.0
    for number in numbers:
        damaged = mutant(number)
        path.write_bytes(damaged.content)

        began = time.perf_counter()
        outcome = read_or_refuse(path)
        slowest = max(slowest, time.perf_counter() - began)

        judge(damaged, outcome)
        assert path.read_bytes() == damaged.content
        refused += outcome.rows is None
    assert len(numbers) / 2 < refused < len(numbers) * 0.95
    assert slowest < LONGEST_SECONDS


def test_damaged_files_leave_raw_rows_and_manifest_in_step(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "home" / "warehouse.duckdb")

    records = [
        land_text(tmp_path, warehouse, PANEL, f"{number}", mutant(number).content) for number in LANDED
    ]

    with warehouse.transaction() as con:
        known = {record.digest: record for record in manifest.records(con, PANEL)}
        landed = con.execute(
            "SELECT f.digest, count(*) FROM (SELECT file_no FROM raw.turnover "
            "UNION ALL SELECT file_no FROM raw.stores) LEFT JOIN raw.files AS f USING (file_no) GROUP BY 1"
        ).fetchall()
    assert known == {record.digest: record for record in records}
    assert {record.status for record in records} == {"accepted", "refused"}
    assert dict(landed) == {r.digest: r.rows for r in known.values() if r.status == "accepted"}
    assert all(bool(r.reason) == (r.status == "refused") for r in known.values())


# Bombs: small files that become large when they are read -------------------------------------------

UNPACKED = 40_000_000
ALLOWED = 300 << 20
START = ",".join(HEADER).encode() + b"\n"


def bomb(unit: bytes, start: bytes = START) -> bytes:
    return gzip.compress(start + unit * (UNPACKED // len(unit)), 1, mtime=0)


def parquet_bomb(texts: list[str], rows: int, **options: Any) -> bytes:
    """A file whose columns are all the same texts, over and over; as small as parquet makes it."""
    numbers = pa.array([row % len(texts) for row in range(rows)], pa.int32())
    column = pa.DictionaryArray.from_arrays(numbers, texts)
    sink = io.BytesIO()
    pq.write_table(pa.table(dict.fromkeys(HEADER, column)), sink, compression="zstd", **options)
    return sink.getvalue()


def in_bounded_memory(work: Callable[[], str], allowed: int, seconds: int) -> str:
    """What work returns in a process of its own that may take so much more memory and time than this one."""
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            limit = psutil.Process().memory_info().vms + allowed
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            answer = work()
        except BaseException as error:  # noqa: BLE001 the child tells whatever went wrong
            answer = f"{type(error).__name__}: {error}"
        os.write(outlet, answer.encode())
        os._exit(0)
    os.close(outlet)
    _, status = os.waitpid(child, 0)
    with os.fdopen(inlet) as stream:
        return stream.read() or f"ended with {os.waitstatus_to_exitcode(status)}"


def count_or_refuse(path: Path) -> str:
    try:
        return str(sum(len(batch) for batch in read_batches(path, PANEL, read_head(path, PANEL))))
    except UnreadableFileError as error:
        return error.reason


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        pytest.param(bomb(b"2015-01-03,1,73,5.25\n"), str(UNPACKED // 21), id="rows"),
        pytest.param(bomb(b" " * 99 + b"\n"), "a header but no row", id="blank lines"),
        pytest.param(bomb(b"9"), "line 2 is longer", id="one line"),
        pytest.param(bomb(b"x\n", START + b'"'), "line 2 cannot be read (field larger", id="one field"),
        pytest.param(bomb(b'"\n",'), "line 2 is longer", id="one row"),
        pytest.param(bomb(b",x", START[:-1]), "line 1 is longer", id="header"),
        pytest.param(START[:-1] + b",x" * 400_000 + b"\n1" * 300_000, "names 400004 columns", id="columns"),
        pytest.param(
            parquet_bomb(["x" * 10**6], 100_000), "a text of 1000000 bytes", id="parquet, long text"
        ),
        pytest.param(parquet_bomb(["x" * 130_000], 3_000), "3000", id="parquet, one text in every row"),
        pytest.param(
            parquet_bomb([f"{n:0800000}" for n in range(60)], 60, use_dictionary=False),
            "a text of 800000 bytes",
            id="parquet, long texts, none twice",
        ),
        pytest.param(START[:-1] + b",x" * 9_000 + b"\n1" * 40_000, "40000", id="empty cells"),
    ],
)
def test_a_file_that_grows_when_it_is_read_takes_bounded_memory(
    tmp_path: Path, content: bytes, outcome: str
) -> None:
    path = tmp_path / "landed"
    path.write_bytes(content)

    answer = in_bounded_memory(lambda: count_or_refuse(path), ALLOWED, seconds=60)

    assert outcome in answer
