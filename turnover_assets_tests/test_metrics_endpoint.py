"""`turnover metrics`: what it reads of a home, and what it does where something cannot be read."""

import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.types import DaemonHeartbeat
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from turnover_assets import __version__
from turnover_assets.cli import app
from turnover_assets.core.operator_metrics import METRICS, Reading
from turnover_assets.defs import jobs
from turnover_assets.errors import TurnoverError
from turnover_assets.observability.collector import PARTS, HomeCollector, Part
from turnover_assets.observability.dagster_records import automation_readings, run_readings
from turnover_assets.observability.endpoint import server, text_of
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.snapshots import CURRENT, current, publish
from turnover_assets_tests.factories import Landed
from turnover_assets_tests.waiting import PATIENCE, wait_until

Status = dg.DagsterRunStatus
REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("turnover_assets"), "__repository__")
ORIGIN = RemoteJobOrigin(REPOSITORY, jobs.REFRESH)
Samples = Mapping[tuple[str, ...], float]
ODD = 'A "quoted"\\\nname, {with} braces = Ünïcode'


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Samples of Prometheus text by name and label values, in the order of the catalogue's labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = METRICS[sample.name].labels
            assert set(sample.labels) == set(labels), sample
            found[sample.name, *(sample.labels[label] for label in labels)] = sample.value
    return found


def read(settings: Settings, **others: Any) -> dict[tuple[str, ...], float]:
    return samples(text_of(HomeCollector(settings, **others)))


def errors_of(found: Samples) -> dict[str, float]:
    return {
        key[1]: value for key, value in found.items() if key[0] == "turnover_scrape_errors_total" and value
    }


@pytest.fixture(scope="module")
def scraped(landed: Landed) -> Samples:
    return read(landed.settings)


def publish_measures(home: Path, *rows: str) -> Settings:
    """A home with nothing but a snapshot, which has a table of measures."""
    settings = load_settings(home=home)
    settings.published_path.mkdir(parents=True)
    listed = ", ".join(rows)
    query = f"SELECT * FROM (VALUES {listed}) AS m(measure, level, member, cutoff, value)"
    with closing(duckdb.connect()) as con:
        facts = {"cutoff": "2030-01-05", "series": 1, "model": {"version": 1}}
        publish(con, settings.published_path, {"measures": query}, facts)
    return settings


# A real home -------------------------------------------------------------------------------------


def test_a_home_is_read_without_an_error(scraped: Samples, landed: Landed) -> None:
    assert errors_of(scraped) == {}
    assert scraped["turnover_build_info", __version__, landed.settings.panel_spec.name] == 1
    assert scraped["turnover_scrape_errors_total", "runs"] == 0


def test_runs_are_those_on_record(scraped: Samples, landed: Landed) -> None:
    with dg.DagsterInstance.from_config(str(landed.settings.dagster_path)) as instance:
        records = {record.dagster_run.job_name: record for record in instance.get_run_records()}

    assert scraped["turnover_runs", "retrain", "success"] == 1
    for job, record in records.items():
        assert record.start_time is not None
        assert record.end_time is not None
        took = record.end_time - record.start_time
        assert scraped["turnover_run_duration_seconds", job] == pytest.approx(took)
        assert scraped["turnover_last_success_timestamp_seconds", job] == pytest.approx(record.end_time)
        assert scraped["turnover_failed_runs_since_success", job] == 0
    assert scraped["turnover_queued_runs",] == scraped["turnover_running_runs",] == 0
    assert ("turnover_oldest_queued_run_timestamp_seconds",) not in scraped


