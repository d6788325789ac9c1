"""The warehouse: one writer at a time across processes, whole transactions, clear refusals."""

import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Timer

import duckdb
import pytest

from turnover_assets.core.tables import has_table
from turnover_assets.errors import HomeError, TurnoverError, WarehouseBusyError
from turnover_assets.storage.migrations import SCHEMA_VERSION, SCHEMAS
from turnover_assets.storage.warehouse import Warehouse, row_count
from turnover_assets_tests.factories import as_nobody, clean_processes
from turnover_assets_tests.waiting import PATIENCE

processes = clean_processes()


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "home" / "warehouse.duckdb", lock_timeout_seconds=PATIENCE)


@pytest.fixture
def filled(warehouse: Warehouse) -> Warehouse:
    """A warehouse with one table of ten rows."""
    with warehouse.transaction() as con:
        con.execute("CREATE TABLE raw.numbers AS SELECT i FROM range(10) AS t(i)")
    return warehouse


def count(warehouse: Warehouse) -> int:
    with warehouse.transaction() as con:
        return row_count(con, "raw.numbers")


# --- first use


def test_the_first_use_makes_the_folder_the_schemas_and_the_version(warehouse: Warehouse) -> None:
    with warehouse.transaction() as con:
        schemas = {row[0] for row in con.execute("SELECT schema_name FROM duckdb_schemas()").fetchall()}
        version = con.execute("SELECT version FROM meta.schema").fetchall()

    assert schemas >= set(SCHEMAS)
    assert version == [(SCHEMA_VERSION,)]


@pytest.mark.parametrize(
    ("table", "expected"),
    [("raw.numbers", True), ("cleaned.numbers", False), ("raw.letters", False)],
    ids=["there", "other schema", "other name"],
)
def test_a_table_is_found_by_schema_and_name(filled: Warehouse, table: str, expected: bool) -> None:
    with filled.transaction() as con:
        assert has_table(con, table) is expected


# --- transactions


def change_and_fail(warehouse: Warehouse, error: type[BaseException]) -> None:
    with warehouse.transaction() as con:
        con.execute("DELETE FROM raw.numbers WHERE i < 5")
        con.execute("CREATE TABLE raw.more AS SELECT 1 AS x")
        if error is duckdb.Error:
            con.execute("SELECT * FROM 'in the middle'")
        raise error("in the middle")


@pytest.mark.parametrize(
    "error", [ValueError, KeyboardInterrupt, duckdb.Error], ids=["error", "interruption", "failing statement"]
)
def test_an_exception_rolls_back_everything_and_is_passed_on(
    filled: Warehouse, error: type[BaseException]
) -> None:
    with pytest.raises(error, match="in the middle"):
        change_and_fail(filled, error)

    with filled.transaction() as con:
        assert (row_count(con, "raw.numbers"), has_table(con, "raw.more")) == (10, False)


# --- several processes


def append(path: Path, times: int) -> None:
    """Append rows one transaction at a time (runs in a process of its own)."""
    warehouse = Warehouse(path, threads=1, lock_timeout_seconds=PATIENCE)
    for i in range(times):
        with warehouse.transaction() as con:
            con.execute("INSERT INTO raw.numbers VALUES (?)", [1000 + i])


def hold(path: Path, holding: Event, release: Event) -> None:
    """Write in a transaction and keep it open (runs in a process of its own)."""
    with Warehouse(path, threads=1, lock_timeout_seconds=PATIENCE).transaction() as con:
        con.execute("INSERT INTO raw.numbers SELECT i FROM range(100000) AS t(i)")
        holding.set()
        release.wait(PATIENCE)


def test_two_processes_that_write_at_once_wait_for_each_other(filled: Warehouse) -> None:
    writers = [processes.Process(target=append, args=(filled.path, 8)) for _ in range(2)]

    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(PATIENCE)

    assert [writer.exitcode for writer in writers] == [0, 0]
    assert count(filled) == 10 + 2 * 8


