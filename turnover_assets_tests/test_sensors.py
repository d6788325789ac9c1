"""Sensors: what they ask for, what they leave, and what they say where they do nothing."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from dagster._core.test_utils import create_run_for_test

from turnover_assets import __version__
from turnover_assets.definitions import build_definitions
from turnover_assets.defs import common, jobs, sensors
from turnover_assets.defs.partitions import LANDED_FILES, digest_of, name_of, ranges
from turnover_assets.defs.runs import UNFINISHED, close_orphaned_runs
from turnover_assets.defs.sensors import (
    LandingState,
    contents_to_land,
    held_still,
    look_for_files,
    pending_partitions,
)
from turnover_assets.defs.training_sensors import Present, look_for_changes, look_for_retraining
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.landing_folder import scan
from turnover_assets.storage.ledger import NO_LEDGER

Status = dg.DagsterRunStatus
LIMIT = 3
OPENS_BUT_CANNOT_BE_READ = "/proc/self/mem"  # at its start; so it is for root, too


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load_settings(home=tmp_path, sensor_attempts=LIMIT)
    made.landing_path.mkdir()
    return made


class Daemon:
    """Evaluates the landing sensor as Dagster's daemon does: adds partitions, then keeps the cursor."""

    def __init__(self, instance: dg.DagsterInstance, settings: Settings) -> None:
        self.instance, self.settings = instance, settings
        self.cursor: str | None = None

    def tick(self, *, crash: bool = False) -> list[dg.RunRequest]:
        """One look; the run requests. After a crash the cursor is the one from before."""
        found = look_for_files(self.instance, self.cursor, self.settings)
        if isinstance(found, dg.SkipReason):
            self.said = found.skip_message or ""
            return []
        for request in found.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        self.said = found.skip_reason.skip_message or "" if found.skip_reason else ""
        if not crash:
            self.cursor = found.cursor
        return list(found.run_requests or [])

    def ticks(self, count: int) -> list[dg.RunRequest]:
        return [request for _ in range(count) for request in self.tick()]


@pytest.fixture
def daemon(instance: dg.DagsterInstance, settings: Settings) -> Daemon:
    return Daemon(instance, settings)


def drop(settings: Settings, name: str, content: str = "a,b\n") -> Path:
    path = settings.landing_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def partitions_of(instance: dg.DagsterInstance) -> list[str]:
    return list(instance.get_dynamic_partitions("landed_files"))


def materialise(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    partitions: Sequence[str | None] = (None,),
    **metadata: Any,
) -> None:
    for partition in partitions:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(key, partition=partition, metadata=metadata)
        )


def add_run(instance: dg.DagsterInstance, job: str, status: Status, **tags: str) -> dg.DagsterRun:
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("turnover_assets"), "__repository__")
    origin = RemoteJobOrigin(repository, job)
    return create_run_for_test(instance, job_name=job, status=status, tags=tags, remote_job_origin=origin)


def range_of(request: dg.RunRequest) -> tuple[str, str]:
    return request.tags[ASSET_PARTITION_RANGE_START_TAG], request.tags[ASSET_PARTITION_RANGE_END_TAG]


# Pure functions ----------------------------------------------------------------------------------


def test_only_a_file_with_the_stamp_of_the_last_look_held_still() -> None:
    state = LandingState(seen={"same": (1, 1), "grown": (1, 1), "touched": (1, 1), "gone": (1, 1)})
    now = {"same": (1, 1), "grown": (2, 1), "touched": (1, 2), "new": (1, 1)}

    assert held_still(now, state) == ["same"]


def test_a_content_is_landed_once_under_its_first_name() -> None:
    here = ["a.csv@1", "b.csv@2", "c.csv@2", "d.csv@3"]

    assert contents_to_land(here, ["other name.csv@1"]) == ["b.csv@2", "d.csv@3"]


