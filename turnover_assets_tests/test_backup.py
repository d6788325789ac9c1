"""Backup and restore: whole and checked, or not at all; and a restored home works where it is."""

import io
import json
import sqlite3
import tarfile
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.errors import TurnoverError
from turnover_assets.maintenance import back_up, restore
from turnover_assets.panel import default_panel
from turnover_assets.runner import bring_up_to_date
from turnover_assets.serving.access.session import Sessions
from turnover_assets.storage import _mlflow, backup
from turnover_assets.storage.api_keys import KeyStore
from turnover_assets.storage.audit import AuditFilter, dropped_row, opened_audit, write_rows
from turnover_assets.storage.backup import restore_backup, write_backup
from turnover_assets.storage.durable import PARTIAL
from turnover_assets.storage.home import run_lock
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets_tests.factories import Landed, quiet

PANEL = default_panel()


def silent(_text: str) -> None:
    """Progress that nobody looks at."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A small home that was never run: files, a database, caches and locks."""
    home = tmp_path / "home"
    for name, content in {
        "warehouse.duckdb": b"rows",
        "warehouse.lock": b"",
        "fingerprints.json": b"{}",
        "tmp/overflow": b"x",
        "adjustments.toml": b"# none",
        "alerts.toml": b"# none",
        "raw/3f/3fa9": b"bytes",
        "published/CURRENT": b"one",
        "published/.partial-two/a.parquet": b"x",
        "warehouse.before-20300101.duckdb": b"old",
    }.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)
    (home / "raw/3f/3fa9").chmod(0o444)
    (home / "alerts").mkdir()
    with closing(sqlite3.connect(home / "alerts" / "alerts.sqlite")) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    return home


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Into the archive and back ------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["tar.zst", "tar.gz"])
def test_what_comes_back_is_what_was_saved(home: Path, tmp_path: Path, ending: str) -> None:
    done = write_backup(home, PANEL, tmp_path / f"b.{ending}", silent)

    back = restore_backup(done.path, tmp_path / "back", silent)

    found = contents(tmp_path / "back")
    assert found.keys() == {
        "warehouse.duckdb",
        "adjustments.toml",
        "alerts.toml",
        "raw/3f/3fa9",
        "published/CURRENT",
        "alerts/alerts.sqlite",
    }
    assert all(found[n] == (home / n).read_bytes() for n in found if not n.endswith("sqlite"))
    with closing(sqlite3.connect(tmp_path / "back" / "alerts" / "alerts.sqlite")) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
    assert (tmp_path / "back" / "raw/3f/3fa9").stat().st_mode & 0o777 == 0o444
    assert (done.files, back.files, back.set_aside) == (6, 6, None)
    assert done.left_out == ("warehouse.before-20300101.duckdb, which rebuild put aside",)


def test_keys_and_audit_come_back_for_their_owner_only_and_the_secret_of_sessions_does_not(
    home: Path, tmp_path: Path
) -> None:
    keys = KeyStore(home / "keys.sqlite")
    made = keys.create("analyst", ["read"], datetime.now(UTC))
    Sessions(home / "session.secret", 60)
    list(write_rows(home / "audit", [dropped_row(0, 3)]))
    done = write_backup(home, PANEL, tmp_path / "b.tar.zst", silent)

    restore_backup(done.path, tmp_path / "back", silent)

    back = tmp_path / "back"
    assert KeyStore(back / "keys.sqlite").read() == [made.kept]
    assert not (back / "session.secret").exists()
    with opened_audit(back / "audit", AuditFilter()) as con:
        assert con.execute("SELECT sum(dropped) FROM audit").fetchall() == [(3,)]
    for path in (back / "keys.sqlite", *(back / "audit").rglob("*.parquet")):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_warehouse_can_be_left_out(home: Path, tmp_path: Path) -> None:
    done = write_backup(home, PANEL, tmp_path / "b.tar.zst", silent, with_warehouse=False)
    restore_backup(done.path, tmp_path / "back", silent)

    assert "warehouse.duckdb" not in contents(tmp_path / "back")
    assert any("rebuild` makes it again" in text for text in done.left_out)


