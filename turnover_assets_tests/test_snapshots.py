"""Published snapshots: whole or not there, one pointer, nothing partial, the current one never removed."""

import hashlib
import io
import json
import os
import resource
from multiprocessing.synchronize import Event
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from turnover_assets.errors import NoSnapshotError, PublishError, UnknownNameError
from turnover_assets.storage import durable, snapshots
from turnover_assets.storage.snapshots import Snapshot
from turnover_assets_tests.factories import clean_processes
from turnover_assets_tests.waiting import PATIENCE

processes = clean_processes()
FACTS = {"cutoff": "2017-06-10", "model_version": "3"}
QUERIES = {
    "forecasts": "SELECT i AS store, DATE '2017-06-17' AS week, i * 1.5 AS forecast FROM range(5) AS t(i)",
    "stores": "SELECT 1 AS store, 'Ça, \"là\"' AS place, NULL::DOUBLE AS latitude, true AS open",
}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return tmp_path / "it's published"


def publish(con: duckdb.DuckDBPyConnection, published: Path, **queries: str) -> Snapshot:
    return snapshots.publish(con, published, queries or QUERIES, FACTS)


def names(published: Path) -> set[str]:
    return {path.name for path in published.iterdir()}


# --- publishing


def test_what_was_published_is_read_back(con: duckdb.DuckDBPyConnection, published: Path) -> None:
    publish(con, published)

    found = snapshots.current(published)

    expected = pd.DataFrame({"store": range(5), "forecast": [0.0, 1.5, 3.0, 4.5, 6.0]})
    pd.testing.assert_frame_equal(found.read("forecasts")[["store", "forecast"]], expected, check_dtype=False)
    assert found.read("stores")["place"].tolist() == ['Ça, "là"']


