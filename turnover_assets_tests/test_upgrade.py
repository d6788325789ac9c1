"""Upgrades: a home of release 0.1.0 goes on with this one, a killed upgrade is finished by the next use.

A home that a newer release has changed is refused before anything is touched.

The archive homes/0.1.0.tar.xz was made by the code of that release on a synthetic retailer (its commands
`sample` and `run`): the home without Dagster's records and pictures, and the files that it landed.
"""

import json
import multiprocessing
import os
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster._core.test_utils import create_run_for_test
from typer.testing import CliRunner

from turnover_assets import __version__, definitions, doctor
from turnover_assets.cli import app
from turnover_assets.defs.jobs import REFRESH
from turnover_assets.doctor import Patient
from turnover_assets.errors import HomeError, NewerHomeError
from turnover_assets.maintenance import bring_up, rebuild_warehouse
from turnover_assets.panel import default_panel
from turnover_assets.runner import bring_up_to_date
from turnover_assets.settings import Settings
from turnover_assets.storage import home_layout, migrations
from turnover_assets.storage.backup import restore_backup, write_backup
from turnover_assets.storage.home import prepare_home, shipped_file
from turnover_assets.storage.home_layout import LAYOUT, bring_layout_up, check_layout
from turnover_assets.storage.kept import KeptFiles, kept_files
from turnover_assets.storage.migrations import SCHEMA_VERSION, STEPS, migrate_warehouse, warehouse_version
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.factories import quiet, settings_for

FIRST_RELEASE = Path(__file__).parent / "homes" / "0.1.0.tar.xz"
DEAD = {"features.holdout", "forecasts.residual_quantiles"}


