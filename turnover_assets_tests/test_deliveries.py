"""Deliveries: what is published reaches bucket and database, and a place that is away harms nothing else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from pydantic import SecretStr
from rich.console import Console

from turnover_assets.definitions import build_definitions
from turnover_assets.defs import common, deliveries, jobs, sensors
from turnover_assets.defs.deliveries import OBJECT_STORE, POSTGRES, look_for_deliveries, undelivered
from turnover_assets.embedded import open_instance
from turnover_assets.reporting import outcome_facts, print_outcome
from turnover_assets.runner import Outcome, bring_up_to_date
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.postgres_copy import Database
from turnover_assets.storage.snapshot_mirror import bring_served, mirrored_name
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.api_factories import client_of, publish
from turnover_assets_tests.factories import Landed, next_week, quiet
from turnover_assets_tests.servers import Bucket, PostgresServer, connected
from turnover_assets_tests.test_doctor import look

NOWHERE = "s3://no-such-bucket-here/published"
UNSEEN = SecretStr("postgresql://admin:verysecret@127.0.0.1:9/none")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are not tried again after some seconds."""
    monkeypatch.setattr(deliveries, "RETRIES", dg.RetryPolicy(max_retries=1))


def with_settings(home: Landed, **others: Any) -> Settings:
    return home.settings.model_copy(update=others)


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """An empty database of one's own."""
    name = f"test_{uuid4().hex[:12]}"
    with connected(postgres.url("postgres")) as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    return postgres.url(name)


# What there is -----------------------------------------------------------------------------------


def test_without_places_there_is_nothing_of_it() -> None:
    made = build_definitions(load_settings())

    assert deliveries.build(load_settings()) == []
    assert jobs.DELIVER not in {job.name for job in made.jobs or []}
    assert deliveries.SENSOR not in {sensor.name for sensor in made.sensors or []}


def test_each_place_is_an_asset_in_a_job_of_its_own() -> None:
    settings = load_settings(publish_url=NOWHERE, postgres_url=UNSEEN)
    made = build_definitions(settings)
    graph = made.resolve_asset_graph()

    found = {
        name: set(made.resolve_job_def(name).asset_layer.executable_asset_keys)
        for name in (jobs.DELIVER, jobs.REFRESH, jobs.RETRAIN, jobs.BACKFILL)
    }

    places = {OBJECT_STORE, POSTGRES}
    assert found.pop(jobs.DELIVER) == places
    assert not set().union(*found.values()) & places
    for key in places:
        node = graph.get(key)
        assert node.parent_keys == {common.PUBLISHED}
        assert node.pools == {deliveries.POOL}
        assert (node.group_name, bool(node.description), bool(node.owners)) == (key.path[0], True, True)
    assert deliveries.SENSOR in {sensor.name for sensor in made.sensors or []}


# Bringing a home up to date ----------------------------------------------------------------------


@pytest.mark.postgres
def test_a_run_delivers_and_the_next_has_nothing_to_do(copied: Landed, bucket: Bucket, url: str) -> None:
    settings = with_settings(copied, publish_url=f"{bucket.url}/published", postgres_url=SecretStr(url))

    first = bring_up_to_date(settings, copied.folder, quiet)
    again = bring_up_to_date(settings, copied.folder, quiet)

    name = current(settings.published_path).name
    assert (first.refreshed, first.undelivered) == (False, "")
    assert first.delivered == (settings.publish_url, Database(SecretStr(url), "turnover").place)
    assert first.changed
    assert (again.delivered, again.changed) == ((), False)
    assert mirrored_name(f"{bucket.url}/published") == Database(SecretStr(url), "turnover").current() == name
    assert [f.level for check in ("published store", "postgres copy") for f in look(settings, check)] == [
        "ok"
    ] * 2
    assert not [problem for problem in _logged(settings) if "a-secret-key" in problem or "p@ss" in problem]


def _logged(settings: Settings) -> list[str]:
    """Everything that Dagster's records of the home say, as text."""
    with open_instance(settings) as instance:
        runs = instance.get_runs()
        return [str(entry.to_json()) for run in runs for entry in instance.all_logs(run.run_id)]


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_place_that_is_away_harms_nothing_else_and_is_told(copied: Landed, bucket: Bucket) -> None:
    settings = with_settings(copied, publish_url=f"{bucket.url}/published", postgres_url=UNSEEN)
    (copied.folder / "next.csv").write_text(next_week(copied))

    outcome = bring_up_to_date(settings, copied.folder, quiet)

    published = current(settings.published_path)
    assert outcome.refreshed
    assert outcome.snapshot == published
    assert mirrored_name(f"{bucket.url}/published") == published.name
    assert outcome.delivered == (f"{bucket.url}/published",)
    assert "127.0.0.1:9/none (schema turnover) cannot be brought up to date" in outcome.undelivered
    assert "Connection refused" in outcome.undelivered
    assert not [text for text in (outcome.undelivered, *_logged(settings)) if "verysecret" in text]
    _is_shown(settings, outcome)


