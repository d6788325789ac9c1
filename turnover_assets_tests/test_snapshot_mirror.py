"""Snapshots in an object store: mirrored with CURRENT last, pruned, and fetched whole or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from turnover_assets.errors import NoSnapshotError, ObjectStoreError
from turnover_assets.storage import snapshots
from turnover_assets.storage.object_store import ObjectStore
from turnover_assets.storage.snapshot_mirror import fetch_current, mirror, mirrored_name
from turnover_assets.storage.snapshots import Snapshot, current, lease
from turnover_assets_tests.servers import Bucket

Publish = Callable[[int], Snapshot]


@pytest.fixture
def publish(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> Publish:
    """Publishes snapshots with a table that changes, and one that does not."""

    def work(number: int) -> Snapshot:
        queries = {
            "forecasts": f"SELECT {number} AS forecast",
            "stores": "SELECT i AS store FROM range(1000) AS t(i)",
        }
        return snapshots.publish(con, tmp_path / "published", queries, {"cutoff": f"2024-01-{number:02}"})

    return work


def url_of(bucket: Bucket) -> str:
    return f"{bucket.url}/out/published"


def recorded(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[tuple[str, str]]:
    """What is asked of stores from now on, as pairs of method and object."""
    asked: list[tuple[str, str]] = []
    for name in names:
        work = getattr(ObjectStore, name)

        def note(
            store: ObjectStore, *args: object, name: str = name, work: Callable[..., object] = work
        ) -> object:
            asked.append((name, str(args[-1 if name == "store" else 0])))
            return work(store, *args)

        monkeypatch.setattr(ObjectStore, name, note)
    return asked


def test_a_mirrored_snapshot_is_fetched_as_it_was_published(
    bucket: Bucket, publish: Publish, tmp_path: Path
) -> None:
    made = publish(1)

    done = mirror(made, url_of(bucket), 5)
    found = fetch_current(url_of(bucket), tmp_path / "there")

    assert (done.name, done.written, done.removed) == (made.name, 3, ())
    assert done.written_bytes == sum(path.stat().st_size for path in made.folder.iterdir())
    assert {p.name: p.read_bytes() for p in found.folder.iterdir()} == {
        p.name: p.read_bytes() for p in made.folder.iterdir()
    }
    pd.testing.assert_frame_equal(current(tmp_path / "there").read("stores"), made.read("stores"))
    assert bucket.get("out/published/CURRENT").decode() == f"{made.name}\n"


def test_current_is_written_last_and_what_is_there_is_not_written_again(
    bucket: Bucket, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = publish(1)
    asked = recorded(monkeypatch, "store", "write")

    mirror(made, url_of(bucket), 5)
    first, before = list(asked), bucket.state()
    again = mirror(made, url_of(bucket), 5)

    assert [key.rpartition("/")[2] for _, key in first] == [
        "forecasts.parquet",
        "stores.parquet",
        "snapshot.json",
        "CURRENT",
    ]
    assert (again.written, asked) == (0, first)
    assert bucket.state() == before


def test_a_mirroring_that_was_cut_short_leaves_the_old_and_goes_on_later(
    bucket: Bucket, publish: Publish, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old, store = publish(1), ObjectStore.store
    mirror(old, url_of(bucket), 5)
    new = publish(2)

    def fail_at_facts(self: ObjectStore, source: Path, key: str) -> None:
        if source.name == "snapshot.json":
            raise ObjectStoreError(self.url, "written", "the line is dead")
        store(self, source, key)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "store", fail_at_facts)
        with pytest.raises(ObjectStoreError, match="the line is dead"):
            mirror(new, url_of(bucket), 5)

    assert mirrored_name(url_of(bucket)) == old.name
    assert fetch_current(url_of(bucket), tmp_path / "there").name == old.name
    assert mirror(new, url_of(bucket), 5).written == 1
    assert fetch_current(url_of(bucket), tmp_path / "there").name == new.name


def test_old_snapshots_are_pruned_and_foreign_objects_are_not(bucket: Bucket, publish: Publish) -> None:
    for key in ("notes.txt", "backup/2024.zip", "2024-01-01/report.pdf"):
        bucket.put(f"out/published/{key}", "of somebody else")
    made = []
    for number in (1, 2, 3, 4):
        made.append(publish(number))
        done = mirror(made[-1], url_of(bucket), 2)

    left = {key.removeprefix("out/published/").partition("/")[0] for key in bucket.state()}
    assert left == {made[2].name, made[3].name, "CURRENT", "notes.txt", "backup", "2024-01-01"}
    assert done.removed == (made[1].name,)


def test_the_current_one_stays_though_it_is_the_oldest(bucket: Bucket, publish: Publish) -> None:
    first, second, third = publish(1), publish(2), publish(3)
    for each in (first, second, third):
        mirror(each, url_of(bucket), 3)

    done = mirror(first, url_of(bucket), 2)  # as after a home was restored

    assert mirrored_name(url_of(bucket)) == first.name
    assert done.removed == (second.name,)


def test_what_is_not_as_it_was_published_is_not_passed_on(bucket: Bucket, publish: Publish) -> None:
    made = publish(1)
    path = made.path("stores")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(NoSnapshotError, match=r"stores.parquet is not as it was published"):
        mirror(made, url_of(bucket), 5)

    assert mirrored_name(url_of(bucket)) is None


def test_nothing_is_fetched_twice(
    bucket: Bucket, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror(publish(1), url_of(bucket), 5)
    fetch_current(url_of(bucket), tmp_path / "there")
    asked = recorded(monkeypatch, "fetch", "read", "look", "objects")

    fetch_current(url_of(bucket), tmp_path / "there")
    same = list(asked)
    new = publish(2)
    mirror(new, url_of(bucket), 5)
    asked.clear()
    found = fetch_current(url_of(bucket), tmp_path / "there")

    assert same == [("read", "CURRENT")]
    assert [key.rpartition("/")[2] for name, key in asked if name == "fetch"] == [
        "snapshot.json",
        "forecasts.parquet",
    ]
    assert found.read("stores").equals(new.read("stores"))


def damage(bucket: Bucket, key: str, content: bytes) -> None:
    bucket.put(f"out/published/{key}", content)


DAMAGES: dict[str, tuple[Callable[[Bucket, Snapshot], None], str]] = {
    "a table": (
        lambda bucket, made: damage(bucket, f"{made.name}/stores.parquet", b"x" * 10),
        "stores.parquet is not what was published",
    ),
    "a missing table": (
        lambda bucket, made: bucket.delete(f"out/published/{made.name}/stores.parquet"),
        "stores.parquet is missing there",
    ),
    "the facts": (
        lambda bucket, made: damage(bucket, f"{made.name}/snapshot.json", b"{"),
        "snapshot.json is damaged",
    ),
    "a table outside": (
        lambda bucket, made: damage(
            bucket,
            f"{made.name}/snapshot.json",
            json.dumps({"tables": {"../../x": {"bytes": 1, "sha256": ""}}}).encode(),
        ),
        r"names a file '../../x",
    ),
    "the pointer": (lambda bucket, made: damage(bucket, "CURRENT", b"../../etc\n"), "does not hold the name"),
}


@pytest.mark.parametrize(("do", "told"), DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_damaged_in_the_store_is_refused_and_what_was_fetched_stays(
    bucket: Bucket, publish: Publish, tmp_path: Path, do: Callable[[Bucket, Snapshot], None], told: str
) -> None:
    old = publish(1)
    mirror(old, url_of(bucket), 5)
    there = tmp_path / "there"
    fetch_current(url_of(bucket), there)
    new = publish(2)
    mirror(new, url_of(bucket), 5)
    do(bucket, new)
    damaged_reuse = told.startswith("stores")  # it would be taken from the snapshot before
    if damaged_reuse:
        shutil.rmtree(there / old.name)

    with pytest.raises(ObjectStoreError, match=told):
        fetch_current(url_of(bucket), there)

    assert not (there / new.name).exists()
    if not damaged_reuse:
        assert current(there).name == old.name
    assert [path.name for path in there.iterdir() if path.name.startswith(".")] == []


def test_a_snapshot_that_makes_way_while_it_is_fetched_is_followed_by_the_next(
    bucket: Bucket, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror(publish(1), url_of(bucket), 1)
    new, work = publish(2), ObjectStore.fetch

    def overtaken(store: ObjectStore, key: str, target: Path) -> str | None:
        if key.endswith("stores.parquet") and mirrored_name(url_of(bucket)) != new.name:
            mirror(new, url_of(bucket), 1)
        return work(store, key, target)

    monkeypatch.setattr(ObjectStore, "fetch", overtaken)

    assert fetch_current(url_of(bucket), tmp_path / "there").name == new.name


def test_fetched_snapshots_are_pruned_but_not_under_a_reader(
    bucket: Bucket, publish: Publish, tmp_path: Path
) -> None:
    there, made = tmp_path / "there", [publish(number) for number in (1, 2, 3, 4)]
    mirror(made[0], url_of(bucket), 5)
    fetch_current(url_of(bucket), there, keep=1)
    with lease(there) as read:
        for each in made[1:]:
            mirror(each, url_of(bucket), 5)
            fetch_current(url_of(bucket), there, keep=1)
        assert read.read("forecasts")["forecast"].tolist() == [1]
        assert {path.name for path in there.iterdir()} == {made[0].name, made[3].name, "CURRENT"}


def test_a_damaged_copy_is_fetched_again(bucket: Bucket, publish: Publish, tmp_path: Path) -> None:
    made = publish(1)
    mirror(made, url_of(bucket), 5)
    found = fetch_current(url_of(bucket), tmp_path / "there")
    found.path("stores").unlink()

    again = fetch_current(url_of(bucket), tmp_path / "there")

    assert again.read("stores").equals(made.read("stores"))


def test_an_address_where_nothing_is_published_is_told(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(
        NoSnapshotError, match=r"Nothing has been published in s3://.*\(TURNOVER_PUBLISH_URL\)"
    ):
        fetch_current(url_of(bucket), tmp_path / "there")


def test_a_folder_of_this_machine_is_a_store_too(publish: Publish, tmp_path: Path) -> None:
    share, made = tmp_path / "a share", publish(1)
    url = f"file://{share}"

    with pytest.raises(ObjectStoreError, match="there is no such folder"):  # a share that is not mounted
        mirror(made, url, 5)
    share.mkdir()
    mirror(made, url, 5)

    assert fetch_current(url, tmp_path / "there").read("stores").equals(made.read("stores"))
