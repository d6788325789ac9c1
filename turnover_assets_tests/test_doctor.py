"""The doctor: each thing that can be wrong with a home is broken once, found, and told with what to do."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat
from typer.testing import CliRunner

from turnover_assets import doctor
from turnover_assets import panel as panels
from turnover_assets.cli import app
from turnover_assets.defs import jobs
from turnover_assets.defs.runs import process_tag
from turnover_assets.doctor import Finding, Patient, examine, home, installation
from turnover_assets.settings import Settings, load_settings, unknown_variables, usable_settings
from turnover_assets.storage.snapshots import CURRENT, current
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import Landed, copy_home


def patient_of(settings: Settings, **others: object) -> Patient:
    return Patient(settings, **{"unusable": "", "deep": False, "now": datetime.now(UTC), **others})


def look(settings: Settings, check: str, **others: object) -> list[Finding]:
    """What one check finds."""
    for module in doctor.MODULES:  # each enters its checks when it is first imported
        import_module(f"{doctor.__name__}.{module}")
    only = {check: doctor.CHECKS[check]}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(doctor, "CHECKS", only)
        return list(examine(patient_of(settings, **others)))


@pytest.fixture(scope="module")
def once(plain: Landed, tmp_path_factory: pytest.TempPathFactory) -> Landed:
    """A home that is well, which tests only look at."""
    return copy_home(plain, tmp_path_factory.mktemp("well"))


@pytest.fixture
def ill(once: Landed, tmp_path: Path) -> Settings:
    """The settings of a copy of it, to be broken."""
    return copy_home(once, tmp_path).settings


def test_a_home_that_is_well_has_no_problem_and_is_not_changed(once: Landed) -> None:
    def state() -> dict[str, tuple[int, int]]:
        found = [p for p in once.settings.home.rglob("*") if p.is_file()]
        return {
            str(p): (p.stat().st_size, p.stat().st_mtime_ns)
            for p in found
            if not p.name.endswith(("-wal", "-shm", ".lock"))
        }

    before = state()

    found = list(examine(patient_of(once.settings, deep=True)))

    assert [f for f in found if f.level == "problem"] == []
    assert {"warehouse", "kept files", "published", "models", "databases"} <= {
        f.check for f in found if f.level == "ok"
    }
    assert state() == before


def test_without_a_home_nothing_but_that_is_found_and_nothing_is_made(tmp_path: Path) -> None:
    found = list(examine(patient_of(load_settings(home=tmp_path / "none"))))

    assert [f.check for f in found if f.level == "problem"] == []
    assert [f.remedy for f in found if f.check == "home"] == ["`turnover run` makes it."]
    assert list(tmp_path.iterdir()) == []


# One break at a time ------------------------------------------------------------------------------


def remove(name: str) -> Callable[[Settings], None]:
    def breaks(settings: Settings) -> None:
        path = settings.home / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return breaks


def write(name: str, content: bytes) -> Callable[[Settings], None]:
    def breaks(settings: Settings) -> None:
        path = settings.home / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    return breaks


def journal_is_ahead(settings: Settings) -> None:
    folder = settings.home / "raw" / "journal"
    row = json.loads(min(folder.glob("*.json")).read_text())
    (folder / "00009999.json").write_text(json.dumps(row | {"file_no": 9999}))


def newer_schema(settings: Settings) -> None:
    with Warehouse(settings.warehouse_path).transaction() as con:
        con.execute("UPDATE meta.schema SET version = 99")


def kept_bytes_gone(settings: Settings) -> None:
    one_of(settings.home / "raw", "??/*").unlink()


def one_of(folder: Path, pattern: str) -> Path:
    return min(path for path in folder.glob(pattern) if path.is_file())


def model_changed(settings: Settings) -> None:
    (one_of(settings.mlflow_path / "artifacts", "*/artifacts/model/model.json")).write_text("{}")


def snapshot_cut(settings: Settings) -> None:
    path = current(settings.published_path).path("forecasts")
    path.write_bytes(path.read_bytes()[:-10])


def foreign_panel(settings: Settings) -> None:
    path = one_of(settings.home / "raw" / "journal", "*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"table_name": "sales"}))


BREAKS: dict[str, tuple[str, Callable[[Settings], None], str, str]] = {
    "no warehouse": ("warehouse", remove("warehouse.duckdb"), "is not there, although", "turnover rebuild"),
    "damaged warehouse": ("warehouse", write("warehouse.duckdb", b"x" * 9000), "cannot be opened", "rebuild"),
    "newer warehouse": ("warehouse", newer_schema, "newer release", "Use that release"),
    "older warehouse": ("warehouse", journal_is_ahead, "lacks files that have landed", "rebuild"),
    "kept bytes gone": ("kept files", kept_bytes_gone, "missing or damaged", "backup"),
    "journal unreadable": ("kept files", write("raw/journal/00000001.json", b"{"), "cannot be read", ""),
    "CURRENT to nowhere": (
        "published",
        write(f"published/{CURRENT}", b"gone"),
        "cannot be read",
        "run` publishes",
    ),
    "CURRENT gone": (
        "published",
        remove(f"published/{CURRENT}"),
        "Nothing has been published",
        "run` publishes",
    ),
    "snapshot cut short": ("published", snapshot_cut, "not the", "run` publishes"),
    "model changed": ("models", model_changed, "missing or were changed", "rollback"),
    "MLflow damaged": (
        "databases",
        write("mlflow/mlflow.db", b"SQLite format 3\0junk"),
        "is damaged",
        "restore",
    ),
    "Dagster damaged": (
        "databases",
        write("dagster/history/runs.db", b"junk" * 500),
        "is damaged",
        "dagster away",
    ),
    "ledger wrong": (
        "ledger",
        write("adjustments.toml", b"[[veto]]\n"),
        "adjustments.toml",
        "adjustments check",
    ),
    "alert rules wrong": (
        "alert rules",
        write("alerts.toml", b"[[rule"),
        "alerts.toml",
        "shipped rules apply",
    ),
    "secret of a channel missing": (
        "alert channels",
        write("alerts.toml", b"[channels.webhook]\n"),
        "channels.webhook",
        "waits",
    ),
    "recipients wrong": (
        "workbook recipients",
        write("workbook_recipients.toml", b"[planet]\n1 = ['a@example.com']\n"),
        "planet: is no level",
        "no workbook is sent",
    ),
    "another panel": ("panel", foreign_panel, "holds files of sales", "TURNOVER_PANEL"),
}


def test_a_panel_that_a_run_would_refuse_is_a_problem(once: Landed, tmp_path: Path) -> None:
    shipped = Path(panels.__file__).parent / "panels" / "default.toml"
    path = tmp_path / "panel.toml"
    path.write_text(shipped.read_text().replace('starts_on = "saturday"', 'starts_on = "monday"'))
    settings = load_settings(home=once.settings.home, panel=path)

    (finding,) = look(settings, "panel")

    assert finding.level == "problem"
    assert "frequency: was weeks from saturday, is weeks from monday" in finding.found


@pytest.mark.parametrize(("check", "breaks", "found", "remedy"), BREAKS.values(), ids=BREAKS)
def test_what_is_broken_is_a_problem_with_a_remedy(
    ill: Settings, check: str, breaks: Callable[[Settings], None], found: str, remedy: str
) -> None:
    assert {f.level for f in look(ill, check)} <= {"ok"}
    breaks(ill)

    problems = [f for f in look(ill, check) if f.level == "problem"]

    assert problems, check
    assert any(found in f.found and remedy in f.remedy for f in problems), problems


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("check", "place"),
    [
        ("kept files", lambda settings: one_of(settings.home / "raw", "??/*")),
        ("published", lambda settings: current(settings.published_path).path("forecasts")),
        ("published", lambda settings: current(settings.published_path).folder / "model" / "model.json"),
    ],
    ids=["kept", "published", "published model"],
)
def test_a_changed_byte_is_found_with_deep_alone(
    ill: Settings, check: str, place: Callable[[Settings], Path]
) -> None:
    flip(place(ill))

    assert [f.level for f in look(ill, check)] == ["ok"]
    assert "problem" in [f.level for f in look(ill, check, deep=True)]


def test_a_home_that_is_a_file_or_cannot_be_made_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    (found,) = look(load_settings(home=tmp_path / "file"), "home")
    (beneath,) = look(load_settings(home=tmp_path / "file" / "var"), "home")

    assert (found.level, beneath.level) == ("problem", "problem")
    assert "is no folder" in found.found


def test_a_folder_that_cannot_be_written_is_a_problem(ill: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "published")  # as root may do all

    (found,) = look(ill, "home")

    assert found.level == "problem"
    assert "published cannot be written" in found.found


@pytest.mark.parametrize(("free", "level"), [(10**6, "problem"), (2 * 10**8 + 1, "warning"), (10**12, "ok")])
def test_room_is_judged_by_the_size_of_the_home(
    ill: Settings, monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    monkeypatch.setattr(home.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    (found,) = look(ill, "room")

    assert found.level == level


def test_what_rebuild_and_restore_put_aside_is_named(ill: Settings) -> None:
    (ill.home / "warehouse.before-20300101.duckdb").write_text("x")
    ill.home.with_name("var.before-20300101").mkdir()

    found = look(ill, "leftovers")

    assert [f.level for f in found] == ["warning", "warning"]


def test_a_landing_folder_that_cannot_be_listed_is_a_problem(ill: Settings, tmp_path: Path) -> None:
    (found,) = look(ill.model_copy(update={"landing": tmp_path / "none"}), "landing folder")

    assert found.level == "problem"


# While others work --------------------------------------------------------------------------------


def test_a_warehouse_in_use_by_a_run_is_well(ill: Settings) -> None:
    with Warehouse(ill.warehouse_path).transaction():
        (found,) = look(ill, "warehouse")

    assert (found.level, "in use by a run" in found.found) == ("ok", True)


def test_a_warehouse_in_use_by_another_program_is_a_warning(ill: Settings) -> None:
    opened = f"c = duckdb.connect({str(ill.warehouse_path)!r})"
    text = f"import duckdb, sys; {opened}; print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (found,) = look(ill, "warehouse")
        other.communicate()

    assert found.level == "warning"
    assert "locked by another program" in found.found


# Dagster's records --------------------------------------------------------------------------------


@contextmanager
def instance_of(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(settings.dagster_path)) as instance:
        yield instance


@pytest.mark.parametrize(
    ("age", "level"),
    [(timedelta(), "ok"), (timedelta(hours=1), "warning"), (timedelta(hours=-1), "problem")],
    ids=["alive", "silent", "in the future"],
)
def test_the_daemon_is_judged_by_its_last_sign(ill: Settings, age: timedelta, level: str) -> None:
    with instance_of(ill) as instance:
        at = (datetime.now(UTC) - age).timestamp()
        instance.add_daemon_heartbeat(DaemonHeartbeat(at, "SENSOR", None, None))

    (found,) = look(ill, "daemon")

    assert found.level == level, found


def test_sensors_switched_off_are_named(ill: Settings) -> None:
    from dagster._core.scheduler.instigation import InstigatorState, SensorInstigatorData

    from turnover_assets.definitions import build_definitions

    repository = build_definitions(ill).get_repository_def()
    with instance_of(ill) as instance, pytest.MonkeyPatch.context() as patched:
        patched.chdir(ill.home)
        origin = _origin(repository, "landing_sensor")
        kind, status = dg._core.definitions.run_request.InstigatorType.SENSOR, "STOPPED"
        from dagster._core.scheduler.instigation import InstigatorStatus

        instance.add_instigator_state(
            InstigatorState(origin, kind, InstigatorStatus[status], SensorInstigatorData(min_interval=30))
        )

    (found,) = look(ill, "sensors and schedules")

    assert (found.level, found.found) == ("warning", "switched off: landing_sensor")


def _origin(repository: dg.RepositoryDefinition, name: str) -> object:
    from dagster._core.remote_origin import (
        ManagedGrpcPythonEnvCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    target = LoadableTargetOrigin(executable_path=sys.executable, module_name="turnover_assets.definitions")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, location_name="turnover_assets")
    return RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, repository.name), name)


@dg.job(name=jobs.REFRESH)
def refresh_job() -> None:
    """A job of that name."""


def test_failed_and_orphaned_runs_are_named(ill: Settings) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    tag = {jobs.PROCESS_TAG: f"{socket.gethostname()}:{gone.stdout.decode().strip()}"}
    with instance_of(ill) as instance:
        started = dg.DagsterRunStatus.STARTED
        orphan = instance.create_run_for_job(refresh_job, tags=tag, status=started)
        instance.create_run_for_job(refresh_job, tags=process_tag(), status=started)  # of this process
        failed = instance.create_run_for_job(refresh_job, status=dg.DagsterRunStatus.FAILURE)

    found = look(ill, "runs")
    later = look(ill, "runs", now=datetime.now(UTC) + timedelta(days=1))

    assert [f.level for f in found] == ["warning", "warning"]
    assert found[0].found == f"failed last: refresh ({failed.run_id[:8]})"
    assert found[1].found == f"started, but their process is gone: {orphan.run_id[:8]}"
    assert len(later) == 3


# The installation ---------------------------------------------------------------------------------


def test_settings_that_cannot_be_used_are_a_problem_and_the_other_checks_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(tmp_path))
    monkeypatch.setenv("TURNOVER_SEED", "many")
    monkeypatch.setenv("TURNOVER_TIMEZONE", "Mars/Olympus")

    settings, unusable = usable_settings()
    done = CliRunner().invoke(app, ["doctor", "--format", "json"])

    assert (settings.home, settings.seed) == (
        tmp_path,
        load_settings.__globals__["Settings"].model_fields["seed"].default,
    )
    assert "TURNOVER_SEED" in unusable
    assert "TURNOVER_TIMEZONE" in unusable
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert [f["check"] for f in found if f["level"] == "problem"] == ["settings"]
    assert "clock" in doctor.CHECKS


def test_a_misspelt_setting_is_named_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOVER_KEEP_MODLES", "3")
    monkeypatch.setenv("TURNOVER_XYZZY", "3")

    assert unknown_variables() == {"TURNOVER_KEEP_MODLES": "TURNOVER_KEEP_MODELS", "TURNOVER_XYZZY": ""}
    assert [f.level for f in look(load_settings(), "settings")] == ["warning", "warning"]


def test_a_library_of_another_release_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1" if name == "duckdb" else version(name))

    (found,) = look(load_settings(), "libraries")

    assert found.level == "warning"
    assert "duckdb 0.0.1" in found.found


def test_another_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.sys, "version_info", (3, 9, 1))

    (found,) = look(load_settings(), "python")

    assert (found.level, "3.9.1" in found.found) == ("problem", True)


def test_a_schedule_that_never_comes_due_is_a_problem() -> None:
    (found,) = look(load_settings(weekly_schedule="0 6 30 2 *"), "schedules")

    assert found.level == "problem"
    assert "TURNOVER_WEEKLY_SCHEDULE (0 6 30 2 *)" in found.found


def test_a_port_that_is_taken_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr(installation, "PORT", other.getsockname()[1])
        (found,) = look(load_settings(home=tmp_path), "port of the page")

    assert found.level == "warning"


def test_a_clock_that_was_set_back_is_a_problem(once: Landed) -> None:
    (found,) = look(once.settings, "clock", now=datetime.now(UTC) - timedelta(days=400))

    assert found.level == "problem"


def test_a_check_that_fails_itself_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_patient: Patient) -> Iterator[doctor.Told]:
        raise ZeroDivisionError("oops")
        yield

    monkeypatch.setattr(doctor, "CHECKS", {"broken": broken})

    (found,) = [f for f in examine(patient_of(load_settings())) if f.check == "broken"]

    assert found.level == "problem"
    assert "oops" in found.found


def test_the_command_ends_with_1_on_problems_alone(ill: Settings) -> None:
    well = CliRunner().invoke(app, ["doctor"], env=ill.environment())
    ill.warehouse_path.unlink()
    broken = CliRunner().invoke(app, ["doctor"], env=ill.environment())

    assert (well.exit_code, broken.exit_code) == (0, 1)
    assert "`turnover rebuild`" in " ".join(broken.stdout.split())
