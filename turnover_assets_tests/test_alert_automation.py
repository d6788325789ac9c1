"""Alerts at work: the sensors on real instances, the asset after a publishing, runs without a daemon."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test

from turnover_assets.core.alerts.channels import WebhookChannel
from turnover_assets.core.alerts.incidents import Incident
from turnover_assets.defs import alert_facts, alerts, common, jobs
from turnover_assets.defs.partitions import LANDED_FILES, range_tags
from turnover_assets.errors import TurnoverError
from turnover_assets.runner import bring_up_to_date
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.alert_rules import default_rules, rules_in_force
from turnover_assets.storage.measures import read_measures
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.alert_factories import hang, measured, webhook
from turnover_assets_tests.factories import Landed, next_week, quiet

Status = dg.DagsterRunStatus
ATTEMPTS = 3


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load_settings(home=tmp_path, sensor_attempts=ATTEMPTS)
    made.landing_path.mkdir()
    return made


def sensor(settings: Settings, name: str) -> dg.SensorDefinition:
    return next(found for found in alerts.build_sensors(settings) if found.name == name)


def tick(settings: Settings, instance: dg.DagsterInstance, name: str) -> str:
    """One tick of a sensor; what it said."""
    context = dg.build_sensor_context(instance=instance)
    found = sensor(settings, name).evaluate_tick(context)
    assert not found.run_requests
    return found.skip_message or ""


def failed_runs(settings: Settings, instance: dg.DagsterInstance) -> str:
    return tick(settings, instance, "failed_runs_sensor")


def others(settings: Settings, instance: dg.DagsterInstance) -> str:
    return tick(settings, instance, "alerts_sensor")


def open_now(settings: Settings) -> list[Incident]:
    return alerts.store_of(settings).open_incidents()


def logged(settings: Settings) -> list[Mapping[str, Any]]:
    path = settings.alerts_path / "alerts.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_run(
    instance: dg.DagsterInstance, job: str, status: Status, *, here: bool = False, **tags: str
) -> str:
    """A run that has ended so; `here` is one of `turnover run`, which belongs to no code location."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("turnover_assets"), "__repository__")
    origin = None if here else RemoteJobOrigin(repository, job)
    named = {f"turnover/{name}": value for name, value in tags.items()}
    run = create_run_for_test(
        instance, job_name=job, status=Status.STARTED, tags=named, remote_job_origin=origin
    )
    if status == Status.FAILURE:
        instance.report_run_failed(run, "the disk is full")
    elif status == Status.SUCCESS:
        event = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, job)
        instance.report_dagster_event(event, run.run_id)
    else:
        instance.report_run_canceled(run)
    return run.run_id


def write_rules(settings: Settings, text: str) -> None:
    settings.alert_rules_path.write_text(text, "utf-8")


# Failed runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("here", [False, True], ids=["of the daemon", "of turnover run"])
def test_a_failed_run_is_told_once_with_its_error(
    settings: Settings, instance: dg.DagsterInstance, here: bool
) -> None:
    add_run(instance, jobs.REFRESH, Status.FAILURE, here=here, landed_version="v1", attempt="2")

    said = [failed_runs(settings, instance) for _ in range(3)]

    assert said[0].startswith("1 open incidents, 1 opened; 1 of 1 messages sent")
    assert said[1:] == ["1 open incidents, nothing new"] * 2
    (message,) = logged(settings)
    assert message["severity"] == "critical"
    assert "of refresh failed (attempt 2 of 3): the disk is full" in message["lines"][0]