def test_the_facts_describe_the_files(con: duckdb.DuckDBPyConnection, published: Path) -> None:
    snapshot = publish(con, published)

    facts = json.loads((snapshot.folder / "snapshot.json").read_text("utf-8"))

    assert (facts["id"], facts["cutoff"], facts["model_version"]) == (snapshot.name, "2017-06-10", "3")
    assert {table: about["rows"] for table, about in facts["tables"].items()} == {"forecasts": 5, "stores": 1}
    for table, about in facts["tables"].items():
        content = (snapshot.folder / f"{table}.parquet").read_bytes()
        assert (about["bytes"], about["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_an_earlier_snapshot_stays_as_it_was(con: duckdb.DuckDBPyConnection, published: Path) -> None:
    first = publish(con, published)
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}

    second = publish(con, published, forecasts="SELECT 1 AS other")

    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before
    assert snapshots.current(published).name == second.name
    assert names(published) == {"CURRENT", first.name, second.name}


def test_the_pointer_moves_only_after_everything_is_written(
    con: duckdb.DuckDBPyConnection, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(con, published)
    seen: list[str] = []
    original = durable.sync

    def watched(*paths: Path) -> None:
        original(*paths)
        seen.append(snapshots.current(published).name)
        for table in snapshots.current(published).facts["tables"]:
            snapshots.current(published).read(table)

    for module in (durable, snapshots):
        monkeypatch.setattr(module, "sync", watched)

    second = publish(con, published)

    # Two tables, the facts, the final name, the fresh pointer: all on disk before the pointer moves.
    assert seen == [first.name] * 5 + [second.name]


# --- failures


@pytest.fixture
def standing(con: duckdb.DuckDBPyConnection, published: Path) -> Snapshot:
    """A snapshot published before something fails."""
    return publish(con, published)


def test_a_failing_query_leaves_the_previous_snapshot_current_and_nothing_partial(
    con: duckdb.DuckDBPyConnection, published: Path, standing: Snapshot
) -> None:
    with pytest.raises(duckdb.CatalogException, match="nowhere"):
        publish(con, published, forecasts=QUERIES["forecasts"], stores="SELECT * FROM nowhere")

    assert snapshots.current(published).name == standing.name
    assert names(published) == {"CURRENT", standing.name}


@pytest.mark.parametrize("step", ["replace_file", "_write_table", "sync"])
def test_a_failing_disk_leaves_the_previous_snapshot_current_and_nothing_partial(
    con: duckdb.DuckDBPyConnection,
    published: Path,
    standing: Snapshot,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots, step, fail)

    with pytest.raises(
        PublishError, match=r"could not be written .*No space left.*published before stays current"
    ):
        publish(con, published)

    assert snapshots.current(published).name == standing.name
    assert names(published) == {"CURRENT", standing.name}


def publish_with_little_room(published: Path, limit: int) -> None:
    """Publish more than the limit on a file's size allows (runs in a process of its own)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with duckdb.connect() as con:
        try:
            publish(con, published, forecasts="SELECT uuid() AS u FROM range(200000)")
        except PublishError:
            os._exit(7)


def test_a_file_that_does_not_fit_leaves_the_previous_snapshot_current(
    published: Path, standing: Snapshot
) -> None:
    writer = processes.Process(target=publish_with_little_room, args=(published, 100_000))

    writer.start()
    writer.join(PATIENCE)

    assert writer.exitcode == 7
    assert snapshots.current(published).name == standing.name
    assert names(published) == {"CURRENT", standing.name}


def test_a_place_that_is_no_folder_is_a_publish_error(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    (tmp_path / "published").write_text("a file")

    with pytest.raises(PublishError, match=r"File exists.*permit writing there"):
        publish(con, tmp_path / "published")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(
            lambda folder: None, r"Nothing has been published in .* Run `turnover run`", id="nothing"
        ),
        pytest.param(
            lambda folder: (folder.mkdir(), (folder / "CURRENT").write_text("gone\n")),
            r"snapshot 'gone' in .* cannot be read .*Run `turnover run` to publish a new one",
            id="pointer to nothing",
        ),
        pytest.param(
            lambda folder: (
                (folder / "torn").mkdir(parents=True),
                (folder / "torn" / "snapshot.json").write_text("{"),
                (folder / "CURRENT").write_text("torn"),
            ),
            r"snapshot 'torn' in .* cannot be read",
            id="torn facts",
        ),
        pytest.param(
            lambda folder: (folder / "CURRENT").mkdir(parents=True),
            r"CURRENT cannot be read \(Is a directory\)",
            id="pointer that is a folder",
        ),
        pytest.param(
            lambda folder: (folder.mkdir(), (folder / "CURRENT").write_bytes(b"\xff\xfe")),
            r"CURRENT cannot be read .*Run `turnover run`",
            id="pointer that is no text",
        ),
    ],
)
def test_without_a_readable_snapshot_the_message_says_what_to_do(
    published: Path, spoil: object, message: str
) -> None:
    spoil(published)

    with pytest.raises(NoSnapshotError, match=message):
        snapshots.current(published)
    assert snapshots.find_current(published) is None


def test_an_unknown_table_is_refused_with_those_there_are(standing: Snapshot) -> None:
    with pytest.raises(
        UnknownNameError, match=r"no published table named 'profit'. Available: forecasts, stores"
    ):
        standing.read("profit")


# --- export


@pytest.mark.parametrize("table", ["forecasts", "stores"])
@pytest.mark.parametrize("to", ["path", "stream"])
@pytest.mark.parametrize(("file_format", "reader"), [("csv", pd.read_csv), ("parquet", pd.read_parquet)])
def test_an_export_reads_back_to_the_published_table(
    standing: Snapshot, tmp_path: Path, table: str, to: str, file_format: str, reader: object
) -> None:
    target = tmp_path / "export" if to == "path" else io.BytesIO()

    standing.export(table, target, file_format)

    content = target.read_bytes() if to == "path" else target.getvalue()
    found, expected = reader(io.BytesIO(content)), standing.read(table)
    if file_format == "csv" and "week" in found:
        found["week"] = pd.to_datetime(found["week"]).dt.date
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


# --- pruning


@pytest.mark.parametrize(("keep", "left"), [(0, 1), (1, 1), (2, 2), (4, 4), (9, 4)])
def test_pruning_keeps_the_newest(
    con: duckdb.DuckDBPyConnection, published: Path, keep: int, left: int
) -> None:
    made = [publish(con, published).name for _ in range(4)]

    removed = snapshots.prune(published, keep)

    assert removed == made[: 4 - left]
    assert names(published) == {"CURRENT", *made[4 - left :]}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_pruning_keeps_the_current_one_even_where_it_is_the_oldest_and_never_more_than_it_should(
    con: duckdb.DuckDBPyConnection, published: Path, keep: int
) -> None:
    made = [publish(con, published).name for _ in range(4)]
    (published / "CURRENT").write_text(made[0])

    snapshots.prune(published, keep)

    assert names(published) == {"CURRENT", made[0], *made[5 - keep :]}


def test_pruning_goes_by_the_time_of_publishing_not_by_that_of_the_files(
    con: duckdb.DuckDBPyConnection, published: Path
) -> None:
    made = [publish(con, published) for _ in range(3)]
    for age, snapshot in enumerate(made):  # as after a restored backup
        os.utime(snapshot.folder, (1e9 - age, 1e9 - age))

    assert snapshots.prune(published, 2) == [made[0].name]


def test_pruning_takes_what_cannot_be_read_first(con: duckdb.DuckDBPyConnection, published: Path) -> None:
    made = [publish(con, published) for _ in range(3)]
    (made[1].folder / "snapshot.json").write_text("{")

    assert snapshots.prune(published, 2) == [made[1].name]


def test_where_nothing_is_published_there_is_nothing_to_prune(published: Path) -> None:
    assert snapshots.prune(published, 3) == []


# --- leases


def test_a_snapshot_that_a_reader_has_open_is_left_for_a_later_pruning(
    con: duckdb.DuckDBPyConnection, published: Path
) -> None:
    first = publish(con, published)
    with snapshots.lease(published) as read:
        made = [publish(con, published).name for _ in range(3)]

        removed = snapshots.prune(published, 1)

        assert removed == made[:2]
        assert read.name == first.name
        assert read.read("forecasts")["store"].tolist() == [0, 1, 2, 3, 4]
    assert snapshots.prune(published, 1) == [first.name]
    assert names(published) == {"CURRENT", made[2]}


def test_several_readers_share_a_snapshot_also_by_its_name(
    con: duckdb.DuckDBPyConnection, published: Path
) -> None:
    old, new = publish(con, published), publish(con, published)

    with snapshots.lease(published, old.name) as one:
        with snapshots.lease(published, old.name) as other:
            assert (one, other) == (old, old)
        assert snapshots.prune(published, 1) == []
    assert snapshots.prune(published, 1) == [old.name]
    with (
        pytest.raises(NoSnapshotError, match=f"'{old.name}' in .* cannot be read"),
        snapshots.lease(published, old.name),
    ):
        pass
    assert snapshots.current(published).name == new.name


def test_a_reader_whose_snapshot_is_removed_before_it_has_its_lease_gets_the_current_one(
    con: duckdb.DuckDBPyConnection, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = publish(con, published)
    original, asked = snapshots._current_name, []

    def overtaken(folder: Path) -> str:
        asked.append(original(folder))
        if len(asked) == 1:
            publish(con, published)
            snapshots.prune(published, 1)
        return asked[-1]

    monkeypatch.setattr(snapshots, "_current_name", overtaken)

    with snapshots.lease(published) as read:
        assert read.name != old.name
        assert read.read("forecasts")["store"].tolist() == [0, 1, 2, 3, 4]
    assert asked[0] == old.name


def test_without_a_snapshot_a_lease_says_what_to_do(published: Path) -> None:
    with pytest.raises(NoSnapshotError, match="Nothing has been published"), snapshots.lease(published):
        pass
    published.mkdir()
    (published / "CURRENT").write_text("gone")
    with pytest.raises(NoSnapshotError, match=r"'gone' in .* cannot be read"), snapshots.lease(published):
        pass


# --- what killed writers left


def test_the_next_writer_removes_what_a_dead_one_left_and_not_what_a_live_one_writes(
    con: duckdb.DuckDBPyConnection, published: Path
) -> None:
    torn, fresh = published / ".partial-torn", published / ".partial-CURRENT-abc"
    torn.mkdir(parents=True)
    (torn / "forecasts.parquet").write_bytes(b"PAR1")
    fresh.write_text("torn")

    with durable.shared(published):  # as another writer has it
        beside = publish(con, published)
        assert snapshots.prune(published, 1) == []
        assert names(published) == {"CURRENT", torn.name, fresh.name, beside.name}
    after = publish(con, published)

    assert names(published) == {"CURRENT", beside.name, after.name}


def test_a_pruning_that_was_killed_is_ended_by_the_next(
    con: duckdb.DuckDBPyConnection, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [publish(con, published).name for _ in range(3)]
    monkeypatch.setattr(snapshots, "remove_partial", lambda folder: None)  # as if killed before

    assert snapshots.prune(published, 1) == made[:2]
    assert names(published) == {"CURRENT", made[2], *(f".partial-{name}" for name in made[:2])}
    monkeypatch.undo()
    assert snapshots.prune(published, 1) == []
    assert names(published) == {"CURRENT", made[2]}


# --- readers beside a writer


def read_for_ever(published: Path, started: Event, done: Event, told: object) -> None:
    """Read through CURRENT until told to stop; tells what was wrong, and how many snapshots it saw."""
    problems, seen = [], set()
    while not done.is_set():
        try:
            with snapshots.lease(published) as snapshot:
                numbers = {table: set(snapshot.read(table)["number"]) for table in snapshot.facts["tables"]}
            if len(numbers) != 2 or len(set.union(*numbers.values())) != 1:
                problems.append(f"{snapshot.name}: {numbers}")
            seen.add(snapshot.name)
            started.set()
        except Exception as error:  # noqa: BLE001 whatever it is, the test reports it
            problems.append(repr(error))
            started.set()
    told.put((problems, len(seen)))


def test_a_reader_never_sees_a_torn_or_missing_snapshot_while_a_writer_publishes(
    con: duckdb.DuckDBPyConnection, published: Path
) -> None:
    def write(number: int) -> None:
        query = f"SELECT {number} AS number FROM range(2000)"
        publish(con, published, forecasts=query, accuracy=query)

    write(0)
    started, done, told = processes.Event(), processes.Event(), processes.Queue()
    reader = processes.Process(target=read_for_ever, args=(published, started, done, told))
    reader.start()
    assert started.wait(PATIENCE)

    for number in range(1, 31):
        write(number)
        snapshots.prune(published, 2)
    done.set()
    problems, seen = told.get(timeout=PATIENCE)
    reader.join(PATIENCE)

    assert problems == []
    assert seen > 1
    snapshots.prune(published, 2)
    assert len(names(published)) == 2 + 1
