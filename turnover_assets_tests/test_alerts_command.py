"""`turnover alerts`: what it shows, and what it says where something does not work."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import Result
from dagster._core.test_utils import create_run_for_test
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core.alerts.channels import Channel
from turnover_assets.storage.alert_store import AlertStore
from turnover_assets_tests.alert_factories import message, rules_of, webhook
from turnover_assets_tests.test_alert_delivery import settle


@pytest.fixture
def store(tmp_path: Path) -> AlertStore:
    return AlertStore(tmp_path / "alerts" / "alerts.sqlite")


def alerts(home: Path, *arguments: str, **environment: str) -> Result:
    variables = {"TURNOVER_HOME": str(home), **{f"TURNOVER_{k}": v for k, v in environment.items()}}
    return CliRunner().invoke(app, ["alerts", *arguments], env=variables)


def listed(home: Path, *arguments: str) -> list[dict[str, Any]]:
    result = alerts(home, "list", "--format", "json", *arguments)
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


# list -----------------------------------------------------------------------------------------------


def test_without_incidents_the_list_says_so(tmp_path: Path) -> None:
    shown = alerts(tmp_path, "list")

    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "Nothing is wrong, and nothing was in the last 30 days." in shown.stderr
    assert listed(tmp_path) == []
    assert not (tmp_path / "alerts").exists()


def test_the_list_shows_incidents_with_what_became_of_their_messages(
    tmp_path: Path, store: AlertStore
) -> None:
    settle(store, 0.2)

    (row,) = listed(tmp_path)

    assert (row["state"], row["severity"], row["value"], row["count"]) == ("open", "warning", 0.2, 1)
    assert row["sentence"] == "Bias is +20.0 % in total (limit 10 %)."
    assert [(one["kind"], one["channel"], one["state"]) for one in row["messages"]] == [
        ("opened", "log", "pending")
    ]
    assert "Bias is +20.0 % in total" in alerts(tmp_path, "list").stdout


def test_the_list_as_csv_has_a_line_for_each(tmp_path: Path, store: AlertStore) -> None:
    settle(store, 0.2)

    (row,) = csv.DictReader(io.StringIO(alerts(tmp_path, "list", "--format", "csv").stdout))

    assert (row["incident"], row["rule"], row["messages"]) == ("1", "rule 1", "opened log pending")


def test_what_ended_long_ago_is_left_out(tmp_path: Path, store: AlertStore) -> None:
    settle(store, 0.2, -100)
    settle(store, 0.0, -93)  # about the present of these tests; ninety-three days before it

    assert listed(tmp_path, "--days", "0") == []
    assert [row["state"] for row in listed(tmp_path, "--days", "100000")] == ["ended"]


# check ----------------------------------------------------------------------------------------------


def test_check_says_what_applies_without_a_file(tmp_path: Path) -> None:
    result = alerts(tmp_path, "check")

    assert result.exit_code == 0
    assert "alerts.toml is not there, so the shipped rules apply: 15 rules, messages to log." in result.stderr


def test_check_lists_all_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "alerts.toml").write_text('[[rule]]\nname = "x"\nmeasure = "y"\n')

    result = alerts(tmp_path, "check")

    assert result.exit_code == 1
    assert "rule 1 (x): has no limit" in result.stderr
    assert "rule 1 (x), measure: 'y' is not known" in result.stderr


def test_check_tells_of_a_secret_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "alerts.toml").write_text("[channels.webhook]\n")

    without = alerts(tmp_path, "check")
    with_one = alerts(tmp_path, "check", ALERT_WEBHOOK_URL="https://example.com/verysecret")

    assert (without.exit_code, with_one.exit_code) == (1, 0)
    assert "channels.webhook: has no address: set url_file, or the variable" in without.stderr
    assert "is valid: 15 rules, messages to log, webhook." in with_one.stderr
    assert "verysecret" not in with_one.output


# test and send --------------------------------------------------------------------------------------


def test_test_says_which_channels_work(tmp_path: Path) -> None:
    with webhook(200, 404) as endpoint:
        (tmp_path / "alerts.toml").write_text("[channels.webhook]\n")
        good = alerts(tmp_path, "test", ALERT_WEBHOOK_URL=endpoint.url)
        bad = alerts(tmp_path, "test", ALERT_WEBHOOK_URL=endpoint.url)

    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert good.stderr.split() == ["sent", "log", "sent", "webhook"]
    assert "webhook: the answer was 404" in bad.stderr
    assert "SECRET" not in bad.output
    assert endpoint.got[0]["text"] == "Test: alerts of turnover-assets arrive here"


def test_send_sends_what_waits_and_says_what_is_left(tmp_path: Path, store: AlertStore) -> None:
    channels: dict[str, Channel] = dict(rules_of(channels={"webhook": {}}).channels)
    store.enqueue(message(), channels)
    with webhook(500, 200) as endpoint:
        (tmp_path / "alerts.toml").write_text("[channels.webhook]\n")
        first = alerts(tmp_path, "send", ALERT_WEBHOOK_URL=endpoint.url)
        second = alerts(tmp_path, "send", ALERT_WEBHOOK_URL=endpoint.url)  # though its time has not come

    assert (first.exit_code, second.exit_code) == (1, 0)
    assert "1 sent, 1 still waiting." in first.stderr
    assert "1 sent, 0 still waiting." in second.stderr


def test_send_without_anything_to_send_says_so(tmp_path: Path) -> None:
    result = alerts(tmp_path, "send")

    assert result.exit_code == 0
    assert "0 sent, 0 still waiting." in result.stderr


# close ----------------------------------------------------------------------------------------------


def test_an_incident_can_be_closed(tmp_path: Path, store: AlertStore) -> None:
    settle(store, 0.2)

    done, again = alerts(tmp_path, "close", "1"), alerts(tmp_path, "close", "1")

    assert (done.exit_code, again.exit_code) == (0, 1)
    assert "Closed: Bias is +20.0 % in total" in done.stderr
    assert "There is no open incident named '1'" in again.stderr


# look -----------------------------------------------------------------------------------------------


def test_look_does_what_the_sensors_do(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = alerts(home, "look")
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        run = create_run_for_test(instance, job_name="refresh", status=dg.DagsterRunStatus.STARTED)
        instance.report_run_failed(run, "the disk is full")

    second = alerts(home, "look")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "0 open incidents, nothing new." in first.stderr
    assert "1 open incidents, 1 opened; 1 of 1 messages sent." in second.stderr
    assert "of refresh failed: the disk is full" in second.stderr
    assert (home / "alerts" / "alerts.log").read_text().count("\n") == 1
