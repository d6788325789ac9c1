"""Remembered fingerprints: what has not changed is not read again, and no change goes unnoticed."""

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from turnover_assets.errors import UnreadableFileError
from turnover_assets.panel import default_panel
from turnover_assets.runner import bring_up_to_date
from turnover_assets.storage import fingerprints, landing, manifest
from turnover_assets.storage.landing_folder import scan
from turnover_assets.storage.reader import fingerprint
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import Landed, quiet

OLD, NEW = "day_id\n2017-06-10\n", "day_id\n2017-06-17\n"  # of one length


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "landing"
    path.mkdir()
    (path / "a.csv").write_text(OLD)
    return path


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "fingerprints.json"


@pytest.fixture
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once."""
    monkeypatch.setattr(fingerprints, "SETTLED_SECONDS", 0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []

    def reading(path: Path) -> str:
        names.append(path.name)
        return fingerprint(path)

    monkeypatch.setattr(fingerprints, "fingerprint", reading)
    return names


def digests(folder: Path, memory: Path) -> list[str]:
    return [file.digest for file in scan(folder, memory)]


@pytest.mark.usefixtures("_settled")
def test_only_a_new_file_is_read(folder: Path, memory: Path, read: list[str]) -> None:
    first = scan(folder, memory)
    (folder / "b.csv").write_text(NEW)

    second = scan(folder, memory)

    assert read == ["a.csv", "b.csv"]
    assert second[0] == first[0]
    assert second == scan(folder)


def test_without_a_memory_every_file_is_read_each_time(folder: Path, tmp_path: Path, read: list[str]) -> None:
    scan(folder)
    scan(folder)

    assert read == ["a.csv", "a.csv"]
    assert list(tmp_path.iterdir()) == [folder]


def rewrite(path: Path) -> None:
    path.write_text(NEW)


def rewrite_and_set_back_the_time(path: Path) -> None:
    before = path.stat()
    with path.open("r+") as stream:
        stream.write(NEW)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def put_another_in_its_place(path: Path) -> None:
    before, other = path.stat(), path.with_suffix(".tmp")
    other.write_text(NEW)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def link_to_another(path: Path) -> None:
    (path.parent.parent / "elsewhere").write_text(NEW)
    path.unlink()
    path.symlink_to(path.parent.parent / "elsewhere")


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize(
    "change", [rewrite, rewrite_and_set_back_the_time, put_another_in_its_place, link_to_another]
)
def test_a_change_that_keeps_the_size_is_noticed(
    folder: Path, memory: Path, change: Callable[[Path], None]
) -> None:
    scan(folder, memory)
    _let_the_clock_tick(folder)

    change(folder / "a.csv")

    assert digests(folder, memory) == [digest(NEW)]


def _let_the_clock_tick(folder: Path) -> None:
    """Wait until a write gets another time than the writes before."""
    probe = folder.parent / "probe"
    probe.touch()
    first = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == first:
        probe.touch()


def test_a_file_written_a_moment_ago_is_read_again_whatever_its_stamp(
    folder: Path, memory: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = fingerprints._stamp(folder / "a.csv")
    monkeypatch.setattr(fingerprints, "_stamp", lambda path: same)  # as on a clock of coarse ticks
    scan(folder, memory)

    (folder / "a.csv").write_text(NEW)

    assert digests(folder, memory) == [digest(NEW)]
    assert not memory.exists()


def test_the_time_of_status_change_decides_whether_a_file_is_settled(folder: Path) -> None:
    path = folder / "a.csv"

    os.utime(path, (0, 0))  # copied with its old time a moment ago
    assert fingerprints.look(path).stamp is None

    later = path.stat().st_ctime_ns + (fingerprints.SETTLED_SECONDS + 1) * 10**9
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fingerprints.time, "time_ns", lambda: later)
        os.utime(path, (4e9, 4e9))  # a time of modification in the future does no harm
        assert fingerprints.look(path).stamp is not None


@pytest.mark.usefixtures("_settled")
def test_a_file_that_changes_while_it_is_read_is_read_again(
    folder: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_write(path: Path) -> str:
        found = fingerprint(path)
        _let_the_clock_tick(folder)
        path.write_text(NEW)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(fingerprints, "fingerprint", read_and_write)
        assert digests(folder, memory) == [digest(OLD)]

    assert digests(folder, memory) == [digest(NEW)]


@pytest.mark.usefixtures("_settled")
def test_a_file_that_could_not_be_read_is_tried_again(
    folder: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> str:
        raise UnreadableFileError("cannot be read (Input/output error)")

    with monkeypatch.context() as patched:
        patched.setattr(fingerprints, "fingerprint", fail)
        assert digests(folder, memory) != [digest(OLD)]

    assert digests(folder, memory) == [digest(OLD)]


def signed(text: str) -> str:
    return f"{digest(text)}\n{text}"


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: text[:-20], id="cut short"),
        pytest.param(lambda text: text.replace(digest(OLD), digest(NEW)), id="another digest"),
        pytest.param(lambda text: "\0" * len(text), id="zeros"),
        pytest.param(lambda text: signed("[]"), id="a list"),
        pytest.param(lambda text: signed('{"a": ["0", [1]]}'), id="another layout"),
        pytest.param(lambda text: signed("{"), id="no JSON"),
    ],
)
def test_a_damaged_memory_counts_as_none_and_is_made_again(
    folder: Path, memory: Path, damage: Callable[[str], str]
) -> None:
    scan(folder, memory)
    sound = memory.read_text()
    memory.write_text(damage(sound))

    assert fingerprints.recall(memory) == {}
    assert digests(folder, memory) == [digest(OLD)]
    assert memory.read_text() == sound


@pytest.mark.usefixtures("_settled")
def test_a_memory_that_cannot_be_written_stops_nothing(folder: Path, tmp_path: Path) -> None:
    assert digests(folder, tmp_path / "missing" / "fingerprints.json") == [digest(OLD)]


@pytest.mark.usefixtures("_settled")
def test_only_files_of_the_last_folder_are_remembered(folder: Path, memory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    names = [os.fsdecode(b"caf\xe9.csv"), "b.csv"]
    for name in names:
        (other / name).write_text(NEW)
    scan(folder, memory)

    scan(other, memory)
    assert sorted(fingerprints.recall(memory)) == sorted(str(other / name) for name in names)

    (other / "b.csv").unlink()
    scan(other, memory)
    assert list(fingerprints.recall(memory)) == [str(other / names[0])]


@pytest.mark.usefixtures("_settled")
def test_a_wrong_memory_lands_nothing_wrong(folder: Path, memory: Path, tmp_path: Path) -> None:
    panel, warehouse = default_panel(), Warehouse(tmp_path / "home" / "warehouse.duckdb")
    path = folder / "a.csv"
    path.write_text("day_id,but_num_business_unit,dpt_num_department,turnover\n2017-06-10,1,88,5\n")
    scan(folder, memory)
    memory.write_text(signed(json.dumps({str(path): [digest(NEW), fingerprints._stamp(path)]})))

    (wrong,) = scan(folder, memory)
    assert landing.land(warehouse, panel, wrong, "run").status == "refused"
    memory.unlink()
    (right,) = scan(folder, memory)
    assert landing.land(warehouse, panel, right, "run").status == "accepted"

    with warehouse.transaction() as con:
        assert [record.digest for record in manifest.records(con, panel)] == [fingerprint(path)]


@pytest.mark.usefixtures("_settled")
def test_a_run_with_nothing_to_do_reads_no_file_twice(copied: Landed, read: list[str]) -> None:
    outcomes = [bring_up_to_date(copied.settings, copied.folder, quiet) for _ in range(2)]

    assert [outcome.changed for outcome in outcomes] == [False, False]
    assert sorted(read) == sorted(path.name for path in copied.folder.iterdir())
    copied.settings.fingerprints_path.unlink()
    assert not bring_up_to_date(copied.settings, copied.folder, quiet).changed