def test_a_partition_is_pending_until_it_landed_or_was_tried_often_enough() -> None:
    attempts = {"b": LIMIT, "c": LIMIT - 1}

    assert pending_partitions(["a", "b", "c", "d"], ["d"], attempts, LIMIT) == ["a", "c"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param("", [], id="none"),
        pytest.param("abcd", [("a", "d")], id="all"),
        pytest.param("db", [("b", "b"), ("d", "d")], id="apart, in the order of the partitions"),
        pytest.param("abd", [("a", "b"), ("d", "d")], id="one gap"),
        pytest.param("x", [], id="unknown"),
    ],
)
def test_ranges_are_unbroken_runs_in_the_order_of_the_partitions(
    keys: str, expected: list[tuple[str, str]]
) -> None:
    assert list(ranges(keys, "abcd")) == expected


@pytest.mark.parametrize("name", ["a.csv", "a@b.csv", "sub/ü …csv", "@"])
def test_a_partition_key_holds_name_and_digest(name: str) -> None:
    key = f"{name}@0123456789ab"

    assert (name_of(key), digest_of(key)) == (name, "0123456789ab")


def test_the_state_survives_the_cursor() -> None:
    state = LandingState({"new ü.csv": (5, 7)}, {"a.csv": ((1, 2), "a.csv@1")}, {"a.csv@1": 2}, "salt")

    assert LandingState.from_cursor(state.to_cursor()) == state


GARBAGE = {
    "none": None,
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "a number": "1",
    "other fields": '{"files": 1}',
    "wrong types": '{"seen": {"a": 1}, "handled": {}, "attempts": {}, "salt": ""}',
    "an earlier release's": '{"seen": {}, "handled": {"a.csv": [1, 2]}, "attempts": {}}',
}


@pytest.mark.parametrize("cursor", GARBAGE.values(), ids=GARBAGE.keys())
def test_an_unreadable_cursor_counts_as_none(cursor: str | None) -> None:
    state = LandingState.from_cursor(cursor)

    assert (state.seen, state.handled, state.attempts) == ({}, {}, {})


# Landing -----------------------------------------------------------------------------------------


def test_a_file_is_landed_after_it_held_still_for_two_looks(daemon: Daemon, settings: Settings) -> None:
    drop(settings, "week.csv")

    first, second = daemon.tick(), daemon.tick()

    key = scan(settings.landing_path)[0].partition_key
    assert first == []
    assert [range_of(request) for request in second] == [(key, key)]
    assert partitions_of(daemon.instance) == [key]


def test_a_growing_file_is_left_until_it_holds_still(daemon: Daemon, settings: Settings) -> None:
    path = drop(settings, "week.csv")
    asked: list[dg.RunRequest] = []
    for part in range(4):
        asked += daemon.tick()
        with path.open("a") as stream:
            stream.write(f"{part}\n")

    assert asked == []
    assert "1 to be looked at once more" in daemon.said
    assert len(daemon.ticks(2)) == 1


def test_a_file_rewritten_in_its_size_is_left_once_more(daemon: Daemon, settings: Settings) -> None:
    path = drop(settings, "week.csv", "1\n")
    daemon.tick()
    path.write_text("2\n")
    os.utime(path, ns=(0, 0))

    assert daemon.tick() == []
    assert len(daemon.tick()) == 1


def test_the_same_content_under_another_name_asks_for_nothing(daemon: Daemon, settings: Settings) -> None:
    drop(settings, "week.csv")
    daemon.ticks(2)
    materialise(daemon.instance, common.LANDED, partitions_of(daemon.instance))
    drop(settings, "copy.csv")

    assert daemon.ticks(3) == []
    assert len(partitions_of(daemon.instance)) == 1
    assert "2 files, none new" in daemon.said


def test_one_of_two_new_files_with_the_same_content_is_landed(daemon: Daemon, settings: Settings) -> None:
    drop(settings, "a.csv")
    drop(settings, "b.csv")

    assert len(daemon.ticks(2)) == 1
    assert [name_of(key) for key in partitions_of(daemon.instance)] == ["a.csv"]