def test_a_database_that_is_being_written_is_saved_as_of_its_last_commit(home: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(home / "alerts" / "alerts.sqlite", isolation_level=None)) as other:
        other.execute("INSERT INTO t VALUES (2)")
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO t VALUES (3)")
        done = write_backup(home, PANEL, tmp_path / "b.tar.gz", silent)
    restore_backup(done.path, tmp_path / "back", silent)

    with closing(sqlite3.connect(tmp_path / "back" / "alerts" / "alerts.sqlite")) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,), (2,)]


def test_a_damaged_database_is_saved_as_it_is_and_named(home: Path, tmp_path: Path) -> None:
    (home / "alerts" / "bad.sqlite").write_bytes(backup.SQLITE + b"x" * 5000)

    done = write_backup(home, PANEL, tmp_path / "b.tar.gz", silent)
    restore_backup(done.path, tmp_path / "back", silent)

    assert done.damaged == ("alerts/bad.sqlite",)
    assert contents(tmp_path / "back")["alerts/bad.sqlite"] == backup.SQLITE + b"x" * 5000


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b.zip", "b.tar", "b.zst"])
def test_a_name_that_says_no_compression_is_refused(home: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(TurnoverError, match=r"let it end in \.tar\.zst or \.tar\.gz"):
        write_backup(home, PANEL, tmp_path / name, silent)


def test_a_backup_within_the_home_is_refused(home: Path) -> None:
    with pytest.raises(TurnoverError, match="in the home itself"):
        write_backup(home, PANEL, home / "b.tar.gz", silent)


def test_a_backup_that_cannot_be_written_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "sync", full)
    (tmp_path / "b.tar.gz").write_text("the backup before")

    with pytest.raises(TurnoverError, match="No space left on device"):
        write_backup(home, PANEL, tmp_path / "b.tar.gz", silent)

    assert (tmp_path / "b.tar.gz").read_text() == "the backup before"
    assert list(tmp_path.glob(f"{PARTIAL}*")) == []


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.mark.parametrize("ending", ["tar.zst", "tar.gz"])
@pytest.mark.parametrize("damage", [cut, flipped])
def test_a_damaged_archive_changes_nothing(
    home: Path, tmp_path: Path, ending: str, damage: Callable[[bytes], bytes]
) -> None:
    (home / "noise").write_bytes(bytes(hash((i, 7)) % 251 for i in range(20_000)))
    path = write_backup(home, PANEL, tmp_path / f"b.{ending}", silent).path
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(TurnoverError, match="is damaged"):
        restore_backup(path, tmp_path / "back", silent)

    assert not (tmp_path / "back").exists()
    assert list(tmp_path.glob(f"{PARTIAL}*")) == []


def archive_of(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], **facts: object) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        about = {"format": 1, "home": "/x", "files": {}, **facts}
        for member, content in [*members, (tarfile.TarInfo(backup.MANIFEST), json.dumps(about).encode())]:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../outside"),
        tarfile.TarInfo("a/../../outside"),
        tarfile.TarInfo("/outside"),
        link("a", "/etc"),
    ],
    ids=["parent", "within", "absolute", "link"],
)
def test_an_archive_that_reaches_outside_is_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    path = archive_of(tmp_path / "b.tar.gz", [(member, b"")])

    with pytest.raises(TurnoverError, match="is damaged"):
        restore_backup(path, tmp_path / "in" / "back", silent)

    assert not (tmp_path / "in" / "outside").exists()
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("facts", "message"),
    [({"format": 99, "release": "9.9"}, "newer release"), ({"files": {"a": {}}}, "not as they were written")],
)
def test_an_archive_that_does_not_fit_is_refused(
    tmp_path: Path, facts: dict[str, object], message: str
) -> None:
    path = archive_of(tmp_path / "b.tar.gz", [], **facts)

    with pytest.raises(TurnoverError, match=message):
        restore_backup(path, tmp_path / "back", silent)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_text("hello")

    with pytest.raises(TurnoverError, match="is no backup"):
        restore_backup(tmp_path / "b.tar.gz", tmp_path / "back", silent)