def test_assets_have_the_duration_of_the_step_that_made_them(scraped: Samples, landed: Landed) -> None:
    with dg.DagsterInstance.from_config(str(landed.settings.dagster_path)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["forecasts", "latest"]))
        assert event is not None
        (step,) = instance.get_run_step_stats(event.run_id, ["forecast"])
        everything = {key.to_user_string() for key in instance.all_asset_keys()}
    assert step.start_time is not None
    assert step.end_time is not None

    took = step.end_time - step.start_time
    assert scraped["turnover_asset_duration_seconds", "forecasts/latest"] == pytest.approx(took)
    assert scraped["turnover_asset_duration_seconds", "forecasts/aggregates"] == pytest.approx(took)
    timed = {key[1] for key in scraped if key[0] == "turnover_asset_duration_seconds"}
    assert timed == everything


def test_published_tables_are_counted(scraped: Samples, landed: Landed) -> None:
    snapshot = current(landed.settings.published_path)

    rows = {key[1]: value for key, value in scraped.items() if key[0] == "turnover_published_rows"}

    assert rows == {name: noted["rows"] for name, noted in snapshot.facts["tables"].items()}
    published = datetime.fromisoformat(snapshot.facts["created_at"]).timestamp()
    assert scraped["turnover_snapshot_timestamp_seconds",] == pytest.approx(published)
    assert scraped["turnover_model_version",] == snapshot.facts["model"]["version"]
    landed_at = scraped["turnover_data_landed_timestamp_seconds",]
    assert 0 < published - landed_at < 600
    assert scraped["turnover_data_late_after_seconds",] == 9 * 86_400


def test_sizes_are_those_on_disk(scraped: Samples, landed: Landed) -> None:
    size = landed.settings.warehouse_path.stat().st_size

    assert scraped["turnover_home_bytes", "warehouse"] == pytest.approx(size, rel=0.1)
    assert scraped["turnover_home_bytes", "raw"] > 0
    free, capacity = scraped["turnover_home_free_bytes",], scraped["turnover_home_capacity_bytes",]
    assert 0 < free < capacity


def test_it_answers_while_another_process_holds_the_warehouse(landed: Landed) -> None:
    hold = "import sys, duckdb; con = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(landed.settings.warehouse_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        found = read(landed.settings)
        holder.communicate("\n")

    assert errors_of(found) == {}
    assert ("turnover_snapshot_timestamp_seconds",) in found


# Homes where something is not as it should be ----------------------------------------------------


def test_a_home_that_is_not_there_is_no_error_and_is_not_made(tmp_path: Path) -> None:
    home = tmp_path / "nowhere"

    found = read(load_settings(home=home))

    assert errors_of(found) == {}
    assert found["turnover_home_free_bytes",] > 0
    assert not home.exists()


def damage_facts(settings: Settings) -> None:
    (current(settings.published_path).folder / "snapshot.json").write_text("{")


def damage_pointer(settings: Settings) -> None:
    (settings.published_path / CURRENT).write_text("gone\n")


def damage_runs(settings: Settings) -> None:
    (settings.dagster_path / "history" / "runs.db").write_bytes(b"no database" * 1000)


def damage_alerts(settings: Settings) -> None:
    (settings.home / "alerts").mkdir(exist_ok=True)
    (settings.home / "alerts" / "alerts.sqlite").write_bytes(b"no database" * 1000)


DAMAGES = {
    "a snapshot without facts": (damage_facts, {"snapshot", "measures"}, "turnover_runs"),
    "a pointer to nothing": (damage_pointer, {"snapshot", "measures"}, "turnover_runs"),
    "damaged runs": (damage_runs, {"runs", "assets", "automation"}, "turnover_published_rows"),
    "damaged alerts": (damage_alerts, {"incidents"}, "turnover_published_rows"),
}


@pytest.mark.parametrize(("damage", "parts", "still"), DAMAGES.values(), ids=DAMAGES.keys())
def test_what_cannot_be_read_is_left_out_and_counted_and_the_rest_answers(
    copied: Landed, damage: Callable[[Settings], None], parts: set[str], still: str
) -> None:
    damage(copied.settings)
    heard: list[str] = []

    with serving(HomeCollector(copied.settings, tell=lambda part, _: heard.append(part))) as url:
        found = samples(get(f"{url}/metrics"))

    assert set(errors_of(found)) <= parts
    assert errors_of(found)
    assert set(heard) == set(errors_of(found))
    assert any(key[0] == still for key in found)


