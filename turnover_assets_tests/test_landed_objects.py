"""Objects of a store in the landing folder: new ones once, whole, none lost, and the store left as it is."""

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnover_assets.errors import ObjectStoreError, TurnoverError
from turnover_assets.storage import landed_objects
from turnover_assets.storage.landed_objects import Fetched, fetch_new
from turnover_assets.storage.landing_folder import list_folder
from turnover_assets.storage.object_store import ObjectStore
from turnover_assets_tests.servers import Bucket


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder


def fetch(bucket: Bucket, landing: Path, seconds: float | None = None) -> Fetched:
    memory = landing.parent / "landed_objects.json"
    return fetch_new(f"{bucket.url}/in", landing, memory, seconds=seconds)


def contents(landing: Path) -> dict[str, str]:
    return {p.relative_to(landing).as_posix(): p.read_text() for p in landing.rglob("*") if p.is_file()}


def test_new_objects_are_copied_with_their_folders_and_nothing_else(bucket: Bucket, landing: Path) -> None:
    for key in (
        "in/a.csv",
        "in/2024/b.csv.gz",
        "in/.hidden.csv",
        "in/.git/c.csv",
        "in/d.csv.part",
        "in/empty/",
    ):
        bucket.put(key, key)
    bucket.put("elsewhere/x.csv", "not of this folder")
    bucket.put("in-other/y.csv", "nor is this")
    before = bucket.state()

    found = fetch(bucket, landing)

    assert set(found.names) == {"a.csv", "2024/b.csv.gz"}
    assert contents(landing) == {"a.csv": "in/a.csv", "2024/b.csv.gz": "in/2024/b.csv.gz"}
    assert bucket.state() == before


def test_an_object_is_copied_once_and_again_where_it_changed(bucket: Bucket, landing: Path) -> None:
    bucket.put("in/a.csv", "first")
    bucket.put("in/b.csv", "same")
    fetch(bucket, landing)
    (landing / "b.csv").unlink()  # since it has landed

    nothing = fetch(bucket, landing)
    bucket.put("in/a.csv", "other")  # as many bytes
    changed = fetch(bucket, landing)

    assert nothing == Fetched()
    assert changed.names == ("a.csv",)
    assert contents(landing) == {"a.csv": "other"}


def test_a_file_that_is_no_copy_is_never_replaced(bucket: Bucket, landing: Path) -> None:
    (landing / "a.csv").write_text("put there by hand")
    bucket.put("in/a.csv", "from the store")
    bucket.put("in/b.csv", "once")
    fetch(bucket, landing)
    (landing / "b.csv").write_text("changed by hand")
    bucket.put("in/b.csv", "twice")

    fetch(bucket, landing)

    assert sorted(contents(landing).values()) == [
        "changed by hand",
        "from the store",
        "put there by hand",
        "twice",
    ]


def test_without_memory_copies_are_found_again(bucket: Bucket, landing: Path) -> None:
    bucket.put("in/a.csv", "content")
    bucket.put("in/x//a.csv", "other")  # which no file can be named
    fetch(bucket, landing)
    before = contents(landing)
    (landing.parent / "landed_objects.json").write_text('{"damaged": ')

    fetch(bucket, landing)

    assert contents(landing) == before


AWKWARD = [
    ["in/a", "in/a/b.csv", "in/a/b.csv/c.csv"],  # a file and a folder of one name
    ["in/x//a.csv", "in/x/a.csv", "in/x/./a.csv", "in/x/../a.csv", "in/../../a.csv"],
    [f"in/{'n' * 300}.csv", f"in/{'n' * 301}.csv", f"in/{'é' * 200}/a.csv"],
    ["in/tab\tname.csv", "in/tab_name.csv", "in/ name with spaces .csv", "in/ünï.csv", "in/a?b#c%20.csv"],
]


@pytest.mark.parametrize("keys", AWKWARD, ids=["file and folder", "dots", "long", "characters"])
@pytest.mark.parametrize("order", [1, -1], ids=["in order", "one by one, backwards"])
def test_names_that_collide_or_cannot_be_lose_nothing(
    bucket: Bucket, landing: Path, keys: list[str], order: int
) -> None:
    for key in keys[::order]:
        bucket.put(key, f"content of {key}")
        if order == -1:
            fetch(bucket, landing)

    fetch(bucket, landing)

    listed = {path.read_text() for path in list_folder(landing)}
    assert listed == {f"content of {key}" for key in keys}
    assert len(contents(landing.parent)) == len(keys) + 1  # and what is remembered


