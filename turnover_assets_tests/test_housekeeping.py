"""Housekeeping: what goes, what stays and why, and that everything works afterwards as it did before."""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core.forecast_history import HISTORY
from turnover_assets.core.housekeeping import (
    ENDED,
    Policy,
    RunFacts,
    SearchFacts,
    Sweep,
    runs_kept,
    searches_kept,
    versions_kept,
)
from turnover_assets.core.retraining import last_verdict
from turnover_assets.defs import common, housekeeping, jobs, sensors, training_sensors
from turnover_assets.runner import bring_up_to_date
from turnover_assets.settings import load_settings
from turnover_assets.storage import _mlflow
from turnover_assets.storage.durable import PARTIAL, shared
from turnover_assets.storage.housekeeping import compact, sweep_leftovers, sweep_pages
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.search_log import search_log
from turnover_assets.storage.snapshots import FACTS, current
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import Landed, copy_home, draw_nothing, made_once, next_week, quiet
from turnover_assets_tests.model_factories import make_model, make_registry, make_training_record

NOW = datetime(2031, 6, 1, 12, tzinfo=UTC)
A_YEAR = timedelta(days=365)
POLICY = Policy(run_days=90, attempts=3, models=2, shadow_cutoffs=1, pages=2, snapshots=2)
STATUSES = [*sorted(ENDED), "STARTED", "QUEUED"]


def registry_of(home: Landed) -> ModelRegistry:
    return ModelRegistry(home.settings.mlflow_path, home.settings.panel_spec.name)


def warehouse_of(home: Landed) -> Warehouse:
    return Warehouse(home.settings.warehouse_path)


@contextmanager
def instance_of(home: Landed) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home.settings.dagster_path)) as instance:
        yield instance


def sweep(
    home: Landed, *, now: datetime | None = None, remove: bool = True, **settings: object
) -> dict[str, Sweep]:
    """Housekeeping a year from now, so that whatever is not needed is old, by part."""
    chosen = home.settings.model_copy(update=settings)
    with instance_of(home) as instance:
        at = now or datetime.now(UTC) + A_YEAR
        return {s.part: s for s in housekeeping.sweep_all(chosen, instance, at, remove=remove)}


def files_of(home: Path) -> set[str]:
    """Every file of a home but those that belong to an open database or lock."""
    passing = ("-wal", "-shm", ".lock")
    return {
        p.relative_to(home).as_posix()
        for p in home.rglob("*")
        if p.is_file() and not p.name.endswith(passing)
    }


def turnover(home: Landed, *words: str) -> str:
    """What a command says on standard output; it has to succeed."""
    environment = dict(home.settings.environment().items())
    done = CliRunner().invoke(app, list(words), env=environment)
    assert done.exit_code == 0, done.output
    return done.stdout


# The policy --------------------------------------------------------------------------------------

run_facts = st.builds(
    RunFacts,
    run_id=st.uuids().map(str),
    job=st.sampled_from(["ingest", "refresh"]),
    status=st.sampled_from(STATUSES),
    at=st.integers(0, 400).map(lambda days: NOW - timedelta(days=days)),
)


@given(runs=st.lists(run_facts, max_size=30, unique_by=lambda run: run.run_id), data=st.data())
def test_a_run_goes_only_where_nothing_holds_it(runs: list[RunFacts], data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.sampled_from([r.run_id for r in runs]))) if runs else set()

    kept = runs_kept(runs, dict.fromkeys(needed, "needed"), POLICY, NOW)

    gone = [run for run in runs if run.run_id not in kept]
    for run in gone:
        later = [r for r in runs if r.job == run.job and (r.at, r.run_id) > (run.at, run.run_id)]
        assert run.status in ENDED
        assert run.run_id not in needed
        assert run.at < NOW - timedelta(days=POLICY.run_days)
        assert len(later) >= POLICY.attempts
        assert any(r.status == run.status for r in later)
    again = runs_kept([run for run in runs if run.run_id in kept], dict.fromkeys(needed, "x"), POLICY, NOW)
    assert again.keys() == kept.keys()


@given(
    versions=st.sets(st.integers(1, 40), min_size=1),
    line=st.lists(st.integers(1, 40), max_size=8),
    published=st.sets(st.integers(1, 40)),
    newest=st.integers(1, 5),
)
def test_a_version_goes_only_where_nothing_names_it(
    versions: set[int], line: list[int], published: set[int], newest: int
) -> None:
    line = [number for number in line if number in versions]
    aliases = {"champion": line[-1]} if line else {}

    kept = versions_kept(sorted(versions), aliases, line, published, newest)

    assert kept.keys() <= versions
    assert max(versions) in kept
    assert {*sorted(versions)[-newest:], *aliases.values(), *(published & versions)} <= kept.keys()
    assert {*line[-newest - 1 :]} <= kept.keys()