def test_a_part_that_fails_again_is_counted_again_but_told_once_until_it_was_well() -> None:
    told: list[str] = []
    works = iter([False, False, True, False])

    def source(_settings: Settings) -> list[Reading]:
        if not next(works):
            raise OSError("gone")
        return [Reading("turnover_queued_runs", 3.0)]

    times = iter(range(0, 10_000, 100))
    collector = HomeCollector(
        load_settings(),
        {"x": Part(source)},
        clock=lambda: float(next(times)),
        tell=lambda part, error: told.append(f"{part}: {error}"),
    )

    found = [samples(text_of(collector)) for _ in range(4)]

    assert [f["turnover_scrape_errors_total", "x"] for f in found] == [1, 2, 2, 3]
    assert [("turnover_queued_runs",) in f for f in found] == [False, False, True, False]
    assert told == ["x: gone", "x: gone"]


def test_readings_that_are_no_number_are_left_out() -> None:
    part = Part(lambda _: [Reading("turnover_model_version", float("nan"))])

    assert "turnover_model_version" not in text_of(HomeCollector(load_settings(), {"x": part}))


# Measures, incidents -----------------------------------------------------------------------------


def test_names_of_members_are_escaped(tmp_path: Path) -> None:
    quoted = ODD.replace("'", "''")
    settings = publish_measures(tmp_path, f"('wape', 'department', '{quoted}', DATE '2030-01-05', 0.25)")

    found = read(settings)

    assert found["turnover_forecast_wape_ratio", "department", ODD] == 0.25


def test_measures_of_the_newest_cutoff_are_served(tmp_path: Path) -> None:
    settings = publish_measures(
        tmp_path,
        "('coverage_95', 'total', '', DATE '2029-12-29', 0.5)",
        "('coverage_95', 'total', '', DATE '2030-01-05', 0.96)",
        "('largest_psi', 'total', '', DATE '2030-01-05', 0.3)",
        "('bias', 'total', '', DATE '2030-01-05', NULL)",
    )

    found = read(settings)

    assert errors_of(found) == {}
    assert found["turnover_forecast_coverage_ratio", "total", "", "95"] == 0.96
    assert found["turnover_input_largest_psi",] == 0.3
    assert ("turnover_forecast_bias_ratio", "total", "") not in found


def test_open_incidents_are_counted_by_severity(tmp_path: Path) -> None:
    (tmp_path / "alerts").mkdir()
    with closing(sqlite3.connect(tmp_path / "alerts" / "alerts.sqlite")) as con:
        con.execute("CREATE TABLE incidents (severity TEXT, resolved_at TEXT)")
        rows = [("critical", None), ("warning", None), ("warning", None), ("warning", "2030-01-01")]
        con.executemany("INSERT INTO incidents VALUES (?, ?)", rows)
        con.commit()

    found = read(load_settings(home=tmp_path))

    assert found["turnover_open_incidents", "critical"] == 1
    assert found["turnover_open_incidents", "warning"] == 2


# Runs, queue, automation -------------------------------------------------------------------------


def as_dict(readings: Iterator[Reading]) -> dict[tuple[str, ...], float]:
    return {(reading.name, *reading.labels): reading.value for reading in readings}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def ended(instance: dg.DagsterInstance, job: str, *, failed: bool = False) -> None:
    run = create_run_for_test(instance, job_name=job, status=Status.STARTED)
    kind = "PIPELINE_FAILURE" if failed else "PIPELINE_SUCCESS"
    instance.report_dagster_event(
        dg.DagsterEvent(event_type_value=kind, job_name=job, message=""), run.run_id
    )