@pytest.fixture
def old(tmp_path: Path) -> Settings:
    """A home of release 0.1.0, with its landed files where it noted them."""
    with tarfile.open(FIRST_RELEASE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # older releases of 3.11 have none
        archive.extractall(tmp_path)
    settings = settings_for(tmp_path / "retailer" / "var")
    with duckdb.connect(str(settings.warehouse_path)) as con:
        con.execute("UPDATE raw.files SET path = ? || '/' || name", [str(tmp_path / "retailer" / "files")])
    return settings


@contextmanager
def opened(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(settings.warehouse_path)) as con:
        yield con


def tables(con: duckdb.DuckDBPyConnection) -> dict[str, list[Any]]:
    """All rows of all tables, by name."""
    named = con.execute("SELECT table_schema || '.' || table_name FROM information_schema.tables").fetchall()
    return {name: con.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall() for (name,) in named}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def in_a_killed_process(work: Callable[[], object]) -> None:
    """Do something in a process that ends itself by SIGKILL."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# The first release's home ------------------------------------------------------------------------


def test_the_warehouse_of_the_first_release_is_brought_up_and_loses_only_dead_tables(old: Settings) -> None:
    with opened(old) as con:
        before = tables(con)
        assert warehouse_version(con) == 1
        assert before.keys() >= DEAD

        migrate_warehouse(con, old.warehouse_path)

        after = tables(con)
        schemas = {name for (name,) in con.execute("SELECT schema_name FROM duckdb_schemas()").fetchall()}
    assert before.keys() - after.keys() == DEAD
    kept = before.keys() & after.keys() - {"meta.schema"}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert after["meta.schema"] == [(1,), (SCHEMA_VERSION,)]
    assert schemas >= set(migrations.SCHEMAS)


def test_an_upgrade_lets_a_run_of_the_daemon_end_first(old: Settings) -> None:
    waiting = old.model_copy(update={"lock_timeout_seconds": 0.2})
    old.dagster_path.mkdir()
    shutil.copy(shipped_file("dagster.yaml"), old.dagster_path)
    with dg.DagsterInstance.from_config(str(old.dagster_path)) as instance:
        run = create_run_for_test(instance, job_name=REFRESH, status=dg.DagsterRunStatus.STARTED)

        with pytest.raises(HomeError, match=f"run {run.run_id} has refreshed it for more than"):
            bring_up(waiting, quiet)
        layout = check_layout(old.home)
        instance.delete_run(run.run_id)

    assert layout is not None
    assert layout.layout == 1
    assert bring_up(waiting, quiet)[1].layout == LAYOUT


def test_the_home_of_the_first_release_keeps_the_bytes_of_files_that_are_still_there(old: Settings) -> None:
    files = sorted((old.home.parent / "files").iterdir())
    files[0].unlink()
    files[1].write_text("another content")

    before, after = bring_up(old, quiet)

    assert before is not None
    assert (before.layout, before.release) == (1, "")
    assert (after.layout, after.release) == (LAYOUT, __version__)
    assert {row["name"] for row in kept_files(old.home).records()} == {path.name for path in files[2:]}
    assert all(kept_files(old.home).is_whole(row["digest"]) for row in kept_files(old.home).records())


@pytest.mark.slow
def test_the_first_release_s_home_goes_on_with_this_one(old: Settings) -> None:
    folder = current(old.published_path).folder
    published = contents(folder)

    outcome = bring_up_to_date(old, old.home.parent / "files", quiet)

    assert outcome.landed == ()
    assert outcome.refreshed
    assert "Model version 1 cannot make forecasts now" in outcome.training
    assert outcome.snapshot is not None
    assert outcome.snapshot.facts["model"]["version"] > 1
    assert contents(folder) == published  # what readers may have open stays
    assert rebuild_warehouse(old, quiet, check=True).differences == ()
    assert not bring_up_to_date(old, old.home.parent / "files", quiet).changed


# A kill ------------------------------------------------------------------------------------------


def test_a_warehouse_whose_migration_is_killed_is_as_before_and_the_next_use_migrates_it(
    old: Settings,
) -> None:
    def half(con: duckdb.DuckDBPyConnection) -> None:
        STEPS[2](con)
        die()

    def work() -> None:
        with opened(old) as con:
            migrate_warehouse(con, old.warehouse_path, {2: half})

    in_a_killed_process(work)

    with opened(old) as con:
        assert warehouse_version(con) == 1
        assert tables(con).keys() >= DEAD
        migrate_warehouse(con, old.warehouse_path)
        assert warehouse_version(con) == SCHEMA_VERSION


@pytest.mark.parametrize("moment", ["in the step", "between step and note"])
def test_a_home_whose_step_is_killed_is_brought_up_by_the_next_use(
    old: Settings, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    owner, name = (KeptFiles, "keep") if moment == "in the step" else (home_layout, "_note")
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, die)
        in_a_killed_process(lambda: prepare_home(old))
    assert check_layout(old.home).layout == 1  # type: ignore[union-attr]

    prepare_home(old)

    assert check_layout(old.home).layout == LAYOUT  # type: ignore[union-attr]
    landed = sorted(path.name for path in (old.home.parent / "files").iterdir())
    assert sorted(row["name"] for row in kept_files(old.home).records()) == landed
    assert all(kept_files(old.home).is_whole(row["digest"]) for row in kept_files(old.home).records())


def test_steps_made_a_second_time_change_nothing(old: Settings) -> None:
    bring_up(old, quiet)
    with opened(old) as con:
        before = tables(con)
    kept = contents(old.home / "raw")

    (old.home / home_layout.FILE).unlink()
    with opened(old) as con:
        con.execute("DELETE FROM meta.schema WHERE version > 1")
    bring_up(old, quiet)

    with opened(old) as con:
        assert tables(con) == before
    assert contents(old.home / "raw") == kept


# Order -------------------------------------------------------------------------------------------


def test_steps_of_skipped_releases_are_made_in_their_order(old: Settings) -> None:
    made: list[int] = []
    steps: Mapping[int, Any] = {number: lambda _con, n=number: made.append(n) for number in (4, 2, 3)}

    with opened(old) as con:
        migrate_warehouse(con, old.warehouse_path, steps)
        migrate_warehouse(con, old.warehouse_path, steps)
        version = warehouse_version(con)
    assert (made, version) == ([2, 3, 4], 4)
    assert bring_layout_up(old, check_layout(old.home), steps) == [2, 3, 4]
    assert (made, check_layout(old.home, 4).layout) == ([2, 3, 4, 2, 3, 4], 4)  # type: ignore[union-attr]


def test_a_step_that_fails_leaves_the_warehouse_as_it_was_and_the_home_with_the_steps_before(
    old: Settings,
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no room")

    with opened(old) as con:
        before = tables(con)
        with pytest.raises(RuntimeError, match="no room"):
            migrate_warehouse(con, old.warehouse_path, {2: STEPS[2], 3: fail})
        assert tables(con) == before
    with pytest.raises(RuntimeError, match="no room"):
        bring_layout_up(old, check_layout(old.home), {2: lambda _: None, 3: fail})
    assert check_layout(old.home).layout == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("steps", [STEPS, home_layout.STEPS], ids=["warehouse", "home"])
def test_steps_are_numbered_without_a_gap(steps: Mapping[int, Any]) -> None:
    assert list(steps) == list(range(2, 2 + len(steps)))


# A newer release's home --------------------------------------------------------------------------


def as_left_by_a_newer_release(settings: Settings) -> None:
    (settings.home / home_layout.FILE).write_text(json.dumps({"layout": LAYOUT + 1, "release": "9.9.9"}))


def test_a_home_of_a_newer_release_is_refused_by_every_way_in_and_not_touched(
    old: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_left_by_a_newer_release(old)
    before = contents(old.home)
    told = (
        rf"newer release \(9\.9\.9, schema {LAYOUT + 1}; this is release {__version__}, which knows {LAYOUT}"
        r"\)\. Nothing was changed\. Use that release or a newer one, put back a backup"
    )

    with pytest.raises(NewerHomeError, match=told):
        bring_up_to_date(old, old.home.parent / "files", quiet)
    with pytest.raises(NewerHomeError, match=told):
        bring_up(old, quiet)
    monkeypatch.setenv("TURNOVER_HOME", str(old.home))
    with pytest.raises(NewerHomeError, match=told):
        definitions.defs()
    shown = CliRunner().invoke(app, ["upgrade"])
    assert (shown.exit_code, "newer release (9.9.9" in shown.output) == (1, True)

    assert contents(old.home) == before


def test_a_backup_of_a_newer_release_s_home_is_not_restored(old: Settings, tmp_path: Path) -> None:
    as_left_by_a_newer_release(old)
    archive = write_backup(old.home, default_panel(), tmp_path / "b.tar.gz", lambda _: None)

    with pytest.raises(NewerHomeError, match=r"newer release \(9\.9\.9"):
        restore_backup(archive.path, tmp_path / "back", lambda _: None)

    assert not (tmp_path / "back").exists()


def test_an_older_release_refuses_the_warehouse_that_this_one_has_brought_up(old: Settings) -> None:
    bring_up(old, quiet)

    with opened(old) as con:
        before = tables(con)
        with pytest.raises(NewerHomeError, match=rf"schema {SCHEMA_VERSION}; .* which knows 1\)"):
            migrate_warehouse(con, old.warehouse_path, {1: die})
        assert tables(con) == before


# home.json ---------------------------------------------------------------------------------------


def test_a_new_home_has_this_release_s_layout_and_no_step_is_made(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "new")

    before, after = bring_up(settings, quiet)

    assert before is None
    assert json.loads((settings.home / home_layout.FILE).read_text()) == {
        "layout": after.layout,
        "release": __version__,
    }
    assert (after.layout, after.release) == (LAYOUT, __version__)


def test_the_release_that_used_the_home_last_is_noted(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "new")
    prepare_home(settings)
    (settings.home / home_layout.FILE).write_text(json.dumps({"layout": LAYOUT, "release": "0.0.9"}))

    prepare_home(settings)

    assert check_layout(settings.home).release == __version__  # type: ignore[union-attr]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"layout": 2}', '{"layout": "x", "release": "1"}'])
def test_a_damaged_home_json_is_refused_with_what_to_do(tmp_path: Path, content: str) -> None:
    settings = settings_for(tmp_path / "new")
    prepare_home(settings)
    (settings.home / home_layout.FILE).write_text(content)

    with pytest.raises(HomeError, match=r"home\.json cannot be read .* Put it back from a backup, or delete"):
        prepare_home(settings)

    (settings.home / home_layout.FILE).unlink()
    prepare_home(settings)
    assert check_layout(settings.home).layout == LAYOUT  # type: ignore[union-attr]


def test_the_command_says_what_it_did(old: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(home: Path) -> str:
        monkeypatch.setenv("TURNOVER_HOME", str(home))
        result = CliRunner().invoke(app, ["upgrade"])
        assert result.exit_code == 0
        return result.output

    assert f"was brought from layout 1 to layout {LAYOUT} of release {__version__}." in told(old.home)
    assert f"has layout {LAYOUT} of release {__version__} already." in told(old.home)
    assert f"is new, with layout {LAYOUT}" in told(tmp_path / "new")


def test_the_doctor_shows_the_layout(old: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def finding() -> tuple[str, str]:
        monkeypatch.setenv("TURNOVER_HOME", str(old.home))
        (found,) = (one for one in doctor.examine(Patient.here(deep=False)) if one.check == "layout")
        return found.level, found.found + found.remedy

    assert finding()[0] == "warning"
    assert "layout 1, used last by release 0.1.0" in finding()[1]
    assert "turnover upgrade" in finding()[1]
    bring_up(old, quiet)
    assert finding() == ("ok", f"layout {LAYOUT}, used last by release {__version__}; this is {__version__}")
    as_left_by_a_newer_release(old)
    assert finding()[0] == "problem"