@given(key=st.text(st.characters(codec="utf-8"), min_size=1, max_size=80))
def test_every_key_has_names_that_a_folder_can_hold(key: str) -> None:
    names = [name for name, _ in zip(landed_objects.names_for(key), range(4), strict=False)]

    for name in names:
        parts = name.split("/")
        assert not {"", ".", ".."} & {*parts}
        assert "\0" not in name
        assert max(len(os.fsencode(part)) for part in parts) <= 255
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("url", ["s3://no-such-bucket-here/in", "file:///no/such/folder"])
def test_a_failed_listing_is_no_empty_folder(bucket: Bucket, landing: Path, url: str) -> None:
    with pytest.raises(ObjectStoreError, match=f"{url} cannot be listed: .*turnover doctor"):
        fetch_new(url, landing, landing.parent / "memory.json")


def test_an_empty_folder_is_no_failure(bucket: Bucket, landing: Path) -> None:
    assert fetch(bucket, landing) == Fetched()


@pytest.mark.slow
@pytest.mark.usefixtures("new_connections")
def test_a_store_that_is_away_is_told_within_seconds_and_without_secrets(
    bucket: Bucket, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")

    with pytest.raises(ObjectStoreError, match="Could not connect") as caught:
        fetch(bucket, landing)

    assert "a-secret-key" not in str(caught.value)


@pytest.mark.usefixtures("new_connections")
def test_no_credentials_are_told_as_such(
    bucket: Bucket, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    with pytest.raises(ObjectStoreError, match="Unable to locate credentials"):
        fetch(bucket, landing)


def test_an_object_that_changes_while_it_is_read_waits_for_the_next_look(
    bucket: Bucket, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("in/a.csv", "old")
    read = ObjectStore.fetch

    def change_after_reading(store: ObjectStore, key: str, target: Path) -> str | None:
        digest = read(store, key, target)
        bucket.put("in/a.csv", "new")
        return digest

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "fetch", change_after_reading)
        assert fetch(bucket, landing) == Fetched((), waiting=1)
    assert contents(landing) == {}

    assert fetch(bucket, landing).names == ("a.csv",)
    assert contents(landing) == {"a.csv": "new"}


def test_an_object_that_is_gone_when_it_is_read_is_left_out(
    bucket: Bucket, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("in/a.csv", "content")
    listed = ObjectStore(f"{bucket.url}/in").objects()
    bucket.delete("in/a.csv")
    monkeypatch.setattr(ObjectStore, "objects", lambda _: listed)

    assert fetch(bucket, landing) == Fetched((), waiting=1)
    assert contents(landing) == {}


def test_when_time_is_up_the_next_look_goes_on(bucket: Bucket, landing: Path) -> None:
    for name in "abc":
        bucket.put(f"in/{name}.csv", name)

    looks = [fetch(bucket, landing, seconds=0) for _ in range(4)]

    assert [(look.names, look.waiting) for look in looks] == [
        (("a.csv",), 2),
        (("b.csv",), 1),
        (("c.csv",), 0),
        ((), 0),
    ]


def test_what_was_copied_before_a_failure_is_not_copied_again(
    bucket: Bucket, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        bucket.put(f"in/{name}.csv", name)
    read = ObjectStore.fetch

    def fail_at_b(store: ObjectStore, key: str, target: Path) -> str | None:
        if key == "b.csv":
            target.write_text("half")
            raise ObjectStoreError(store.url, "read", "the line is dead")
        return read(store, key, target)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "fetch", fail_at_b)
        with pytest.raises(ObjectStoreError, match="the line is dead"):
            fetch(bucket, landing)

    assert contents(landing) == {"a.csv": "a"}
    assert fetch(bucket, landing).names == ("b.csv",)


def test_a_full_disk_is_told_and_leaves_no_half_file(
    bucket: Bucket, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("in/a.csv", "content")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("turnover_assets.storage.object_store.sync", full)
    with pytest.raises(TurnoverError, match=re.escape(f"{landing}: No space left on device. Permit writing")):
        fetch(bucket, landing)

    assert contents(landing) == {}


def test_a_landing_folder_that_is_missing_is_not_made(bucket: Bucket, landing: Path) -> None:
    bucket.put("in/a.csv", "content")

    with pytest.raises(TurnoverError, match=r"it is not there\. Permit writing there"):
        fetch_new(f"{bucket.url}/in", landing / "unmounted", landing.parent / "memory.json")


def test_what_a_killed_process_left_is_removed(bucket: Bucket, landing: Path) -> None:
    (landing / ".partial-0123").write_text("half")
    bucket.put("in/a.csv", "content")

    fetch(bucket, landing)

    assert contents(landing) == {"a.csv": "content"}


def test_a_link_to_a_folder_is_not_written_through(bucket: Bucket, landing: Path) -> None:
    outside = landing.parent / "outside"
    outside.mkdir()
    (landing / "sub").symlink_to(outside)
    bucket.put("in/sub/a.csv", "content")

    fetch(bucket, landing)

    assert list(outside.iterdir()) == []
    assert [path.read_text() for path in list_folder(landing)] == ["content"]