def test_further_attempts_for_one_cause_are_folded_and_success_ends_it(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    for attempt in "123":
        add_run(instance, jobs.REFRESH, Status.FAILURE, landed_version="v1", attempt=attempt)
        failed_runs(settings, instance)
    (incident,) = open_now(settings)
    add_run(instance, jobs.REFRESH, Status.SUCCESS, landed_version="v2")

    said = failed_runs(settings, instance)

    assert incident.count == 3
    assert "(attempt 3 of 3)" in incident.sentence
    assert "1 recovered" in said
    assert [message["kind"] for message in logged(settings)] == ["opened", "recovered"]
    assert open_now(settings) == []


def test_two_causes_are_two_incidents(settings: Settings, instance: dg.DagsterInstance) -> None:
    add_run(instance, jobs.REFRESH, Status.FAILURE, landed_version="v1")
    add_run(instance, jobs.RETRAIN, Status.FAILURE, landed_version="v1", training="age")

    failed_runs(settings, instance)

    assert {one.member for one in open_now(settings)} == {"refresh for v1", "retrain for v1, age"}


def test_what_failed_and_succeeded_between_two_looks_makes_no_noise(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    add_run(instance, jobs.REFRESH, Status.FAILURE, landed_version="v1")
    add_run(instance, jobs.REFRESH, Status.SUCCESS, landed_version="v1")

    assert failed_runs(settings, instance) == "0 open incidents, nothing new"


def test_a_run_that_was_cancelled_is_no_failure(settings: Settings, instance: dg.DagsterInstance) -> None:
    add_run(instance, jobs.REFRESH, Status.CANCELED)

    assert failed_runs(settings, instance) == "0 open incidents, nothing new"


def test_a_file_whose_landing_failed_stays_open_until_it_landed(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    keys = ["bad.csv@0123456789ab", "good.csv@ba9876543210"]
    instance.add_dynamic_partitions(str(LANDED_FILES.name), keys)
    for key, status in zip(keys, (Status.FAILURE, Status.SUCCESS), strict=True):
        run = create_run_for_test(
            instance, job_name=jobs.INGEST, status=Status.STARTED, tags=range_tags(key, key)
        )
        if status == Status.FAILURE:
            instance.report_run_failed(run, "boom")
        else:
            event = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, jobs.INGEST)
            instance.report_dagster_event(event, run.run_id)
    failed_runs(settings, instance)
    (before,) = open_now(settings)

    instance.report_runless_asset_event(dg.AssetMaterialization(common.LANDED, partition=keys[0]))
    failed_runs(settings, instance)

    assert before.member == "ingest for bad.csv@0123456789ab"
    assert open_now(settings) == []


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        pytest.param(TurnoverError, "It could not be written.", id="written for people"),
        pytest.param(RuntimeError, "ZeroDivisionError: division by zero", id="else the innermost"),
    ],
)
def test_the_error_of_a_failed_step_is_the_one_that_says_most(
    instance: dg.DagsterInstance, ours: type[Exception], expected: str
) -> None:
    @dg.op
    def breaks() -> None:
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError as error:
            raise ours("It could not be written.") from error

    @dg.job
    def breaking() -> None:
        breaks()

    result = breaking.execute_in_process(instance=instance, raise_on_error=False)

    assert alert_facts.error_of(instance, result.run_id).strip() == f"breaks: {expected}"


def test_a_run_that_says_nothing_has_an_error_all_the_same(instance: dg.DagsterInstance) -> None:
    run = create_run_for_test(instance, job_name="x", status=Status.FAILURE)

    assert alert_facts.error_of(instance, run.run_id) == alert_facts.NO_ERROR


# Lateness -------------------------------------------------------------------------------------------