def _is_shown(settings: Settings, outcome: Outcome) -> None:
    console = Console(record=True, width=200)
    print_outcome(console, settings, outcome)
    shown = console.export_text()
    assert "not delivered The tables in postgresql://127.0.0.1:9/none" in shown
    assert f"Delivered  {settings.publish_url}" in shown
    warnings = [message for level, message, _ in outcome_facts(outcome) if level == "WARNING"]
    assert [message for message in warnings if message.startswith("not delivered: ")]


@pytest.mark.usefixtures("impatient")
def test_a_mirror_that_failed_is_made_by_the_next_run(copied: Landed, bucket: Bucket) -> None:
    away = bring_up_to_date(with_settings(copied, publish_url=NOWHERE), copied.folder, quiet)
    settings = with_settings(copied, publish_url=f"{bucket.url}/published")

    outcome = bring_up_to_date(settings, copied.folder, quiet)

    assert "The specified bucket does not exist" in away.undelivered
    assert (outcome.refreshed, outcome.undelivered) == (False, "")
    assert mirrored_name(f"{bucket.url}/published") == current(settings.published_path).name


# The sensor --------------------------------------------------------------------------------------


def test_the_sensor_asks_once_and_waits_longer_after_each_failure(copied: Landed) -> None:
    settings = with_settings(copied, publish_url=NOWHERE, sensor_interval_seconds=30)

    with open_instance(settings) as instance:
        asked, waits = [], []
        for _ in range(4):
            request = look_for_deliveries(instance, settings, datetime.now(UTC) + timedelta(hours=7))
            assert isinstance(request, dg.RunRequest)
            asked.append(request)
            _fail(instance, request)
            waiting = look_for_deliveries(instance, settings, datetime.now(UTC))
            assert isinstance(waiting, dg.SkipReason)
            waits.append(waiting.skip_message or "")

    assert len({request.run_key for request in asked}) == 4
    assert [request.tags[jobs.ATTEMPT_TAG] for request in asked] == ["1", "2", "3", "4"]
    assert f"is not yet in {NOWHERE}. Attempt 1 failed; the next is due at" in waits[0]
    assert [deliveries.wait_after(n, settings).total_seconds() for n in (1, 2, 3, 4, 50)] == [
        60,
        120,
        240,
        480,
        6 * 3600,
    ]


def test_an_old_attempt_that_was_started_again_does_not_stop_the_sensor(copied: Landed) -> None:
    settings = with_settings(copied, publish_url=NOWHERE)
    later = datetime.now(UTC) + timedelta(hours=7)

    with open_instance(settings) as instance:
        asked = []
        for _ in range(3):
            request = look_for_deliveries(instance, settings, later)
            assert isinstance(request, dg.RunRequest)
            asked.append(request)
            _fail(instance, request)
        _fail(instance, asked[0])  # as Dagster's page starts it again, with the tags that it had
        again = look_for_deliveries(instance, settings, later)

    assert isinstance(again, dg.RunRequest)
    assert again.run_key not in {request.run_key for request in asked}  # or Dagster would drop it
    assert again.tags[jobs.ATTEMPT_TAG] == "5"


def _fail(instance: dg.DagsterInstance, request: dg.RunRequest) -> None:
    run = instance.add_run(
        dg.DagsterRun(job_name=jobs.DELIVER, tags=request.tags, status=dg.DagsterRunStatus.STARTED)
    )
    instance.report_run_failed(run)


def test_what_is_delivered_is_not_asked_for_until_another_is_published_or_another_place_named(
    copied: Landed, bucket: Bucket
) -> None:
    settings = with_settings(copied, publish_url=f"{bucket.url}/published")
    bring_up_to_date(settings, copied.folder, quiet)

    with open_instance(settings) as instance:
        done = look_for_deliveries(instance, settings, datetime.now(UTC))
        elsewhere = undelivered(instance, with_settings(copied, publish_url=NOWHERE))
        publish(settings.published_path, current(settings.published_path))
        newer = undelivered(instance, settings)

    assert isinstance(done, dg.SkipReason)
    assert elsewhere is not None
    assert elsewhere.places == (NOWHERE,)
    assert newer is not None
    assert newer.snapshot == current(settings.published_path).name


def test_before_anything_is_published_there_is_nothing_to_deliver(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, publish_url=NOWHERE)

    with dg.DagsterInstance.ephemeral() as instance:
        assert isinstance(look_for_deliveries(instance, settings, datetime.now(UTC)), dg.SkipReason)