def test_an_occupied_home_is_kept_or_moved_aside(home: Path, tmp_path: Path) -> None:
    path = write_backup(home, PANEL, tmp_path / "b.tar.gz", silent).path
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "mine").write_text("mine")

    with pytest.raises(TurnoverError, match="is not empty"):
        restore_backup(path, tmp_path / "back", silent)
    done = restore_backup(path, tmp_path / "back", silent, replace=True)

    assert done.set_aside is not None
    assert contents(done.set_aside) == {"mine": b"mine"}
    assert "adjustments.toml" in contents(tmp_path / "back")


def test_a_home_that_cannot_be_put_in_place_is_as_before(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_backup(home, PANEL, tmp_path / "b.tar.gz", silent).path
    before, rename = contents(home), Path.rename

    def failing(source: Path, target: Path) -> Path:
        if source.name.startswith(PARTIAL):
            raise OSError(5, "Input/output error")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(TurnoverError, match="Input/output error"):
        restore_backup(path, home, silent, replace=True)

    assert contents(home) == before


def test_what_a_killed_backup_or_restore_left_is_removed_by_the_next(home: Path, tmp_path: Path) -> None:
    (tmp_path / f"{PARTIAL}b.tar.gz-abc").write_text("half")
    (tmp_path / f"{PARTIAL}back-abc").mkdir()

    path = write_backup(home, PANEL, tmp_path / "b.tar.gz", silent).path
    restore_backup(path, tmp_path / "back", silent)

    assert list(tmp_path.glob(f"{PARTIAL}*")) == []


# A home that was run ------------------------------------------------------------------------------


@pytest.mark.parametrize("with_warehouse", [True, False], ids=["whole", "without warehouse"])
def test_a_restored_home_works_in_another_place(
    copied: Landed, tmp_path: Path, *, with_warehouse: bool
) -> None:
    done = back_up(copied.settings, tmp_path / "b.tar.zst", quiet, with_warehouse=with_warehouse)
    settings = copied.settings.model_copy(update={"home": tmp_path / "elsewhere"})
    restore(settings, done.path, quiet)
    copied.settings.home.rename(tmp_path / "gone")  # nothing may reach into the old place

    def turnover(*words: str) -> str:
        result = CliRunner().invoke(app, list(words), env=settings.environment())
        assert result.exit_code == 0, result.output
        return result.stdout

    turnover("rebuild", *(["--check"] if with_warehouse else []))
    turnover("models", "list")
    assert "Everything is the same." in turnover("reproduce")
    outcome = bring_up_to_date(settings, copied.folder, quiet)
    assert not outcome.changed
    client = _mlflow.connect(settings.mlflow_path)
    places = {e.artifact_location for e in _mlflow.experiments(client) if e.name == settings.panel_spec.name}
    assert places == {(settings.mlflow_path / "artifacts").as_uri()}
    registry = ModelRegistry(settings.mlflow_path, settings.panel_spec.name)
    assert registry.why_unusable(settings.panel_spec) == ""


def test_a_backup_waits_for_the_run_that_is_under_way(copied: Landed, tmp_path: Path) -> None:
    told: list[str] = []

    def work() -> None:
        back_up(copied.settings, tmp_path / "b.tar.gz", lambda kind, _: told.append(kind))

    with run_lock(copied.settings, lambda: None):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(1.0)
        waited = thread.is_alive() and not (tmp_path / "b.tar.gz").exists()
    thread.join(60)

    assert waited
    assert told[0] == "wait"
    assert (tmp_path / "b.tar.gz").exists()


def test_there_is_nothing_to_back_up_without_a_home(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["backup", "--output", str(tmp_path / "b.tar.gz")], env={"TURNOVER_HOME": str(tmp_path / "none")}
    )

    assert done.exit_code == 1
    assert "There is no data home" in done.stderr.replace("\n", " ")