def test_failures_count_from_the_last_success_of_their_job(instance: dg.DagsterInstance) -> None:
    for failed in (True, False, True, True):
        ended(instance, jobs.REFRESH, failed=failed)
    ended(instance, jobs.INGEST)
    ended(instance, jobs.TUNE, failed=True)

    found = as_dict(run_readings(instance))

    assert found["turnover_failed_runs_since_success", jobs.REFRESH] == 2
    assert found["turnover_failed_runs_since_success", jobs.INGEST] == 0
    assert found["turnover_failed_runs_since_success", jobs.TUNE] == 1
    assert found["turnover_runs", jobs.REFRESH, "failure"] == 3
    assert found["turnover_runs", jobs.REFRESH, "success"] == 1
    assert ("turnover_last_success_timestamp_seconds", jobs.TUNE) not in found
    failure = found["turnover_last_failure_timestamp_seconds", jobs.REFRESH]
    assert failure > found["turnover_last_success_timestamp_seconds", jobs.REFRESH]
    assert failure == pytest.approx(time.time(), abs=60)


def test_the_queue_and_the_oldest_in_it_are_told(instance: dg.DagsterInstance) -> None:
    for status in (Status.QUEUED, Status.QUEUED, Status.STARTING, Status.STARTED, Status.CANCELING):
        create_run_for_test(instance, job_name=jobs.REFRESH, status=status, remote_job_origin=ORIGIN)
    old = datetime.now(UTC) - timedelta(hours=3)
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    with storage.connect() as con:
        con.exec_driver_sql("UPDATE runs SET create_timestamp = ? WHERE id = 2", (old.replace(tzinfo=None),))
        con.exec_driver_sql("UPDATE runs SET start_time = ? WHERE id = 4", (old.timestamp(),))

    found = as_dict(run_readings(instance))

    assert found["turnover_queued_runs",] == 2
    assert found["turnover_running_runs",] == 3
    assert found["turnover_oldest_queued_run_timestamp_seconds",] == pytest.approx(old.timestamp())
    assert found["turnover_oldest_running_run_timestamp_seconds",] == pytest.approx(old.timestamp())


def test_many_runs_are_counted_but_not_read(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(instance, jobs.REFRESH)
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    with storage.connect() as con:
        con.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
            "INSERT INTO runs (run_id, pipeline_name, status, run_body, start_time, end_time) "
            "SELECT 'run' || i, pipeline_name, status, run_body, i, i + 60 FROM runs, n WHERE id = 1"
        )
    fetched, fetch = [], SqlRunStorage.fetchall

    def counting(self: SqlRunStorage, query: Any) -> Any:
        fetched.append(fetch(self, query))
        return fetched[-1]

    monkeypatch.setattr(SqlRunStorage, "fetchall", counting)
    began = time.perf_counter()

    found = as_dict(run_readings(instance))

    assert found["turnover_runs", jobs.REFRESH, "success"] == 20_001
    assert found["turnover_run_duration_seconds", jobs.REFRESH] == 60
    assert sum(map(len, fetched)) < 20
    assert time.perf_counter() - began < 5  # some 0.05 s where nothing else is at work


def test_ticks_and_heartbeats_are_told(instance: dg.DagsterInstance) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(1000.0, "SENSOR", "1", []))
    for name, kind, data in (
        ("landing_sensor", InstigatorType.SENSOR, SensorInstigatorData(last_tick_timestamp=2000.0)),
        ("new_sensor", InstigatorType.SENSOR, SensorInstigatorData()),
        ("weekly", InstigatorType.SCHEDULE, ScheduleInstigatorData("0 6 * * 1", 0.0)),
    ):
        origin = RemoteInstigatorOrigin(REPOSITORY, name)
        state = InstigatorState(origin, kind, InstigatorStatus.RUNNING, data)
        instance.add_instigator_state(state)
        for at in (2900.0, 3000.0) if kind == InstigatorType.SCHEDULE else ():
            ids = {"instigator_origin_id": state.instigator_origin_id, "selector_id": state.selector_id}
            tick = TickData(
                instigator_name=name, instigator_type=kind, status=TickStatus.SKIPPED, timestamp=at, **ids
            )
            instance.create_tick(tick)

    assert as_dict(automation_readings(instance)) == {
        ("turnover_daemon_heartbeat_timestamp_seconds", "sensor"): 1000,
        ("turnover_sensor_last_tick_timestamp_seconds", "landing_sensor"): 2000,
        ("turnover_schedule_last_tick_timestamp_seconds", "weekly"): 3000,
    }