def test_a_writer_that_waits_too_long_is_told_so_and_can_try_again(filled: Warehouse) -> None:
    holding, release = processes.Event(), processes.Event()
    other = processes.Process(target=hold, args=(filled.path, holding, release))
    other.start()
    assert holding.wait(PATIENCE)
    impatient = Warehouse(filled.path, lock_timeout_seconds=0.2)

    with (
        pytest.raises(
            WarehouseBusyError, match=r"in use by another process for more than 0 s.*TURNOVER_LOCK"
        ),
        impatient.transaction(),
    ):
        pass

    release.set()
    other.join(PATIENCE)
    assert count(impatient) == 100_010


def hold_from_outside(path: Path, holding: Event, release: Event) -> None:
    """Read as a notebook would, without our lock (runs in a process of its own)."""
    with duckdb.connect(str(path), read_only=True):
        holding.set()
        release.wait(PATIENCE)


@pytest.mark.parametrize(
    ("patience", "waits"), [(PATIENCE, True), (0.3, False)], ids=["patient", "impatient"]
)
def test_a_program_that_has_the_file_open_is_waited_for(
    filled: Warehouse, patience: float, waits: bool
) -> None:
    holding, release = processes.Event(), processes.Event()
    other = processes.Process(target=hold_from_outside, args=(filled.path, holding, release))
    other.start()
    assert holding.wait(PATIENCE)
    waiting = Warehouse(filled.path, lock_timeout_seconds=patience)

    if waits:
        Timer(0.3, release.set).start()
        assert count(waiting) == 10
    else:
        with pytest.raises(WarehouseBusyError, match="close the program that has the file open"):
            count(waiting)
    release.set()
    other.join(PATIENCE)


def test_a_process_killed_in_the_middle_loses_only_its_transaction(filled: Warehouse) -> None:
    holding, release = processes.Event(), processes.Event()
    victim = processes.Process(target=hold, args=(filled.path, holding, release))
    victim.start()
    assert holding.wait(PATIENCE)

    os.kill(victim.pid, signal.SIGKILL)
    victim.join(PATIENCE)

    at_once = Warehouse(filled.path, lock_timeout_seconds=0)  # the lock went with its process
    assert count(at_once) == 10
    append(filled.path, 1)
    assert count(filled) == 11


# --- homes that cannot be used


def refusal(warehouse: Warehouse) -> str:
    try:
        with warehouse.transaction():
            return "opened"
    except HomeError as error:
        return f"HomeError: {error}"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("home", [".", "home"], ids=["folder", "folder to be made"])
def test_a_home_that_cannot_be_written_is_refused_with_what_to_do(tmp_path: Path, home: str) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    warehouse = Warehouse(tmp_path / "closed" / home / "warehouse.duckdb", lock_timeout_seconds=1)

    told = as_nobody(lambda: refusal(warehouse))

    assert told.startswith(
        f"HomeError: The data home {warehouse.path.parent} cannot be used: Permission denied"
    )
    assert "Check that the folder can be written and has space" in told


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")

    warehouse = Warehouse(tmp_path / "home" / "warehouse.duckdb")

    with pytest.raises(HomeError, match=r"data home .*home cannot be used: File exists"):
        count(warehouse)


def test_a_file_that_is_no_warehouse_is_refused_and_left_as_it_is(warehouse: Warehouse) -> None:
    warehouse.path.parent.mkdir()
    warehouse.path.write_bytes(b"something else entirely" * 1000)

    with pytest.raises(HomeError, match=r"not a valid DuckDB database"), warehouse.transaction():
        pass

    assert warehouse.path.read_bytes() == b"something else entirely" * 1000


def test_a_warehouse_of_a_newer_release_is_refused(filled: Warehouse) -> None:
    with filled.transaction() as con:
        con.execute("UPDATE meta.schema SET version = version + 1")

    with pytest.raises(TurnoverError, match=rf"newer release \(schema {SCHEMA_VERSION + 1}"):
        count(filled)