def test_reasons_for_versions_are_those_that_matter_most() -> None:
    kept = versions_kept(range(1, 9), {"champion": 5, "challenger": 8}, [1, 2, 3, 5], {4}, 2)

    assert kept == {
        2: "to go back to",
        3: "to go back to",
        4: "named by published forecasts",
        5: "champion",
        7: "newest",
        8: "challenger",
    }


def test_the_newest_accepted_search_of_a_candidate_stays_however_old() -> None:
    def search(
        run_id: str, days: int, *, accepted: bool, candidate: str = "a", ended: bool = True
    ) -> SearchFacts:
        return SearchFacts(run_id, candidate, accepted, ended, NOW - timedelta(days=days))

    kept = searches_kept(
        [
            search("in use", 200, accepted=True),
            search("before it", 300, accepted=True),
            search("refused", 100, accepted=False),
            search("of another", 400, accepted=True, candidate="b"),
            search("young", 10, accepted=False),
            search("going on", 0, accepted=False, ended=False),
        ],
        POLICY,
        NOW,
    )

    assert kept == {
        "in use": "in use",
        "of another": "in use",
        "young": "younger than 90 days",
        "going on": "under way",
    }


# Files -------------------------------------------------------------------------------------------


def test_pages_beyond_the_newest_go(tmp_path: Path) -> None:
    for day in range(1, 6):
        (tmp_path / f"2030-01-0{day}.html").write_text("x" * 10)
    (tmp_path / "index.html").write_text("the list of pages")

    found = sweep_pages(tmp_path, 2, remove=True)

    assert found.removed == ("2030-01-01.html", "2030-01-02.html", "2030-01-03.html")
    assert (found.freed, found.kept) == (30, {"newest": 2})
    left = ["2030-01-04.html", "2030-01-05.html", "index.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


@pytest.mark.parametrize("is_written", [False, True], ids=["dead", "live"])
def test_leftovers_go_unless_somebody_writes_there(tmp_path: Path, is_written: bool) -> None:
    (tmp_path / f"{PARTIAL}snapshot").mkdir()
    (tmp_path / f"{PARTIAL}snapshot" / "a").write_text("12345")

    if is_written:
        with shared(tmp_path):
            found = sweep_leftovers([tmp_path], [], remove=True)
    else:
        found = sweep_leftovers([tmp_path], [], remove=True)

    assert (found.freed, len(found.removed)) == ((0, 0) if is_written else (5, 1))
    assert (tmp_path / f"{PARTIAL}snapshot").exists() == is_written


def test_a_leftover_in_a_folder_without_a_lock_goes_after_a_day(tmp_path: Path) -> None:
    for name, age in (("old", 2 * 86_400), ("young", 0)):
        path = tmp_path / f"{PARTIAL}{name}"
        path.write_text("x")
        os.utime(path, (time.time() - age,) * 2)

    found = sweep_leftovers([], [tmp_path, tmp_path / "none"], remove=True)

    assert found.removed == (f"{tmp_path.name}/{PARTIAL}old",)
    assert [path.name for path in tmp_path.iterdir()] == [f"{PARTIAL}young"]


def half_empty(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (x BLOB)")
        connection.executemany("INSERT INTO t VALUES (zeroblob(100000))", [()] * 40)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM t WHERE rowid > 4")
    return path


def test_room_inside_a_database_is_given_back(tmp_path: Path) -> None:
    path = half_empty(tmp_path / "a.db")
    before = path.stat().st_size

    planned, found, again = (compact([path], remove=remove) for remove in (False, True, True))

    assert planned.removed == found.removed == ("a.db",)
    assert found.freed == before - path.stat().st_size > 3_000_000
    assert again.removed == ()


def test_a_database_that_is_being_written_is_left_for_the_next_time(tmp_path: Path) -> None:
    path = half_empty(tmp_path / "a.db")

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = compact([path], remove=True)

    assert found.removed == ()
    assert "locked" in found.note


# Models ------------------------------------------------------------------------------------------


def models_of(tmp_path: Path) -> tuple[ModelRegistry, Mapping[int, str]]:
    """Six versions: champions 1, 2, 3 in turn; and the run of each."""
    registry = make_registry(tmp_path / "mlflow", versions=6)
    for version in (1, 2, 3):
        registry.promote(version, reason="test")
    client = _mlflow.connect(registry.folder)
    return registry, {int(v.version): str(v.run_id) for v in _mlflow.model_versions(client, registry.name)}


def sweep_models(
    registry: ModelRegistry, published: Sequence[int] = (), *, remove: bool = True, **policy: int
):
    from turnover_assets.storage.model_housekeeping import ModelStore
    from turnover_assets.storage.model_housekeeping import sweep_models as work

    chosen = Policy(**{**POLICY.__dict__, "models": 1, **policy})
    at = datetime.now(UTC) + A_YEAR
    store = ModelStore(registry.folder, registry.name, registry.database)
    return {s.part: s for s in work(store, published, chosen, at, remove=remove)}


def test_versions_that_nothing_needs_go_with_run_and_files(tmp_path: Path) -> None:
    registry, runs = models_of(tmp_path)
    log_before = registry._champions().log()
    artifacts = registry.folder / "artifacts"

    planned = sweep_models(registry, [4], remove=False)["model versions"]
    there = {path.name for path in artifacts.iterdir()}
    found = sweep_models(registry, [4])["model versions"]

    assert planned == found
    assert there == {*runs.values()}
    assert found.removed == ("1", "5")  # 3 champion, 2 to go back to, 4 published, 6 newest
    assert found.freed > 0
    assert [v.version for v in registry.versions()] == [2, 3, 4, 6]
    assert {path.name for path in artifacts.iterdir()} == {runs[v] for v in (2, 3, 4, 6)}
    assert registry._champions().log() == log_before
    assert registry.rollback(by="test", reason="test") == 2
    assert registry.register(make_model(), make_training_record()) == 7
    with closing(sqlite3.connect(registry.folder / "mlflow.db")) as connection:
        left = {
            row[0]
            for row in connection.execute("SELECT run_uuid FROM metrics UNION SELECT run_uuid FROM tags")
        }
    assert not left & {runs[1], runs[5]}


@pytest.mark.parametrize("step", ["_mark", "delete_model_version", "rmtree", "_hard_delete_run"])
def test_models_half_removed_by_a_kill_are_removed_by_the_next_housekeeping(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from turnover_assets.storage import model_housekeeping as work

    registry, runs = models_of(tmp_path)

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    store = work.ModelStore(registry.folder, registry.name)
    owner = {
        "_mark": work.ModelStore,
        "delete_model_version": type(store.client),
        "rmtree": shutil,
        "_hard_delete_run": type(store.client._tracking_client.store),
    }[step]
    with monkeypatch.context() as patched:
        patched.setattr(owner, step, killed)
        with pytest.raises(Killed):
            sweep_models(registry, [4])
    sweep_models(registry, [4])
    again = sweep_models(registry, [4])

    assert [v.version for v in registry.versions()] == [2, 3, 4, 6]
    assert {path.name for path in (registry.folder / "artifacts").iterdir()} == {
        runs[v] for v in (2, 3, 4, 6)
    }
    assert [part for part, found in again.items() if found.removed] == []
    with closing(sqlite3.connect(registry.folder / "mlflow.db")) as connection:
        assert {row[0] for row in connection.execute("SELECT run_uuid FROM runs")} == {
            runs[v] for v in (2, 3, 4, 6)
        }


def test_searches_go_with_their_trials_and_the_one_in_use_stays(tmp_path: Path) -> None:
    registry = make_registry(tmp_path / "mlflow")
    for accepted in ("true", "false"):
        with search_log(registry.folder, registry.name, "xgboost", {}) as log:
            for number in (1, 2):
                log.trial(f"trial {number}", {"depth": number}, {"wape": 0.1}, {})
            log.outcome(
                {}, {"candidate": "xgboost"}, {"accepted": accepted}, pd.DataFrame({"a": [1]}), b"png"
            )

    found = sweep_models(registry)["searches for parameters"]

    assert (len(found.removed), found.note, found.kept) == (1, "2 trials", {"in use": 1})
    with closing(sqlite3.connect(registry.folder / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (3,)


# A whole home ------------------------------------------------------------------------------------
#
# What needs one that was used for some weeks is slow, since making it is.


@pytest.fixture(scope="module")
def used_once(plain: Landed, shared_folder: Path) -> Landed:
    """A home after two more weeks, a training and a promotion by hand; tests change copies of it."""

    def make(folder: Path) -> Landed:
        home = copy_home(plain, folder)
        with pytest.MonkeyPatch.context() as patched:
            draw_nothing(patched)
            for ahead in (1, 2):
                (home.folder / f"more{ahead}.csv").write_text(next_week(home, ahead=ahead))
                bring_up_to_date(home.settings, home.folder, quiet, retrain=ahead == 2)
            registry = registry_of(home)
            registry.promote(registry.versions()[-1].version, by="test", reason="test")
            bring_up_to_date(home.settings, home.folder, quiet)
        return home

    return made_once(shared_folder / "used", make)


@pytest.fixture
def used(used_once: Landed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Landed:
    """The same, in a home and a folder of one's own."""
    draw_nothing(monkeypatch)
    return copy_home(used_once, tmp_path)


LISTED = ("published snapshots", "shadow forecasts", "model versions", "runs")
KEEP_LITTLE = {
    "keep_snapshots": 2,
    "keep_models": 1,
    "keep_shadow_cutoffs": 1,
    "keep_run_days": 1,
    "sensor_attempts": 1,
}


def looks(home: Landed) -> list[object]:
    """What the sensors say, and the policy of retraining."""
    with instance_of(home) as instance:
        present = training_sensors.Present.of(home.settings)
        told = [
            look(instance, home.settings.sensor_attempts, present)
            for look in (training_sensors.look_for_changes, training_sensors.look_for_retraining)
        ]
        landed = instance.get_materialized_partitions(common.LANDED)
        newest = {
            key.to_user_string(): instance.get_latest_materialization_event(key)
            for key in instance.all_asset_keys()
        }
    with warehouse_of(home).transaction() as con:
        verdict = last_verdict(con)
    return [[getattr(t, "skip_message", t) for t in told], landed, newest, verdict]


@pytest.mark.slow
def test_after_housekeeping_everything_works_as_before(used: Landed) -> None:
    before, champion = looks(used), registry_of(used).find_champion()
    with warehouse_of(used).transaction() as con:
        shown = con.execute(f"SELECT * FROM {HISTORY} WHERE role = 'champion' ORDER BY ALL").fetchall()

    planned = sweep(used, remove=False, **KEEP_LITTLE)
    there = files_of(used.settings.home)
    found = sweep(used, **KEEP_LITTLE)

    assert {p: planned[p].removed for p in LISTED} == {p: found[p].removed for p in LISTED}
    for part in ("published snapshots", "shadow forecasts", "runs", "logs of runs whose record is needed"):
        assert found[part].removed, part
    assert len(files_of(used.settings.home)) < len(there)
    assert looks(used) == before
    assert registry_of(used).find_champion() == champion
    with warehouse_of(used).transaction() as con:
        assert (
            con.execute(f"SELECT * FROM {HISTORY} WHERE role = 'champion' ORDER BY ALL").fetchall() == shown
        )
    assert "Everything is the same." in turnover(used, "reproduce")
    turnover(used, "rebuild", "--check")
    turnover(used, "compare")
    snapshot = current(used.settings.published_path)
    for table in snapshot.facts["tables"]:
        assert turnover(used, "export", table)
    assert not bring_up_to_date(used.settings, used.folder, quiet).changed
    again = sweep(used, **KEEP_LITTLE)
    assert [part for part, swept in again.items() if swept.removed] == []
    turnover(used, "models", "rollback", "--reason", "test")
    assert bring_up_to_date(used.settings, used.folder, quiet).refreshed


@pytest.mark.slow
def test_the_landing_sensor_asks_for_nothing_again(used: Landed) -> None:
    settings = used.settings.model_copy(update={"landing": used.folder})

    def look() -> object:
        with instance_of(used) as instance:
            cursor = None
            for _ in range(3):  # a file is landed once it held still for two looks
                found = sensors.look_for_files(instance, cursor, settings)
                cursor = found.cursor
            return found.run_requests, str(found.skip_reason)

    before = look()
    sweep(used, **KEEP_LITTLE)

    assert look() == before
    assert before[0] == []


@pytest.mark.slow
def test_a_snapshot_that_is_read_and_what_it_names_stay(used: Landed) -> None:
    names = sorted(path.parent.name for path in used.settings.published_path.glob(f"[!.]*/{FACTS}"))
    facts = json.loads((used.settings.published_path / names[0] / FACTS).read_text())

    with shared(used.settings.published_path / names[0] / FACTS):
        found = sweep(used, **KEEP_LITTLE)

    assert names[0] not in found["published snapshots"].removed
    with instance_of(used) as instance:
        assert instance.has_run(facts["dagster_run_id"])
    assert facts["model"]["version"] in {v.version for v in registry_of(used).versions()}


def test_old_warehouses_are_named_and_never_removed(copied: Landed) -> None:
    path = copied.settings.home / "warehouse.before-20300101T000000000000.duckdb"
    path.write_bytes(b"x" * 1000)

    found = sweep(copied)["old warehouses"]

    assert path.exists()
    assert path.name in found.note


def test_young_runs_stay_whole(copied: Landed) -> None:
    before = files_of(copied.settings.home)

    found = sweep(copied, now=datetime.now(UTC))

    assert files_of(copied.settings.home) == before
    assert [part for part, swept in found.items() if swept.removed] == []


@pytest.mark.slow
def test_logs_of_runs_deleted_in_the_page_go(used: Landed) -> None:
    with instance_of(used) as instance:
        run_id = instance.get_runs(dg.RunsFilter(job_name=jobs.REFRESH))[-1].run_id
        instance.delete_run(run_id)
    young = sweep(used)["logs without a run"]
    for path in used.settings.dagster_path.rglob(f"{run_id}*"):
        os.utime(path, (0, 0))

    found = sweep(used)["logs without a run"]

    assert young.removed == ()

    assert {name[:36] for name in found.removed} == {run_id}
    assert not list(used.settings.dagster_path.rglob(f"{run_id}*"))


@pytest.mark.slow
def test_a_deletion_that_a_kill_cut_short_is_finished(used: Landed, monkeypatch: pytest.MonkeyPatch) -> None:
    from turnover_assets.defs import run_housekeeping as work

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(work, "_empty", killed)
        with pytest.raises(Killed):
            sweep(used, **KEEP_LITTLE)
    found = sweep(used, **KEEP_LITTLE)

    assert found["runs"].removed
    assert [part for part, swept in sweep(used, **KEEP_LITTLE).items() if swept.removed] == []
    with instance_of(used) as instance:
        shards = {path.stem for path in (used.settings.dagster_path / "history" / "runs").glob("*-*.db")}
        assert shards <= {run.run_id for run in instance.get_runs()}


# Attempts ----------------------------------------------------------------------------------------


def test_an_attempts_number_is_not_given_twice_once_older_runs_are_gone() -> None:
    tags = {jobs.CAUSE_TAG: "a", jobs.MADE_WITH_TAG: "b"}
    with dg.DagsterInstance.ephemeral() as instance:
        for number in (1, 2, 3):
            instance.create_run_for_job(_job(), tags={**tags, jobs.ATTEMPT_TAG: str(number)})
        oldest = instance.get_runs()[-1]
        instance.delete_run(oldest.run_id)

        asked = training_sensors._request(instance, _job().name, tags, {}, 5)

    assert asked.tags[jobs.ATTEMPT_TAG] == "4"
    assert asked.run_key.endswith("#4")


def _job() -> dg.JobDefinition:
    @dg.job(name=jobs.REFRESH)
    def job() -> None: ...

    return job


# The job, the schedule and the command -----------------------------------------------------------


def test_the_schedule_is_on_and_goes_by_the_settings() -> None:
    settings = load_settings(timezone="Europe/Paris", housekeeping_schedule="15 3 * * *")

    (schedule,) = housekeeping.build_schedules(settings)

    assert (schedule.cron_schedule, schedule.execution_timezone) == ("15 3 * * *", "Europe/Paris")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_the_schedule_waits_while_a_run_is_under_way() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert isinstance(housekeeping.look(instance), dg.RunRequest)
        run = instance.create_run_for_job(_job())

        found = housekeeping.look(instance)

    assert isinstance(found, dg.SkipReason)
    assert f"refresh run {run.run_id} is under way" in found.skip_message


def test_the_command_lists_removes_and_keeps_the_account(copied: Landed) -> None:
    leftover = copied.settings.published_path / f"{PARTIAL}x"
    leftover.mkdir()

    planned = json.loads(turnover(copied, "housekeep", "--dry-run", "--format", "json"))
    there = leftover.exists()
    done = turnover(copied, "housekeep")

    assert there
    assert not leftover.exists()
    assert [part["which"] for part in planned if part["removed"]] == [f"published/{PARTIAL}x"]
    assert f"published/{PARTIAL}x" in done.replace("\n", "")
    with instance_of(copied) as instance:
        kept = common.latest_metadata(instance, common.HOUSEKEEPING)
    assert kept["removed"] == 1
    assert [part["part"] for part in kept["parts"]] == [part["part"] for part in planned]