@pytest.fixture
def ages(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how many days ago data landed and forecasts were published."""

    def put(landed: float | None, published: float | None) -> None:
        now = datetime.now(UTC)
        days = {common.LANDED: landed, common.PUBLISHED: published}
        monkeypatch.setattr(
            common,
            "latest_time",
            lambda _, key: None if days[key] is None else now - timedelta(days=days[key] or 0),
        )

    return put


@pytest.mark.parametrize(
    ("landed", "published", "rules"),
    [
        pytest.param(None, None, [], id="nothing yet"),
        pytest.param(8.9, 8.8, [], id="in time"),
        pytest.param(9.1, 9.05, ["data late"], id="old forecasts of old data are no news"),
        pytest.param(1, 9.1, ["forecast late"], id="new data, no forecast"),
        pytest.param(16.1, 1, ["data very late"], id="a period later"),
        pytest.param(1, 16.1, ["forecast very late"], id="no forecast for a period more"),
    ],
)
def test_data_and_forecasts_are_late_as_their_policy_says(
    settings: Settings,
    instance: dg.DagsterInstance,
    ages: Any,
    landed: float | None,
    published: float | None,
    rules: list[str],
) -> None:
    ages(landed, published)

    others(settings, instance)

    assert [one.rule for one in open_now(settings)] == rules


def test_lateness_grows_worse_and_ends_with_the_next_data(
    settings: Settings, instance: dg.DagsterInstance, ages: Any
) -> None:
    said = []
    for landed in (10, 10, 17, 0.1):
        ages(landed, landed)
        said.append(others(settings, instance))

    kinds = [message["kind"] for message in logged(settings)]
    assert kinds == ["opened", "escalated", "recovered"]
    assert "nothing new" in said[1]


def test_the_time_of_an_asset_is_that_of_its_newest_event(instance: dg.DagsterInstance) -> None:
    assert common.latest_time(instance, common.PUBLISHED) is None

    instance.report_runless_asset_event(dg.AssetMaterialization(common.PUBLISHED))

    found = common.latest_time(instance, common.PUBLISHED)
    assert found is not None
    assert abs(datetime.now(UTC) - found) < timedelta(minutes=1)


# Files and checks -----------------------------------------------------------------------------------


def land(instance: dg.DagsterInstance, key: str, **metadata: str) -> None:
    instance.add_dynamic_partitions(str(LANDED_FILES.name), [key])
    instance.report_runless_asset_event(
        dg.AssetMaterialization(common.LANDED, partition=key, metadata=metadata)
    )


def test_a_refused_file_is_told_until_it_is_corrected(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    (settings.landing_path / "week.csv").write_text("a")
    land(instance, "week.csv@0123456789ab", status="refused", reason="no columns")
    others(settings, instance)
    (before,) = open_now(settings)
    land(instance, "week.csv@ba9876543210", status="accepted")

    others(settings, instance)

    assert before.sentence == "The file week.csv was refused: no columns"
    assert open_now(settings) == []
    assert [message["kind"] for message in logged(settings)] == ["opened", "recovered"]


def test_a_refused_file_that_is_taken_out_is_over(settings: Settings, instance: dg.DagsterInstance) -> None:
    path = settings.landing_path / "week.csv"
    path.write_text("a")
    land(instance, "week.csv@0123456789ab", status="refused", reason="no columns")
    others(settings, instance)
    path.unlink()

    others(settings, instance)

    assert open_now(settings) == []


@pytest.mark.parametrize("passed", [True, False])
def test_a_failed_check_is_told_to_the_log(
    settings: Settings, instance: dg.DagsterInstance, passed: bool
) -> None:
    key = common.cleaned_key("turnover")
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            key, "no_rows_ahead", passed=passed, metadata={}, description="Found 3.", blocking=False
        )
    )

    others(settings, instance)

    expected = [] if passed else [("info", "The check cleaned/turnover no_rows_ahead failed: Found 3.")]
    assert [(one.severity, one.sentence) for one in open_now(settings)] == expected


# Deliveries, and a broken file ----------------------------------------------------------------------


def test_what_could_not_be_sent_is_sent_by_a_later_tick(
    settings: Settings, instance: dg.DagsterInstance, ages: Any
) -> None:
    with webhook(500, 200) as endpoint:
        write_rules(settings, f'[channels.webhook]\nurl = "{endpoint.url}"\n')
        ages(10, 10)

        first = others(settings, instance)
        con_store = alerts.store_of(settings)
        (waiting,) = con_store.deliveries(under_way=True)
        with con_store._transaction() as con:  # as if its time had come
            con.execute("UPDATE deliveries SET next_at = 0 WHERE delivered_at IS NULL")
        second = failed_runs(settings, instance)

    assert "webhook failed: the answer was 500" in first
    assert "SECRET" not in first
    assert waiting.attempts == 1
    assert "1 of 1 messages sent" in second
    assert len(endpoint.got) == 2


def test_a_tick_is_bounded_where_an_endpoint_hangs(settings: Settings, instance: dg.DagsterInstance) -> None:
    for number in range(8):
        add_run(instance, jobs.REFRESH, Status.FAILURE, landed_version=f"v{number}")
    with webhook(hang(2)) as endpoint:
        write_rules(settings, f'[channels.webhook]\nurl = "{endpoint.url}"\ntimeout_seconds = 0.2\n')

        began = datetime.now(UTC)
        said = failed_runs(settings, instance)

    assert datetime.now(UTC) - began < timedelta(seconds=3)
    assert len(endpoint.got) == 1
    assert f"of {alerts.MESSAGES_A_TICK} messages sent" in said


def test_a_broken_file_is_what_the_tick_says(settings: Settings, instance: dg.DagsterInstance) -> None:
    write_rules(settings, "[[rule]]\nname = 'x'\n")

    for said in (failed_runs(settings, instance), others(settings, instance)):
        assert "rule 1 (x): names no measure and no event" in said


# The asset ------------------------------------------------------------------------------------------


def put_measures(settings: Settings, table: pd.DataFrame) -> None:
    """Add a table of measures to the current snapshot, as one that is published with it."""
    snapshot = current(settings.published_path)
    path = snapshot.folder / "measures.parquet"
    table.to_parquet(path, index=False)
    facts = {
        **snapshot.facts,
        "tables": {**snapshot.facts["tables"], "measures": {"bytes": path.stat().st_size}},
    }
    (snapshot.folder / "snapshot.json").write_text(json.dumps(facts))


def evaluate(settings: Settings, instance: dg.DagsterInstance) -> Mapping[str, Any]:
    """Run the asset as a job does; its metadata."""
    result = dg.materialize(alerts.build(settings), instance=instance, raise_on_error=False)
    if not result.success:
        raise TurnoverError(alert_facts.error_of(instance, result.run_id))
    (event,) = result.asset_materializations_for_node("monitoring__alerts")
    return {name: value.value for name, value in event.metadata.items()}


@pytest.fixture
def published(plain: Landed, tmp_path: Path) -> Settings:
    """A home with a snapshot of one's own, and nothing else."""
    made = load_settings(home=tmp_path)
    shutil.copytree(plain.settings.published_path, made.published_path)
    return made


def test_before_anything_was_measured_the_asset_says_so(
    published: Settings, instance: dg.DagsterInstance
) -> None:
    facts = current(published.published_path).folder / "snapshot.json"
    earlier = json.loads(facts.read_text())
    del earlier["tables"]["measures"]
    facts.write_text(json.dumps(earlier))

    found = evaluate(published, instance)

    assert found["cutoff"] == "Nothing was measured yet."
    assert (found["open"], found["sent"]) == (0, 0)


def test_the_asset_opens_and_ends_incidents_by_what_is_published(
    published: Settings, instance: dg.DagsterInstance
) -> None:
    put_measures(published, measured({"": [0.6, 0.61, 0.62]}))
    first = evaluate(published, instance)
    put_measures(published, measured({"": [0.8, 0.6, 0.61, 0.62]}))
    second = evaluate(published, instance)

    assert (first["open"], first["opened"], first["sent"]) == (1, 1, 1)
    assert "intervals too narrow" in first["open_incidents"]
    assert (second["open"], second["recovered"]) == (0, 1)
    assert [message["kind"] for message in logged(published)] == ["opened", "recovered"]


def test_a_delivery_that_fails_leaves_the_asset_green(
    published: Settings, instance: dg.DagsterInstance
) -> None:
    put_measures(published, measured({"": [0.6, 0.61, 0.62]}))
    with webhook(500) as endpoint:
        write_rules(published, f'[channels.webhook]\nurl = "{endpoint.url}"\n')

        found = evaluate(published, instance)

    assert (found["sent"], found["not_sent"]) == (1, 1)


def test_where_the_file_is_broken_the_shipped_rules_apply_and_the_reason_is_told(
    published: Settings, instance: dg.DagsterInstance
) -> None:
    put_measures(published, measured({"": [0.6, 0.61, 0.62]}))
    write_rules(published, "fold_above = 0\n")

    found = evaluate(published, instance)
    rules, problem = rules_in_force(published.alert_rules_path, published.panel_spec)

    assert found["sent"] == 1  # to the log
    assert len(logged(published)) == 1
    assert rules.rules == default_rules(published.panel_spec)
    assert "fold_above: Input should be greater" in problem


def test_what_only_a_broken_file_knows_of_waits_until_it_is_mended(
    published: Settings, instance: dg.DagsterInstance
) -> None:
    put_measures(published, measured({"": [3.0, 3.0, 3.0]}, "largest_psi"))
    own = '[[rule]]\nname = "mine"\nmeasure = "largest_psi"\nabove = 1.0\n'
    write_rules(published, own)
    evaluate(published, instance)
    store = alerts.store_of(published)
    message = store.deliveries()[0].message
    store.enqueue(message, {"webhook": WebhookChannel(url="https://hooks.example.com/x")})
    store.enqueue_once("a workbook", message, "workbook")

    write_rules(published, "[channels.webhook")
    evaluate(published, instance)
    waiting = {one.channel: one.state for one in store.deliveries() if one.channel != "log"}
    still_open = {incident.rule for incident in store.open_incidents()}
    write_rules(published, own)
    evaluate(published, instance)

    assert waiting == {"webhook": "pending", "workbook": "pending"}
    assert "mine" in still_open
    assert {one.state for one in store.deliveries() if one.channel != "log"} == {"given up"}  # by the file


def test_what_a_rule_of_a_broken_file_has_found_is_not_ended_by_a_shipped_one(
    published: Settings, instance: dg.DagsterInstance
) -> None:
    put_measures(published, measured({"": [1.15, 1.15, 1.15]}, "wape_over_promised"))
    own = '[[rule]]\nname = "strict"\nmeasure = "wape_over_promised"\nabove = 1.1\n'
    write_rules(published, own)
    evaluate(published, instance)
    (before,) = alerts.store_of(published).open_incidents()

    write_rules(published, "[channels.webhook")
    evaluate(published, instance)

    assert before.rule == "strict"
    assert alerts.store_of(published).open_incidents() == [before]


def test_only_measures_that_rules_ask_for_are_read(published: Settings) -> None:
    others = [measured({"": [2.0]}, "bias"), measured({"1": [3.0]}, "bias", level="store")]
    put_measures(published, pd.concat([measured({"": [1.0] * 70}), *others]))

    found = read_measures(published.published_path, {"bias"}, {"total"})
    nothing = read_measures(published.published_path, set(), set())

    assert found.rows["value"].tolist() == [2.0]
    assert len(found.cutoffs) == len(nothing.cutoffs) == 60
    assert nothing.rows.empty


# Without a daemon -----------------------------------------------------------------------------------


def kinds(settings: Settings) -> Sequence[str]:
    return [f"{message['kind']}: {message['title'].split(': ')[1]}" for message in logged(settings)]


@pytest.mark.slow
def test_turnover_run_tells_of_its_own_failure_and_of_its_end(copied: Landed) -> None:
    settings = copied.settings
    before = current(settings.published_path).facts["cutoff"]
    (copied.folder / "next.csv").write_text(next_week(copied))
    aside = settings.alerts_path.rename(settings.home / "aside")
    settings.alerts_path.write_text("a file where the folder should be")
    with pytest.raises(TurnoverError, match="cannot be read or written"):
        bring_up_to_date(settings, copied.folder, quiet)
    published = current(settings.published_path).facts["cutoff"]
    settings.alerts_path.unlink()
    aside.rename(settings.alerts_path)
    with dg.DagsterInstance.from_config(str(settings.dagster_path)) as instance:
        assert alerts.after_run(settings, instance) == ""
    (told,) = [one for one in open_now(settings) if one.family == "run_failed"]
    (copied.folder / "one more.csv").write_text(next_week(copied, ahead=2))

    bring_up_to_date(settings, copied.folder, quiet)

    assert published > before  # alerts that fail hold up no publishing
    assert "monitoring/alerts: " in told.sentence
    assert [one for one in open_now(settings) if one.family == "run_failed"] == []
    assert "recovered: run failed" in kinds(settings)


def test_what_goes_wrong_with_alerts_after_a_run_is_said_and_never_raised(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    settings.alerts_path.write_text("a file where the folder should be")

    assert "cannot be read or written" in alerts.after_run(settings, instance)