def test_new_content_under_a_known_name_is_landed(daemon: Daemon, settings: Settings) -> None:
    drop(settings, "week.csv", "1\n")
    daemon.ticks(2)
    materialise(daemon.instance, common.LANDED, partitions_of(daemon.instance))
    drop(settings, "week.csv", "1\n2\n")

    assert len(daemon.ticks(2)) == 1
    assert [name_of(key) for key in partitions_of(daemon.instance)] == ["week.csv", "week.csv"]


def test_a_folder_that_cannot_be_listed_is_a_reason_and_leaves_the_cursor(
    daemon: Daemon, settings: Settings
) -> None:
    drop(settings, "week.csv")
    daemon.tick()
    before = daemon.cursor
    settings.landing_path.rename(settings.home / "away")

    asked = daemon.tick()

    assert asked == []
    assert "cannot be listed (No such file or directory)" in daemon.said
    assert daemon.cursor == before
    (settings.home / "away").rename(settings.landing_path)
    assert len(daemon.tick()) == 1


def test_an_unreadable_file_is_named_and_keeps_no_other_out(daemon: Daemon, settings: Settings) -> None:
    drop(settings, "good.csv")
    (settings.landing_path / "bad.csv").symlink_to(OPENS_BUT_CANNOT_BE_READ)

    asked = daemon.ticks(2)
    materialise(daemon.instance, common.LANDED, partitions_of(daemon.instance))

    assert [name_of(key) for key in range_of(asked[0])] == ["good.csv", "good.csv"]
    assert daemon.tick() == []
    assert "1 that cannot be read (bad.csv)" in daemon.said


def test_a_backlog_is_one_run_of_the_whole_range(daemon: Daemon, settings: Settings) -> None:
    for number in range(150):
        drop(settings, f"{number:03}.csv", f"{number}\n")

    (request,) = daemon.ticks(2)

    keys = partitions_of(daemon.instance)
    assert [name_of(key) for key in keys] == [f"{number:03}.csv" for number in range(150)]
    assert range_of(request) == (keys[0], keys[-1])
    assert request.tags[jobs.FILES_TAG] == "150"