# Serving -----------------------------------------------------------------------------------------


@contextmanager
def serving(collector: HomeCollector) -> Iterator[str]:
    with server(collector, "127.0.0.1", 0) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def test_health_is_answered_without_reading_anything() -> None:
    collector = HomeCollector(load_settings(), {"x": Part(lambda _: pytest.fail("read"))})

    with serving(collector) as url:
        assert get(f"{url}/healthz") == "ok\n"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{url}/")


def test_a_storm_of_scrapes_costs_one_reading() -> None:
    reads = []

    def source(_settings: Settings) -> list[Reading]:
        reads.append(1)
        time.sleep(0.2)
        return [Reading("turnover_queued_runs", 1.0)]

    with serving(HomeCollector(load_settings(), {"x": Part(source)})) as url:
        answers: list[str] = []
        threads = [threading.Thread(target=lambda: answers.append(get(f"{url}/metrics"))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(answers) == 20
    assert all("turnover_queued_runs 1.0" in answer for answer in answers)
    assert len(reads) == 1


def test_no_scrape_waits_for_a_slow_part() -> None:
    may_end = threading.Event()

    def slow(_settings: Settings) -> list[Reading]:
        assert may_end.wait(PATIENCE)
        return [Reading("turnover_home_bytes", 1.0, ("raw",))]

    quick = Part(lambda _: [Reading("turnover_queued_runs", 1.0)])
    parts = {"slow": Part(slow, 300, is_slow=True), "quick": quick}
    collector = HomeCollector(load_settings(), parts, in_background=True)

    first = [samples(text_of(collector)) for _ in range(3)]
    may_end.set()
    wait_until(
        lambda: ("turnover_home_bytes", "raw") in samples(text_of(collector)),
        "the slow part is read",
        every=0.01,
    )
    found = samples(text_of(collector))

    assert all(("turnover_queued_runs",) in each for each in first)
    assert not any(("turnover_home_bytes", "raw") in each for each in first)
    assert errors_of(found) == {}


def test_readings_are_taken_anew_after_a_while() -> None:
    now, values = [0.0], iter([1.0, 2.0])
    part = Part(lambda _: [Reading("turnover_queued_runs", next(values))], kept_seconds=5)
    collector = HomeCollector(load_settings(), {"x": part}, clock=lambda: now[0])

    found = []
    for now[0] in (0.0, 4.9, 5.0):
        found.append(samples(text_of(collector))["turnover_queued_runs",])

    assert found == [1, 1, 2]


def test_a_port_that_is_taken_is_told() -> None:
    collector = HomeCollector(load_settings(), {})
    with (
        server(collector, "127.0.0.1", 0) as listening,
        pytest.raises(TurnoverError, match=rf"port {listening.server_port} .*--port"),
    ):
        server(collector, "127.0.0.1", listening.server_port)


def test_once_prints_the_metrics_and_ends(plain: Landed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(plain.settings.home))

    result = CliRunner().invoke(app, ["metrics", "--once"], catch_exceptions=False)

    assert result.exit_code == 0
    assert result.stderr == ""
    assert set(samples(result.stdout)) >= {("turnover_queued_runs",), ("turnover_model_version",)}


def test_every_part_is_counted_from_the_start(scraped: Samples) -> None:
    assert {key[1] for key in scraped if key[0] == "turnover_scrape_errors_total"} == set(PARTS)