# Landing from a store ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_lands_what_is_in_the_store(copied: Landed, bucket: Bucket) -> None:
    bucket.put("landing/next.csv", next_week(copied))
    settings = with_settings(copied, landing_url=f"{bucket.url}/landing")
    settings.landing_path.mkdir(exist_ok=True)
    before = bucket.state()

    other = bring_up_to_date(settings, copied.folder, quiet)  # a folder that was named, not the watched one
    outcome = bring_up_to_date(settings, settings.landing_path, quiet)

    assert other.landed == ()
    assert [(record.name, record.status) for record in outcome.landed] == [("next.csv", "accepted")]
    assert outcome.refreshed
    assert bucket.state() == before
    assert [f.level for f in look(settings, "landing store")] == ["ok"]


def test_the_sensor_lands_what_is_in_the_store_and_says_why_it_cannot(
    copied: Landed, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_settings(copied, landing_url=f"{bucket.url}/landing")
    settings.landing_path.mkdir(exist_ok=True)
    bucket.put("landing/2024/next.csv", next_week(copied))

    nowhere = with_settings(copied, landing_url="s3://no-such-bucket-here")
    with dg.DagsterInstance.ephemeral() as instance:
        away = sensors.look_for_files(instance, None, nowhere)
        first = sensors.look_for_files(instance, None, settings)
        assert isinstance(first, dg.SensorResult)
        second = sensors.look_for_files(instance, first.cursor, settings)
        assert isinstance(second, dg.SensorResult)
        (settings.landing_path / "by-hand.csv").write_text("shop;amount\n1;2\n")
        third = sensors.look_for_files(instance, second.cursor, nowhere)
        assert isinstance(third, dg.SensorResult)
        fourth = sensors.look_for_files(instance, third.cursor, nowhere)
        assert isinstance(fourth, dg.SensorResult)

    (request,) = second.run_requests or []
    assert request.tags[jobs.FILES_TAG] == "1"
    (partitions,) = second.dynamic_partitions_requests or []
    (key,) = partitions.partition_keys
    assert key.startswith("2024/next.csv@")
    assert isinstance(away, dg.SensorResult)
    assert "cannot be listed: The specified bucket does not exist" in str(away.skip_reason)
    (local,) = fourth.dynamic_partitions_requests or []
    assert any(key.startswith("by-hand.csv@") for key in local.partition_keys)  # what is in the folder lands


# Following from elsewhere, and the doctor --------------------------------------------------------


def test_another_machine_follows_what_a_home_publishes(
    copied: Landed, bucket: Bucket, tmp_path: Path
) -> None:
    settings = with_settings(copied, publish_url=f"{bucket.url}/published")
    bring_up_to_date(settings, copied.folder, quiet)
    reader = load_settings(home=tmp_path / "reader", snapshots_url=settings.publish_url)

    bring_served(reader)

    own, found = current(settings.published_path), current(reader.served_path)
    assert found.name == own.name
    assert settings.served_path == settings.published_path
    for table in own.facts["tables"]:
        assert found.path(table).read_bytes() == own.path(table).read_bytes()
    assert [f.level for f in look(reader, "followed store")] == ["ok"]


def test_the_rest_api_follows_a_store_and_goes_on_while_it_is_away(
    copied: Landed, bucket: Bucket, tmp_path: Path
) -> None:
    settings = with_settings(copied, publish_url=f"{bucket.url}/published")
    bring_up_to_date(settings, copied.folder, quiet)
    published = current(settings.published_path)
    reader = load_settings(home=tmp_path / "reader", snapshots_url=settings.publish_url)

    with client_of(reader) as client:
        first = client.get("/v1/snapshot")
        bucket.delete("published/CURRENT")
        problem = client.app.state.follower.refresh().problem
        again = client.get("/v1/snapshot")

    served = [answer.headers["X-Turnover-Snapshot"] for answer in (first, again)]
    assert served == [published.name, published.name]
    assert "Nothing has been published" in problem


CHECKS = {
    "landing store": {"landing_url": "s3://no-such-bucket-here/in"},
    "published store": {"publish_url": NOWHERE},
    "followed store": {"snapshots_url": NOWHERE},
    "model store": {"artifacts_url": "s3://no-such-bucket-here/models"},
    "postgres copy": {"postgres_url": UNSEEN},
}


@pytest.mark.parametrize(("name", "places"), CHECKS.items(), ids=CHECKS.keys())
def test_the_doctor_tells_of_a_place_that_cannot_be_reached(
    bucket: Bucket, tmp_path: Path, name: str, places: dict[str, Any]
) -> None:
    (found,) = look(load_settings(home=tmp_path, **places), name)

    assert found.level == "problem"
    assert "cannot be" in found.found
    assert "verysecret" not in found.found
    assert look(load_settings(home=tmp_path), name) == []


def test_the_doctor_warns_of_what_is_not_delivered_yet(plain: Landed, bucket: Bucket) -> None:
    (found,) = look(with_settings(plain, publish_url=f"{bucket.url}/published"), "published store")

    assert found.level == "warning"
    assert f"holds nothing yet, and not yet {current(plain.settings.published_path).name}" in found.found