def test_partitions_are_registered_with_the_request_that_names_them(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    landing_sensor, *_ = sensors.build(settings)
    definitions = build_definitions(settings)
    drop(settings, "week.csv")

    with dg.build_sensor_context(instance, definitions=definitions) as context:
        first = landing_sensor.evaluate_tick(context)
    with dg.build_sensor_context(instance, cursor=first.cursor, definitions=definitions) as context:
        second = landing_sensor.evaluate_tick(context)

    assert first.run_requests == []
    assert "once more" in (first.skip_message or "")
    (registered,) = second.dynamic_partitions_requests
    (request,) = second.run_requests or []
    assert registered.partitions_def_name == LANDED_FILES.name
    assert range_of(request) == (registered.partition_keys[0], registered.partition_keys[0])


def test_a_failed_ingestion_is_asked_for_again_with_another_key_and_then_given_up(
    daemon: Daemon, settings: Settings
) -> None:
    drop(settings, "week.csv")

    asked = daemon.ticks(2 + LIMIT)

    assert [request.tags["turnover/attempt"] for request in asked] == ["1", "2", "3"]
    assert len({request.run_key for request in asked}) == LIMIT
    assert {range_of(request) for request in asked} == {(partitions_of(daemon.instance)[0],) * 2}
    assert "gave up on 1 after failed runs (week.csv)" in daemon.said


def test_files_of_a_run_that_failed_are_tried_again_in_few_runs_of_few(
    daemon: Daemon, settings: Settings
) -> None:
    for number in range(20):
        drop(settings, f"{number:02}.csv", f"{number}\n")
    daemon.ticks(2)
    keys = partitions_of(daemon.instance)
    drop(settings, "new.csv", "new\n")

    again = daemon.tick()
    materialise(daemon.instance, common.LANDED, keys[:3])
    once_more = [name_of(key) for request in daemon.tick() for key in {*range_of(request)}]

    assert [range_of(request) for request in again] == [
        (keys[i], keys[min(i + 2, 19)]) for i in range(0, 20, 3)
    ]
    assert len({request.run_key for request in again}) == 7
    assert "00.csv" not in once_more
    assert {"new.csv", "03.csv", "19.csv"} <= {*once_more}


def test_a_look_reads_as_much_as_it_has_time_for(
    daemon: Daemon, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "LONGEST_READING", -1.0)
    for name in ("a.csv", "b.csv"):
        drop(settings, name, f"{name}\n")

    daemon.ticks(2)
    first = [name_of(key) for key in partitions_of(daemon.instance)]
    materialise(daemon.instance, common.LANDED, partitions_of(daemon.instance))
    daemon.tick()

    assert first == ["a.csv"]
    assert [name_of(key) for key in partitions_of(daemon.instance)] == ["a.csv", "b.csv"]


def test_a_sensor_whose_cursor_was_reset_may_ask_again(daemon: Daemon, settings: Settings) -> None:
    drop(settings, "week.csv")
    before = daemon.ticks(2 + LIMIT)
    daemon.cursor = None

    after = daemon.ticks(2)

    assert [request.tags["turnover/attempt"] for request in after] == ["1"]
    assert after[0].run_key not in {request.run_key for request in before}


def test_attempts_at_what_landed_are_forgotten(daemon: Daemon, settings: Settings) -> None:
    drop(settings, "week.csv")
    daemon.ticks(3)
    materialise(daemon.instance, common.LANDED, partitions_of(daemon.instance))

    assert daemon.tick() == []
    assert LandingState.from_cursor(daemon.cursor).attempts == {}


@pytest.mark.parametrize("status", UNFINISHED, ids=lambda status: status.value)
def test_nothing_is_asked_for_while_an_ingestion_is_under_way(
    daemon: Daemon, settings: Settings, status: Status
) -> None:
    drop(settings, "week.csv")
    daemon.tick()
    cursor = daemon.cursor
    run = add_run(daemon.instance, jobs.INGEST, status)

    assert daemon.tick() == []
    assert run.run_id in daemon.said
    assert daemon.cursor == cursor


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILURE, Status.CANCELED], ids=lambda s: s.value)
def test_ended_ingestions_and_other_jobs_keep_no_file_waiting(
    daemon: Daemon, settings: Settings, status: Status
) -> None:
    drop(settings, "week.csv")
    add_run(daemon.instance, jobs.INGEST, status)
    add_run(daemon.instance, jobs.REFRESH, Status.STARTED)

    assert len(daemon.ticks(2)) == 1


def test_a_tick_that_is_done_again_after_a_crash_asks_with_the_same_keys(
    daemon: Daemon, settings: Settings
) -> None:
    for name in ("a.csv", "b.csv"):
        drop(settings, name, name)
    daemon.tick()

    crashed, again = daemon.tick(crash=True), daemon.tick()

    assert [request.run_key for request in crashed] == [request.run_key for request in again]
    assert [range_of(request) for request in crashed] == [range_of(request) for request in again]
    assert len(partitions_of(daemon.instance)) == 2


def test_partitions_of_files_elsewhere_are_not_asked_for(daemon: Daemon, settings: Settings) -> None:
    """`turnover run --landing OTHER` registers its files before it lands them, and may fail."""
    drop(settings, "week.csv")
    daemon.instance.add_dynamic_partitions(
        "landed_files", ["week.csv@000000000000", "other.csv@111111111111"]
    )

    asked = daemon.ticks(5)

    here = scan(settings.landing_path)[0].partition_key
    assert {range_of(request) for request in asked} == {(here, here)}


