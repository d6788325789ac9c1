"""Ingestion against a model in plain Python: files written, landed, killed, resumed, rebuilt.

Hypothesis draws the steps. After each, the manifest, the raw rows, the cleaned values and the rejected rows
must be those of the model, and one set of values must have one version. INGESTION_EXAMPLES sets how many
sequences are tried; with it, they are new ones each time.
"""

import csv
import gzip
import io
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from turnover_assets.core import cleaning
from turnover_assets.panel import default_panel
from turnover_assets.storage import landing, landing_folder, manifest
from turnover_assets.storage.rebuild import rebuild
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests import oracles
from turnover_assets_tests.factories import RawFile, clean_all, insert_raw, land_path, memory_warehouse

PANEL = default_panel()
SOURCES = PANEL.tables  # by table, the name in files by canonical name
EXAMPLES = os.environ.get("INGESTION_EXAMPLES")
FIELDS = ("week", "store", "department", "turnover")
Row = dict[str, str | None]

# What files hold -----------------------------------------------------------------------------------


def mostly(*good: str, bad: Sequence[str | None]) -> st.SearchStrategy[str | None]:
    """A good text five times out of six, so that a row often gets past its other fields."""
    return st.sampled_from([*good * (5 * len(bad) // len(good) + 1), *bad])


ROWS = st.fixed_dictionaries(
    {
        "week": mostly("2017-06-10", "2017-06-17", "2017-06-24", bad=["2017-06-11", "10/06/2017", "", None]),
        "store": mostly("1", "2", "3", "4.0", bad=["x", "", "NA"]),
        "department": mostly("73", "88", bad=["1.5", None]),
        "turnover": mostly("1", "2.50", "-3", "1e2", "0.1", bad=["1,5", "abc", "NaN", "1e16"]),
    }
)
STORES = st.fixed_dictionaries(
    {"store": mostly("1", "2", "3", "4", bad=["x", ""]), "region": st.sampled_from("789")}
)
SHAPES = st.sampled_from(["csv", "csv", "semicolons", "gz", "parquet"])
TORN: Mapping[str, Any] = {
    "no known columns": lambda content: b"when,where,what\n1,2,3\n" + content,
    "gzip cut short": lambda content: gzip.compress(content, mtime=0)[:-9],
    "header only": lambda content: content.splitlines()[0] + b"\n",
    "open quote": lambda content: content + b'2017-06-10,1,73,"5\n',
    "empty": lambda content: b"",
}


@dataclass(frozen=True)
class Written:
    """A file in the landing folder as the model knows it; `rows` is None where it must be refused."""

    path: Path
    content: bytes
    table: str
    shape: str
    rows: Sequence[Row] | None
    short: int | None = None  # the row, by position, that lacks its last field

    @property
    def digest(self) -> str:
        return sha256(self.content).hexdigest()

    def line(self, position: int) -> int:
        return position + (1 if self.shape == "parquet" else 2)


def packed(table: str, shape: str, rows: Sequence[Row], short: int | None) -> bytes:
    """The bytes of a file."""
    names = SOURCES[table]
    if shape == "parquet":
        columns = {
            source: pa.array([row.get(name) for row in rows], pa.string()) for name, source in names.items()
        }
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink)
        return sink.getvalue()
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";" if shape == "semicolons" else ",", lineterminator="\n")
    writer.writerow(names.values())
    for position, row in enumerate(rows):
        cells = [row.get(name) for name in names]
        writer.writerow(cells[:-1] if position == short else cells)
    content = text.getvalue().encode()
    return gzip.compress(content, mtime=0) if shape == "gz" else content


# The model -----------------------------------------------------------------------------------------


@dataclass
class Model:
    """What should be on record: files in the order of landing. Everything else follows from it."""

    files: list[Written] = field(default_factory=list)

    def land(self, file: Written) -> None:
        """A content is accepted once; what was refused is refused again, and stands last."""
        known = next((f for f in self.files if f.digest == file.digest), None)
        if known is None or known.rows is None:
            self.files = [f for f in self.files if f is not known] + [file]

    def knows(self, file: Written) -> bool:
        return any(known.digest == file.digest for known in self.files)

    def manifest(self) -> list[tuple[str, str, str, int]]:
        return [
            (f.digest, f.path.name, "refused", 0)
            if f.rows is None
            else (f.digest, f.path.name, "accepted", len(f.rows))
            for f in self.files
        ]

    def accepted(self, table: str) -> list[tuple[int, Written, Sequence[Row]]]:
        found = enumerate(self.files)
        return [(n, f, f.rows) for n, f in found if f.rows is not None and f.table == table]

    def stores(self) -> tuple[dict[int, str | None], list[tuple[str, int, str]], int]:
        """Regions by store, the rejected rows, and how many rows were restated."""
        listed: dict[int, str | None] = {}
        rejected, restated = [], 0
        for _, file, rows in self.accepted("stores"):
            lines: dict[int, int] = {}  # of this file's good rows, by store
            for position, row in enumerate(rows):
                text, line = oracles.text_of(row["store"]), file.line(position)
                store = None if text is None else oracles.whole_of(text)
                if store is None:
                    rejected.append(
                        (file.path.name, line, "key_missing" if text is None else "key_unreadable")
                    )
                    continue
                if store in lines:
                    rejected.append((file.path.name, lines[store], "repeated_key"))
                else:
                    restated += store in listed
                lines[store], listed[store] = line, row["region"]
        return listed, rejected, restated

    def turnover(self) -> oracles.Cleaned:
        """What the oracle of cleaning makes of the rows, which it places by number of file and line."""
        rows = [
            oracles.RawRow(
                number,
                file.line(position),
                ";" if file.shape == "semicolons" else ",",
                row,
                "too short" if position == file.short else None,
            )
            for number, file, rows in self.accepted("turnover")
            for position, row in enumerate(rows)
        ]
        return oracles.clean_turnover(rows, set(self.stores()[0]) or None)


# Killing -------------------------------------------------------------------------------------------


class MortalConnection:
    """A connection whose process is killed instead of its n-th statement; it reports commits of landings."""

    def __init__(self, con: duckdb.DuckDBPyConnection, life: list[int], report: int) -> None:
        self._con, self._life, self._report, self._migrates = con, life, report, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._con, name)

    def execute(self, query: str, *rest: Any) -> duckdb.DuckDBPyConnection:
        self._age()
        result = self._con.execute(query, *rest)
        if query == "BEGIN TRANSACTION":
            self._migrates = False
        elif "meta.schema" in query and not query.lstrip().startswith("SELECT"):
            self._migrates = True  # what is committed is the warehouse itself, and no landing
        elif query == "COMMIT" and not self._migrates:
            os.write(self._report, b"c")
        return result

    def close(self) -> None:
        self._age()
        self._con.close()

    def _age(self) -> None:
        self._life[0] -= 1
        if self._life[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def landed_until_killed(warehouse: Warehouse, path: Path, statements: int) -> tuple[bool, bool]:
    """Land in a process that is killed after so many statements: whether it died, and had committed."""
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        connect, life = duckdb.connect, [statements]
        duckdb.connect = lambda *args, **options: MortalConnection(connect(*args, **options), life, outlet)
        try:
            land_path(warehouse, PANEL, path)
        finally:
            os._exit(0)
    os.close(outlet)
    _, status = os.waitpid(child, 0)
    with os.fdopen(inlet) as stream:
        return os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "c" in stream.read()


# The machine ---------------------------------------------------------------------------------------


class Ingestion(RuleBasedStateMachine):
    """Writes, lands, kills and cleans, in any order, and compares with the model after every step."""

    files = Bundle("files")
    versions: ClassVar[dict[Any, str]] = {}  # of each set of cleaned values, over all sequences

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(mkdtemp(prefix="turnover-states-"))
        self.folder = self.root / "landing"
        self.folder.mkdir()
        self.warehouse = Warehouse(self.root / "home" / "warehouse.duckdb", threads=1, lock_timeout_seconds=5)
        self.model = Model()
        self.written: list[Written] = []
        self.changed = self.killed = False  # since the last check; since the last landing

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def _write(
        self, table: str, shape: str, content: bytes, rows: Sequence[Row] | None, short: int | None
    ) -> Written:
        path = self.folder / f"file_{len(self.written):03}"
        path.write_bytes(content)
        self.written.append(Written(path, content, table, shape, rows, short))
        return self.written[-1]

    @rule(
        target=files,
        rows=st.lists(ROWS, min_size=1, max_size=5),
        shape=SHAPES,
        short=st.sampled_from([None] * 5 + [0]),
    )
    def write(self, rows: list[Row], shape: str, short: int | None) -> Written:
        short = None if shape == "parquet" else short
        return self._write("turnover", shape, packed("turnover", shape, rows, short), rows, short)

    @rule(target=files, rows=st.lists(STORES, min_size=1, max_size=4), shape=SHAPES)
    def write_stores(self, rows: list[Row], shape: str) -> Written:
        return self._write("stores", shape, packed("stores", shape, rows, None), rows, None)

    @rule(target=files, how=st.sampled_from(sorted(TORN)), rows=st.lists(ROWS, min_size=1, max_size=2))
    def write_torn(self, how: str, rows: list[Row]) -> Written:
        return self._write("turnover", "csv", TORN[how](packed("turnover", "csv", rows, None)), None, None)

    @rule(
        target=files,
        file=files,
        amounts=st.lists(st.sampled_from(["7", "8.25", "abc"]), min_size=1, max_size=3),
    )
    def restate(self, file: Written, amounts: list[str]) -> Written:
        """The same keys, other values."""
        rows = [row | {"turnover": amounts[i % len(amounts)]} for i, row in enumerate(file.rows or [])]
        if file.table != "turnover" or not rows:
            rows = [dict(zip(FIELDS, ("2017-06-10", "1", "73", amounts[0]), strict=True))]
        return self._write("turnover", "gz", packed("turnover", "gz", rows, None), rows, None)

    @rule(target=files, file=files)
    def copy(self, file: Written) -> Written:
        """The same content under another name."""
        return self._write(file.table, file.shape, file.content, file.rows, file.short)

    @rule(file=files)
    def land(self, file: Written) -> None:
        record = land_path(self.warehouse, PANEL, file.path)

        assert record.status == ("refused" if file.rows is None else "accepted")
        assert record.digest == file.digest
        self.model.land(file)
        self.changed, self.killed = True, False

    @rule()
    def land_what_is_new(self) -> None:
        """What a run does, which is also how it resumes."""
        with self.warehouse.transaction() as con:
            known = manifest.records(con, PANEL)
        for file in landing.unseen(landing_folder.scan(self.folder), known):
            landing.land(self.warehouse, PANEL, file, "run")
        for written in self.written:
            if not self.model.knows(written):
                self.model.land(written)
        self.changed = True

    @rule(file=files, statements=st.integers(0, 26))
    def land_and_be_killed(self, file: Written, statements: int) -> None:
        died, committed = landed_until_killed(self.warehouse, file.path, statements)

        assert died or committed
        if committed:
            self.model.land(file)
        self.changed = self.killed = True

    @rule(lost=st.booleans())
    def rebuild(self, lost: bool) -> None:
        """Make the warehouse again from the kept files, perhaps after it was lost; nothing may differ."""
        if lost and not self.killed:  # what a kill left open would count as landed
            self.warehouse.path.unlink(missing_ok=True)

        rebuild(self.warehouse, PANEL, self.root / "published", lambda con: clean_all(con, PANEL))

        self.changed = True

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        if not self.changed:
            return
        self.changed = False
        with self.warehouse.transaction() as con:
            check_manifest(con, self.model)
            clean_all(con, PANEL)
            check_cleaned(con, self.model)
            version = cleaning.content_version(con, PANEL)
        check_version(self.versions, self.model, version)


def check_manifest(con: duckdb.DuckDBPyConnection, model: Model) -> None:
    """The files in order, with a reason where refused, and each with its raw rows once."""
    records = manifest.records(con, PANEL)
    assert [(r.digest, r.name, r.status, r.rows) for r in records] == model.manifest()
    assert all(bool(r.reason) == (r.status == "refused") for r in records)
    landed = con.execute(
        "SELECT digest, count(*), count(DISTINCT line) FROM "
        "(SELECT file_no, line FROM raw.turnover UNION ALL SELECT file_no, line FROM raw.stores) "
        "LEFT JOIN raw.files USING (file_no) GROUP BY 1"
    ).fetchall()
    assert sorted(landed) == sorted(
        (f.digest, len(f.rows), len(f.rows)) for f in model.files if f.rows is not None
    )


def check_cleaned(con: duckdb.DuckDBPyConnection, model: Model) -> None:
    """Values, rejected rows with their rules, and no raw row that is none of cleaned, restated, rejected."""
    (listed, rejected_stores, restated_stores), expected = model.stores(), model.turnover()
    kept = con.execute("SELECT store, department, week, turnover FROM cleaned.turnover").fetchall()
    stores = con.execute("SELECT store, CAST(region AS VARCHAR) FROM cleaned.stores").fetchall()
    rejected = con.execute(f"SELECT file, line, rule FROM {cleaning.REJECTED}").fetchall()
    raw = con.execute(
        "SELECT (SELECT count(*) FROM raw.turnover) + (SELECT count(*) FROM raw.stores)"
    ).fetchall()

    assert sorted(kept) == sorted(expected.kept.values())
    assert dict(stores) == listed
    assert len(stores) == len(listed)
    places = [
        (model.files[number].path.name, line, rule) for (number, line), rule in expected.rejected.items()
    ]
    assert sorted(rejected) == sorted([*places, *rejected_stores])
    restated = len(expected.restated) + restated_stores
    assert raw == [(len(kept) + len(stores) + len(rejected) + restated,)]


def check_version(versions: dict[Any, str], model: Model, version: str) -> None:
    """One version for one set of values, over all sequences, and as if they had come in a single file."""
    listed, values = model.stores()[0], model.turnover().kept.values()
    key = (frozenset(listed.items()), frozenset(values))
    if key not in versions:
        versions[key] = version_of_values(listed, list(values))
        assert list(versions.values()).count(versions[key]) == 1
    assert version == versions[key]


def version_of_values(listed: Mapping[int, str | None], values: Sequence[tuple[Any, ...]]) -> str:
    """The version of values that landed at once, each in one row, the last first."""
    rows = [
        dict(zip(("store", "department", "week", "turnover"), map(str, row), strict=True)) for row in values
    ]
    stores = [{"store": str(store), "region": region} for store, region in listed.items()]
    with memory_warehouse() as con:
        insert_raw(con, PANEL, [RawFile("turnover", rows[::-1]), RawFile("stores", stores[::-1])])
        clean_all(con, PANEL)
        return cleaning.content_version(con, PANEL)


TestIngestion = Ingestion.TestCase
TestIngestion.settings = settings(
    max_examples=int(EXAMPLES or 4),
    stateful_step_count=15,
    derandomize=EXAMPLES is None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestIngestionAtLength(TestIngestion):
    """More and longer sequences."""

    settings = settings(TestIngestion.settings, max_examples=int(EXAMPLES or 25), stateful_step_count=25)


def test_a_landing_killed_at_any_of_its_statements_is_whole_or_absent_and_resumes(tmp_path: Path) -> None:
    warehouse, model, died, statements = Warehouse(tmp_path / "home" / "warehouse.duckdb"), Model(), True, 0
    while died:
        rows: list[Row] = [dict(zip(FIELDS, ("2017-06-10", "1", "73", str(statements)), strict=True))] * 3
        content = packed("turnover", "csv", rows, None)
        file = Written(tmp_path / f"file_{statements}", content, "turnover", "csv", rows)
        file.path.write_bytes(content)

        died, committed = landed_until_killed(warehouse, file.path, statements)
        if committed:
            model.land(file)
        with warehouse.transaction() as con:
            manifest.prepare(con, PANEL)
            check_manifest(con, model)
        land_path(warehouse, PANEL, file.path)
        if not committed:
            model.land(file)
        statements += 1

    with warehouse.transaction() as con:
        check_manifest(con, model)
        clean_all(con, PANEL)
        check_cleaned(con, model)
    assert 10 < len(model.files) == statements
