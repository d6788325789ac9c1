"""The weekly look: when it is due, what it asks for, and what it says where it does nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from turnover_assets import __version__
from turnover_assets.definitions import build_definitions
from turnover_assets.defs import common, jobs
from turnover_assets.defs.schedules import WEEKLY, look_weekly
from turnover_assets.defs.training_sensors import Present
from turnover_assets.errors import TurnoverError
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.ledger import NO_LEDGER
from turnover_assets_tests.test_sensors import add_run, materialise

PARIS = ZoneInfo("Europe/Paris")
MONDAY = datetime(2017, 8, 14, 4, tzinfo=UTC)  # 6:00 in Paris
MADE_FROM = {
    "ledger_version": NO_LEDGER,
    "settings_version": "s1",
    "code_version": __version__,
    "model_version": 3,
}
PRESENT = Present(MADE_FROM, is_whole=True, unusable=lambda: "")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path, timezone="Europe/Paris")


def publish(instance: dg.DagsterInstance, landed: str, cutoff: str = "2017-08-05") -> None:
    materialise(instance, common.LANDED, ["f@1"], landed_version=landed, **{"dagster/row_count": 5})
    materialise(instance, common.FORECASTS, cutoff=cutoff)
    materialise(instance, common.PUBLISHED, landed_version=landed, **MADE_FROM)


def look(instance: dg.DagsterInstance, settings: Settings, present: Present = PRESENT) -> Any:
    return look_weekly(instance, MONDAY, settings, present)


@pytest.mark.parametrize(
    ("since", "hours"),
    [
        (datetime(2026, 3, 16, tzinfo=UTC), [5, 5, 4, 4]),  # clocks go forward on 29 March
        (datetime(2026, 10, 12, tzinfo=UTC), [4, 4, 5, 5]),  # and back on 25 October
    ],
    ids=["spring", "autumn"],
)
def test_the_look_is_due_at_the_same_local_time_on_both_sides_of_a_clock_change(
    settings: Settings, since: datetime, hours: list[int]
) -> None:
    schedule = build_definitions(settings).resolve_schedule_def(WEEKLY)
    due = schedule_times(schedule, since, len(hours))

    assert [moment.astimezone(UTC).hour for moment in due] == hours
    assert {(m.astimezone(PARIS).hour, m.astimezone(PARIS).weekday()) for m in due} == {(6, 0)}


def schedule_times(schedule: dg.ScheduleDefinition, since: datetime, count: int) -> list[datetime]:
    from dagster._utils.schedules import schedule_execution_time_iterator

    times = schedule_execution_time_iterator(
        since.timestamp(), schedule.cron_schedule, schedule.execution_timezone
    )
    return [next(times) for _ in range(count)]


def test_it_says_up_to_when_data_reaches_where_all_is_published(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    publish(instance, "v1")

    found = look(instance, settings)

    assert isinstance(found, dg.SkipReason)
    assert found.skip_message == (
        "All that landed is published. Data reaches 2017-08-05; no week has ended since."
    )


def test_it_counts_the_periods_that_have_ended_and_are_awaited(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    publish(instance, "v1", cutoff="2017-07-22")

    found = look(instance, settings)

    assert isinstance(found, dg.SkipReason)
    assert "Data reaches 2017-07-22; 2 week(s) have ended since and are awaited." in str(found.skip_message)


def test_it_tries_again_what_the_sensor_gave_up(instance: dg.DagsterInstance, settings: Settings) -> None:
    publish(instance, "v1")
    materialise(instance, common.LANDED, ["g@2"], landed_version="v2", **{"dagster/row_count": 6})
    for _ in range(settings.sensor_attempts):
        add_run(instance, jobs.REFRESH, dg.DagsterRunStatus.FAILURE, **jobs.cause_tags("v2", MADE_FROM))

    found = look(instance, settings)

    assert isinstance(found, dg.RunRequest)
    assert found.tags[jobs.CAUSE_TAG] == "v2"
    assert found.run_key == f"{WEEKLY} {MONDAY.isoformat()}"  # a tick done again after a crash asks once


@pytest.mark.parametrize("job", [jobs.INGEST, jobs.REFRESH, jobs.RETRAIN])
def test_it_waits_for_what_is_under_way(instance: dg.DagsterInstance, settings: Settings, job: str) -> None:
    publish(instance, "v1")
    materialise(instance, common.LANDED, ["g@2"], landed_version="v2", **{"dagster/row_count": 6})
    run = add_run(instance, job, dg.DagsterRunStatus.QUEUED)

    found = look(instance, settings)

    assert isinstance(found, dg.SkipReason)
    assert run.run_id in str(found.skip_message)


def test_it_leaves_training_to_its_sensor(instance: dg.DagsterInstance, settings: Settings) -> None:
    materialise(instance, common.LANDED, ["f@1"], landed_version="v1", **{"dagster/row_count": 5})

    found = look(instance, settings, Present(MADE_FROM, is_whole=False, unusable=lambda: "No champion."))

    assert isinstance(found, dg.SkipReason)
    assert str(found.skip_message).startswith("Training comes first: No champion.")


@pytest.mark.parametrize("setting", ["weekly_schedule", "housekeeping_schedule"])
def test_a_line_that_cron_does_not_know_is_refused_with_its_setting(tmp_path: Path, setting: str) -> None:
    settings = load_settings(home=tmp_path, **{setting: "0 26 * * 1"})

    with pytest.raises(
        TurnoverError, match=rf"TURNOVER_{setting.upper()}: '0 26 \* \* 1' is no line of cron"
    ):
        build_definitions(settings)