def test_a_content_that_failed_to_land_from_elsewhere_is_landed_from_the_watched_folder(
    daemon: Daemon, settings: Settings
) -> None:
    drop(settings, "week.csv")
    here = scan(settings.landing_path)[0].partition_key
    daemon.instance.add_dynamic_partitions("landed_files", [f"elsewhere.csv@{digest_of(here)}"])

    (request,) = daemon.ticks(2)

    assert range_of(request) == (here, here)


def test_a_copy_is_landed_where_the_first_file_of_its_content_is_gone(
    daemon: Daemon, settings: Settings
) -> None:
    first = drop(settings, "a.csv")
    drop(settings, "b.csv")
    daemon.ticks(2)
    first.unlink()

    (request,) = daemon.tick()

    assert [name_of(key) for key in range_of(request)] == ["b.csv", "b.csv"]


def test_the_cursor_names_each_file_once(daemon: Daemon, settings: Settings) -> None:
    for number in range(100):
        drop(settings, f"{number:03}.csv", f"{number}\n")

    daemon.ticks(2)
    materialise(daemon.instance, common.LANDED, partitions_of(daemon.instance))
    daemon.tick()

    state = json.loads(daemon.cursor or "")
    assert (state["seen"], len(state["handled"]), state["attempts"]) == ({}, 100, {})


# Forecasting ---------------------------------------------------------------------------------------

MADE_FROM = {
    "ledger_version": NO_LEDGER,
    "settings_version": "settings",
    "code_version": "1.0",
    "model_version": 1,
}
Look = Callable[[dg.DagsterInstance, int, Present], dg.RunRequest | dg.SkipReason]


def present(*, is_whole: bool = True, unusable: str = "", **others: Any) -> Present:
    """How things are, with a champion that can forecast."""
    return Present(MADE_FROM | others, is_whole, lambda: unusable)


def landed_version(instance: dg.DagsterInstance, version: str, rows: int = 5) -> None:
    metadata: dict[str, Any] = {"landed_version": version, "dagster/row_count": rows}
    instance.report_runless_asset_event(
        dg.AssetMaterialization(common.LANDED, partition="x", metadata=metadata)
    )


def published(instance: dg.DagsterInstance, version: str, **others: Any) -> None:
    materialise(instance, common.PUBLISHED, landed_version=version, **(MADE_FROM | others))


def asked(instance: dg.DagsterInstance, now: Present, look: Look = look_for_changes) -> dg.RunRequest:
    found = look(instance, LIMIT, now)
    assert isinstance(found, dg.RunRequest), found
    return found


def reason(instance: dg.DagsterInstance, now: Present, look: Look = look_for_changes) -> str:
    found = look(instance, LIMIT, now)
    assert isinstance(found, dg.SkipReason), found
    return found.skip_message or ""


@pytest.mark.parametrize("rows", [None, 0], ids=["nothing", "no row of the series"])
@pytest.mark.parametrize(
    ("look", "told"),
    [
        pytest.param(look_for_changes, "Nothing to forecast has landed yet.", id="forecasting"),
        pytest.param(look_for_retraining, "Nothing to learn from has landed yet.", id="training"),
    ],
)
def test_nothing_is_made_before_anything_landed(
    instance: dg.DagsterInstance, rows: int | None, look: Look, told: str
) -> None:
    if rows is not None:
        landed_version(instance, "v1", rows=rows)

    assert reason(instance, present(), look) == told


def test_what_is_published_already_is_left(instance: dg.DagsterInstance) -> None:
    landed_version(instance, "v1")
    published(instance, "v1")

    assert reason(instance, present()) == "What landed (version v1) is published already."


@pytest.mark.parametrize("before", [None, "v1"], ids=["first", "later"])
def test_what_is_not_published_is_refreshed(instance: dg.DagsterInstance, before: str | None) -> None:
    landed_version(instance, "v2")
    if before:
        published(instance, before)

    request = asked(instance, present())

    assert request.run_key == "v2 settings/1.0/1#1"
    assert request.tags == {
        jobs.CAUSE_TAG: "v2",
        jobs.MADE_WITH_TAG: "settings/1.0/1",
        jobs.ATTEMPT_TAG: "1",
    }


