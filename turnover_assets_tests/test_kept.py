"""Kept files and durable writes: whole or not there, never changed, and no leftovers of the dead."""

import hashlib
import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from turnover_assets.errors import HomeError, UnreadableFileError
from turnover_assets.panel import default_panel
from turnover_assets.storage import durable
from turnover_assets.storage.kept import KeptFiles, kept_files
from turnover_assets_tests.factories import as_nobody, clean_processes
from turnover_assets_tests.waiting import PATIENCE

processes = clean_processes()
PANEL = default_panel()
CONTENT = b"a,b\n" + b"1,2\n" * 700_000  # more than a chunk
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def kept(tmp_path: Path) -> KeptFiles:
    (tmp_path / "home").mkdir()
    return kept_files(tmp_path / "home")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.csv"
    path.write_bytes(CONTENT)
    return path


def row(number: int, digest: str = DIGEST) -> dict[str, object]:
    return {"file_no": number, "digest": digest, "name": f"{number}.csv", "status": "accepted"}


def partials(kept: KeptFiles) -> list[Path]:
    return list(kept.folder.glob(".partial-*"))


# --- copies


def test_a_copy_that_is_kept_has_the_bytes_the_name_of_its_content_and_cannot_be_written(
    kept: KeptFiles, source: Path
) -> None:
    with kept.copied(source) as copy:
        kept.keep(copy, PANEL)

    path = kept.path(DIGEST)
    assert copy.digest == DIGEST
    assert path.read_bytes() == CONTENT
    assert (path.stat().st_mode & 0o777, path.stat().st_nlink) == (0o444, 1)
    assert path.stat().st_ino != source.stat().st_ino
    assert (kept.has(DIGEST), kept.is_whole(DIGEST), partials(kept)) == (True, True, [])
    assert kept.panel(PANEL.digest) == PANEL


def test_a_copy_that_is_not_kept_leaves_nothing(kept: KeptFiles, source: Path) -> None:
    with kept.copied(source):
        assert len(partials(kept)) == 1

    assert partials(kept) == []
    assert not kept.has(DIGEST)


@pytest.mark.parametrize(("name", "reason"), [("gone.csv", "No such file"), (".", "Is a directory")])
def test_a_source_that_cannot_be_read_is_a_reason_and_leaves_nothing(
    kept: KeptFiles, tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(UnreadableFileError, match=reason), kept.copied(tmp_path / name):
        pass

    assert partials(kept) == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_folder_that_cannot_be_written_is_one_message_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)

    def copy() -> str:
        with kept_files(tmp_path / "closed").copied(Path(__file__)):
            return "copied"

    told = as_nobody(copy)

    assert told.startswith("HomeError: The data home")
    assert "raw cannot be written (Permission denied). Nothing was changed. Make room or permit" in told


def test_bytes_that_changed_on_disk_are_not_whole(kept: KeptFiles, source: Path) -> None:
    with kept.copied(source) as copy:
        kept.keep(copy, PANEL)
    kept.path(DIGEST).chmod(0o600)
    with kept.path(DIGEST).open("r+b") as stream:
        stream.write(b"A")

    assert (kept.has(DIGEST), kept.is_whole(DIGEST)) == (True, False)


# --- the journal


def test_a_record_is_pending_until_it_is_settled(kept: KeptFiles) -> None:
    kept.record(row(1))
    kept.settle(row(1), committed=True)
    kept.record(row(2, "uncommitted"))
    before = kept.pending()
    kept.settle(row(2, "uncommitted"), committed=False)
    kept.record(row(2))
    kept.settle(row(2), committed=True)
    kept.settle(row(2), committed=True)  # as by another process, which was quicker

    assert before == [row(2, "uncommitted")]
    assert (kept.records(), kept.pending()) == ([row(1), row(2)], [])


def test_a_record_of_the_journal_is_never_written_again(kept: KeptFiles) -> None:
    kept.record(row(1), committed=True)

    with pytest.raises(HomeError, match=r"lacks files that have landed.*file 1 already.*`turnover rebuild`"):
        kept.record(row(1, "another"))

    assert (kept.records(), kept.pending()) == ([row(1)], [])


def test_the_journal_is_in_the_order_of_landing(kept: KeptFiles) -> None:
    for number in (10, 9, 100, 1):
        kept.record(row(number), committed=True)

    assert [found["file_no"] for found in kept.records()] == [1, 9, 10, 100]


def test_records_and_panels_that_cannot_be_read_are_all_named(kept: KeptFiles) -> None:
    for number in (1, 2, 3):
        kept.record(row(number), committed=True)
    for number in (1, 3):
        (kept.folder / "journal" / f"0000000{number}.json").write_text("{")

    with pytest.raises(HomeError, match=r"00000001\.json.*00000003\.json.*from a backup"):
        kept.records()
    with pytest.raises(HomeError, match=r"kept panel .*unknown\.json cannot be read \(No such file"):
        kept.panel("unknown")


# --- durable writes


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    durable.replace_file(tmp_path / "CURRENT", "old")
    monkeypatch.setattr(durable, "sync", full)

    with pytest.raises(OSError, match="No space left"):
        durable.replace_file(tmp_path / "CURRENT", "new")

    assert [path.name for path in tmp_path.iterdir()] == ["CURRENT"]
    assert (tmp_path / "CURRENT").read_text() == "old"


def copy_and_wait(source: Path, folder: Path, begun: Event, go_on: Event) -> None:
    """Hold a copy that is not kept yet (runs in a process of its own)."""
    with KeptFiles(folder).copied(source) as copy:
        begun.set()
        go_on.wait(PATIENCE)
        KeptFiles(folder).keep(copy, PANEL)


@pytest.mark.parametrize("ending", ["kept", "killed"])
def test_a_copy_of_a_live_process_is_left_alone_and_that_of_a_dead_one_removed(
    kept: KeptFiles, source: Path, tmp_path: Path, ending: str
) -> None:
    begun, go_on = processes.Event(), processes.Event()
    other = processes.Process(target=copy_and_wait, args=(source, kept.folder, begun, go_on))
    other.start()
    assert begun.wait(PATIENCE)
    (tmp_path / "mine.csv").write_bytes(b"mine")

    with kept.copied(tmp_path / "mine.csv"):
        assert len(partials(kept)) == 2
    assert len(partials(kept)) == 1
    if ending == "killed":
        os.kill(other.pid, signal.SIGKILL)
    else:
        go_on.set()
    other.join(PATIENCE)

    with kept.copied(tmp_path / "mine.csv"):
        assert len(partials(kept)) == 1
    assert kept.is_whole(DIGEST) is (ending == "kept")


def test_a_lock_is_for_oneself_only_while_nobody_shares_it(tmp_path: Path) -> None:
    with durable.exclusive(tmp_path) as alone:
        assert alone
        with durable.exclusive(tmp_path) as other:
            assert not other
    with durable.shared(tmp_path), durable.shared(tmp_path), durable.exclusive(tmp_path) as alone:
        assert not alone
    with durable.exclusive(tmp_path / "gone") as alone:
        assert not alone
