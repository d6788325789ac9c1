"""The log of automatic decisions: what is kept, what is counted, and what never stops a sensor."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.definitions import build_definitions
from turnover_assets.defs import jobs
from turnover_assets.defs.decisions import decision_of, recorded
from turnover_assets.defs.partitions import range_tags
from turnover_assets.errors import HomeError
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage import decision_log
from turnover_assets.storage.decision_log import Decision, DecisionLog

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
IDLE = Decision("refresh_sensor", "skipped", "Nothing to forecast has landed yet.")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path)


def test_the_same_decision_again_is_counted_and_another_one_begins_a_row(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.sqlite")
    asked = Decision("refresh_sensor", "requested", "Week 9 has landed.", ["a#1"])
    elsewhere = Decision("retrain_sensor", "skipped", "Not due.")
    told = [IDLE, elsewhere, IDLE, asked, asked, IDLE]

    for minute, decision in enumerate(told):
        log.record(decision, NOON + timedelta(minutes=minute))

    found = log.read()
    rows = found[["automation", "outcome", "looks"]].to_numpy().tolist()
    assert rows == [
        ["refresh_sensor", "skipped", 1],
        ["refresh_sensor", "requested", 2],
        ["refresh_sensor", "skipped", 2],
        ["retrain_sensor", "skipped", 1],
    ]
    assert found["first_at"].iloc[2] == NOON
    assert found["last_at"].iloc[2] == NOON + timedelta(minutes=2)
    assert json.loads(found["run_keys"].iloc[1]) == ["a#1"]


def test_only_the_newest_decisions_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_log, "KEPT", 50)
    monkeypatch.setattr(decision_log, "TRIMMED_EVERY", 10)
    log = DecisionLog(tmp_path / "log.sqlite")

    for number in range(200):
        log.record(Decision("s", "skipped", str(number)), NOON)

    assert set(log.read()["reason"]) == {str(number) for number in range(150, 200)}


def test_a_log_that_is_not_there_holds_nothing_and_a_damaged_one_says_what_to_do(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.sqlite")
    assert log.read().empty
    assert not log.path.exists()

    log.path.write_bytes(b"no database" * 500)

    with pytest.raises(HomeError, match="move it away"):
        log.read()


def test_a_log_that_cannot_be_written_keeps_no_sensor_from_deciding(settings: Settings) -> None:
    settings.decisions_path.mkdir()

    found = recorded(settings, "s", lambda: dg.SkipReason("Nothing new."))

    assert found.skip_message == "Nothing new."


def test_a_look_that_fails_is_on_record_and_still_fails(settings: Settings) -> None:
    def look() -> dg.SkipReason:
        raise ValueError("no such table")

    with pytest.raises(ValueError, match="no such table"):
        recorded(settings, "s", look)

    (row,) = DecisionLog(settings.decisions_path).read().to_dict("records")
    assert (row["outcome"], row["reason"]) == ("failed", "ValueError: no such table")


def test_a_request_is_told_by_what_it_is_for_and_which_attempt_it_is() -> None:
    landing = dg.RunRequest(
        "k1",
        tags=range_tags("a.csv@1", "c.csv@3") | {jobs.FILES_TAG: "3", jobs.ATTEMPT_TAG: "2"},
    )
    training = dg.RunRequest("k2", tags=jobs.training_tags("age", "Trained 8 periods ago."))

    landed = decision_of("landing_sensor", dg.SensorResult(run_requests=[landing]))
    trained = decision_of("retrain_sensor", training)

    assert landed.reason == "Landing 3 files: a.csv to c.csv. Attempt 2."
    assert landed.run_keys == ["k1"]
    assert trained.reason == "Trained 8 periods ago. Attempt 1."


def test_every_sensor_and_schedule_puts_its_decisions_on_record(settings: Settings, tmp_path: Path) -> None:
    settings.landing_path.mkdir()
    made = build_definitions(settings)
    due = datetime(2026, 3, 2, 6, tzinfo=UTC)

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        for sensor in made.sensors or []:
            if isinstance(sensor, dg.SensorDefinition) and not isinstance(
                sensor, dg.RunStatusSensorDefinition
            ):
                sensor.evaluate_tick(
                    dg.build_sensor_context(instance, definitions=made, sensor_name=sensor.name)
                )
        for schedule in made.schedules or []:
            assert isinstance(schedule, dg.ScheduleDefinition)
            schedule.evaluate_tick(dg.build_schedule_context(instance, scheduled_execution_time=due))

    found = DecisionLog(settings.decisions_path).read()
    names = {s.name for s in [*(made.sensors or []), *(made.schedules or [])]}
    assert set(found["automation"]) == names
    assert found["reason"].str.len().gt(10).all()


def test_the_command_shows_decisions_and_writes_them_to_a_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(tmp_path))
    DecisionLog(settings.decisions_path).record(Decision("s", "skipped", "[bold]why[/] not"), NOON)

    shown = CliRunner().invoke(app, ["decisions"])
    written = CliRunner().invoke(app, ["decisions", "--format", "csv"])

    assert "2026-03-02 12:00:00" in shown.stdout
    assert "[bold]why[/] not" in shown.stdout
    assert written.stdout.splitlines()[0] == "automation,outcome,reason,run_keys,first_at,last_at,looks"


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.sqlite")
    log.record(IDLE, NOON)
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE decisions SET looks = 41")

    other.execute("COMMIT")
    log.record(IDLE, NOON)

    assert log.read()["looks"].tolist() == [42]
    other.close()