CHANGES = {
    "another ledger": (present(ledger_version="new"), "v1+new settings/1.0/1#1"),
    "other settings": (present(settings_version="others"), "v1 others/1.0/1#1"),
    "another release": (present(code_version="1.1"), "v1 settings/1.1/1#1"),
    "another champion": (present(model_version=2), "v1 settings/1.0/2#1"),
    "a snapshot that is gone": (present(is_whole=False), "v1 settings/1.0/1#1"),
}


@pytest.mark.parametrize(("now", "key"), CHANGES.values(), ids=list(CHANGES))
def test_whatever_the_published_depends_on_is_a_cause_of_its_own(
    instance: dg.DagsterInstance, now: Present, key: str
) -> None:
    landed_version(instance, "v1")
    published(instance, "v1")

    assert asked(instance, now).run_key == key


def test_a_ledger_taken_away_is_noticed(instance: dg.DagsterInstance) -> None:
    landed_version(instance, "v1")
    published(instance, "v1", ledger_version="old")

    assert asked(instance, present()).run_key == "v1 settings/1.0/1#1"


@pytest.mark.parametrize("look", [look_for_changes, look_for_retraining], ids=["forecasting", "training"])
@pytest.mark.parametrize("job", [jobs.INGEST, jobs.REFRESH, jobs.RETRAIN])
@pytest.mark.parametrize("status", UNFINISHED, ids=lambda status: status.value)
def test_both_wait_for_runs_under_way(
    instance: dg.DagsterInstance, look: Look, job: str, status: Status
) -> None:
    landed_version(instance, "v1")
    run = add_run(instance, job, status)

    assert (
        reason(instance, present(unusable="None."), look) == f"Waiting for the {job} run {run.run_id} to end."
    )


def test_without_a_champion_training_comes_first(instance: dg.DagsterInstance) -> None:
    landed_version(instance, "v1")
    now = present(model_version=None, unusable="There is no champion yet.")

    assert reason(instance, now) == "Training comes first: There is no champion yet."
    request = asked(instance, now, look_for_retraining)
    assert request.run_key == "v1 settings/1.0/None champion#1"
    assert request.tags[jobs.REASON_TAG] == "There is no champion yet."


ENDED = [Status.FAILURE, Status.CANCELED, Status.SUCCESS]


@pytest.mark.parametrize("status", ENDED, ids=lambda s: s.value)
def test_attempts_are_numbered_and_then_given_up(instance: dg.DagsterInstance, status: Status) -> None:
    landed_version(instance, "v1")
    keys = []
    for _ in range(LIMIT):
        request = asked(instance, present())
        keys.append(request.run_key)
        add_run(instance, jobs.REFRESH, status, **request.tags)

    assert keys == [f"v1 settings/1.0/1#{number}" for number in (1, 2, 3)]
    assert "Gave up on v1 settings/1.0/1 after 3 refresh runs" in reason(instance, present())


def test_a_changed_ledger_has_attempts_of_its_own(instance: dg.DagsterInstance) -> None:
    landed_version(instance, "v1")
    published(instance, "v1", ledger_version="old")
    for _ in range(LIMIT):
        add_run(instance, jobs.REFRESH, Status.FAILURE, **asked(instance, present()).tags)
    keys = []
    for _ in range(LIMIT):
        request = asked(instance, present(ledger_version="new"))
        keys.append(request.run_key)
        add_run(instance, jobs.REFRESH, Status.FAILURE, **request.tags)

    assert keys == [f"v1+new settings/1.0/1#{number}" for number in (1, 2, 3)]
    assert "Gave up on v1+new settings/1.0/1 after 3" in reason(instance, present(ledger_version="new"))
    assert "is published already" in reason(instance, present(ledger_version="old"))


def test_failures_of_another_version_do_not_count(instance: dg.DagsterInstance) -> None:
    landed_version(instance, "v1")
    for _ in range(LIMIT):
        add_run(instance, jobs.REFRESH, Status.FAILURE, **asked(instance, present()).tags)
    landed_version(instance, "v2")

    assert asked(instance, present()).run_key == "v2 settings/1.0/1#1"


def test_going_back_and_forth_between_champions_by_hand_is_never_given_up(
    instance: dg.DagsterInstance,
) -> None:
    landed_version(instance, "v1")
    published(instance, "v1")
    keys = []
    for number in range(4 * LIMIT):
        version = 2 - number % 2
        request = asked(instance, present(model_version=version))
        keys.append(request.run_key)
        add_run(instance, jobs.REFRESH, Status.SUCCESS, **request.tags)
        published(instance, "v1", model_version=version)

    assert len(set(keys)) == 4 * LIMIT


def test_a_run_that_never_publishes_what_is_present_is_given_up(instance: dg.DagsterInstance) -> None:
    """For example a daemon of one release, whose runs are started with another."""
    landed_version(instance, "v1")
    for _ in range(LIMIT):
        add_run(instance, jobs.REFRESH, Status.SUCCESS, **asked(instance, present()).tags)
        published(instance, "v1", code_version="0.9")

    assert "Gave up on v1" in reason(instance, present())


def test_a_success_after_failures_stays_quiet(instance: dg.DagsterInstance) -> None:
    landed_version(instance, "v1")
    for status in (Status.FAILURE, Status.SUCCESS):
        add_run(instance, jobs.REFRESH, status, **asked(instance, present()).tags)
    published(instance, "v1")

    assert "published already" in reason(instance, present())


def test_failures_of_the_command_line_count(instance: dg.DagsterInstance) -> None:
    landed_version(instance, "v1")
    tags = jobs.cause_tags("v1", MADE_FROM) | {
        jobs.PROCESS_TAG: "elsewhere:1"
    }  # as `turnover run` gives them
    add_run(instance, jobs.REFRESH, Status.FAILURE, **tags)

    assert asked(instance, present()).run_key == "v1 settings/1.0/1#2"


# Training ------------------------------------------------------------------------------------------


def verdict(instance: dg.DagsterInstance, cause: str, sentence: str) -> None:
    materialise(instance, common.RETRAINING, due=bool(cause), cause=cause, sentence=sentence)


def test_what_the_policy_says_is_done(instance: dg.DagsterInstance) -> None:
    landed_version(instance, "v1")
    published(instance, "v1")
    unasked = reason(instance, present(), look_for_retraining)
    verdict(instance, "", "Not due: young.")
    too_early = reason(instance, present(), look_for_retraining)
    verdict(instance, "age", "It is old.")

    request = asked(instance, present(), look_for_retraining)

    assert (unasked, too_early) == ("The policy has not been asked yet.", "Not due: young.")
    assert request.run_key == "v1 settings/1.0/1 age#1"
    assert request.tags == {
        **jobs.cause_tags("v1", MADE_FROM),
        jobs.TRAINING_TAG: "age",
        jobs.REASON_TAG: "It is old.",
        jobs.ATTEMPT_TAG: "1",
    }


def test_a_training_asked_for_is_done_once(instance: dg.DagsterInstance) -> None:
    landed_version(instance, "v1")
    published(instance, "v1")
    verdict(instance, "age", "It is old.")
    materialise(instance, common.CHAMPION)

    told = reason(instance, present(), look_for_retraining)

    assert told == "A model was trained since the policy asked for it."


@pytest.mark.parametrize("status", ENDED, ids=lambda s: s.value)
def test_attempts_at_training_are_numbered_and_given_up_until_something_changes(
    instance: dg.DagsterInstance, status: Status
) -> None:
    landed_version(instance, "v1")
    published(instance, "v1")
    verdict(instance, "history", "5.0% has changed.")
    keys = []
    for _ in range(LIMIT):
        request = asked(instance, present(), look_for_retraining)
        keys.append(request.run_key)
        add_run(instance, jobs.RETRAIN, status, **request.tags)
    given_up = reason(instance, present(), look_for_retraining)
    verdict(instance, "history", "6.0% has changed.")
    still = reason(instance, present(), look_for_retraining)
    landed_version(instance, "v2")

    assert keys == [f"v1 settings/1.0/1 history#{number}" for number in (1, 2, 3)]
    assert given_up == still
    assert "Gave up on v1 settings/1.0/1 history after 3 retrain runs" in given_up
    assert asked(instance, present(), look_for_retraining).run_key == "v2 settings/1.0/1 history#1"


def test_a_long_reason_is_cut_to_what_a_tag_holds(instance: dg.DagsterInstance) -> None:
    landed_version(instance, "v1")

    request = asked(instance, present(unusable="x" * 5000), look_for_retraining)

    assert len(request.tags[jobs.REASON_TAG]) == jobs.LONGEST_TAG


@pytest.mark.parametrize(("name", "key"), [("refresh_sensor", None), ("retrain_sensor", "champion#1")])
def test_the_same_state_gives_the_same_answer_at_every_tick(
    instance: dg.DagsterInstance, settings: Settings, name: str, key: str | None
) -> None:
    landed_version(instance, "v1")
    (sensor,) = (made for made in sensors.build(settings) if made.name == name)
    definitions = build_definitions(settings)

    with dg.build_sensor_context(instance, definitions=definitions) as context:
        ticks = [sensor.evaluate_tick(context) for _ in range(2)]

    said = [(tick.skip_message, [request.run_key for request in tick.run_requests or []]) for tick in ticks]
    assert said[0] == said[1]
    if key is None:
        assert said[0] == ("Training comes first: There is no champion yet.", [])
    else:
        assert said[0][1] == [f"v1 {settings.result_version}/{__version__}/None {key}"]


@pytest.mark.parametrize("name", ["refresh_sensor", "retrain_sensor"])
def test_a_ledger_that_cannot_be_read_is_a_reason(
    instance: dg.DagsterInstance, settings: Settings, name: str
) -> None:
    landed_version(instance, "v1")
    settings.ledger_path.mkdir()
    (sensor,) = (made for made in sensors.build(settings) if made.name == name)

    with dg.build_sensor_context(instance, definitions=build_definitions(settings)) as context:
        tick = sensor.evaluate_tick(context)

    assert tick.run_requests in (None, [])
    assert str(settings.ledger_path) in (tick.skip_message or "")


# Killed runs -------------------------------------------------------------------------------------


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_killed_run_of_the_command_line_keeps_no_sensor_waiting(daemon: Daemon, settings: Settings) -> None:
    drop(settings, "week.csv")
    tags = {jobs.PROCESS_TAG: f"{socket.gethostname()}:{dead_process()}"}
    run = add_run(daemon.instance, jobs.INGEST, Status.STARTED, **tags)

    assert len(daemon.ticks(2)) == 1
    assert daemon.instance.get_run_by_id(run.run_id).status == Status.FAILURE  # type: ignore[union-attr]


NOT_ORPHANED = {
    "no process known": {},
    "a process that works": {jobs.PROCESS_TAG: f"{socket.gethostname()}:{os.getpid()}"},
    "a process of another host": {jobs.PROCESS_TAG: "elsewhere:1"},
}


@pytest.mark.parametrize("tags", NOT_ORPHANED.values(), ids=NOT_ORPHANED.keys())
def test_a_run_that_may_work_is_left(instance: dg.DagsterInstance, tags: dict[str, str]) -> None:
    add_run(instance, jobs.INGEST, Status.STARTED, **tags)

    assert close_orphaned_runs(instance) == []
