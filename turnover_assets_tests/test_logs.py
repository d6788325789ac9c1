"""Logs as JSON lines: their form, what they hide, and every line of real runs."""

import json
import logging
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnover_assets.core.log_lines import log_line, relayed_line, without_secrets
from turnover_assets.defs import jobs
from turnover_assets.observability.run_logs import TerminalHandler
from turnover_assets.settings import wanted_log_format
from turnover_assets.storage.home import shipped_file
from turnover_assets.ui import PIPED, _relay
from turnover_assets_tests.factories import QUICK, Landed, next_week

AT = datetime(2030, 1, 1, 12, tzinfo=UTC)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
MODULE = [sys.executable, "-m", "turnover_assets.cli"]


# The form of a line ------------------------------------------------------------------------------


@given(st.text(), st.dictionaries(st.sampled_from(["a", "b"]), st.text() | st.floats() | st.none()))
def test_a_line_is_one_object_on_one_line(message: str, facts: dict[str, Any]) -> None:
    line = log_line(AT, "INFO", message, **facts)

    assert len(line.splitlines()) == 1 or "\u2028" in line or "\x85" in line or "\u2029" in line
    assert "\n" not in line
    found = json.loads(line, parse_constant=pytest.fail)
    assert TIME.fullmatch(found["time"])
    assert all(found[name] is None or name in facts for name in found.keys() - {"time", "level", "message"})


def test_time_is_told_in_utc() -> None:
    there = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    assert json.loads(log_line(there, "INFO", ""))["time"] == "2030-01-01T10:00:00.000000Z"


SECRETS = {
    "an address": "postgresql://ada:hunter2@db:5432/x",
    "a webhook": "POST https://hooks.slack.com/services/T0/B0/hunter2 failed",
    "an assignment": "smtp_password=hunter2, host=mail",
    "a mapping": "{'api_key': 'hunter2', 'a': 1}",
    "JSON": '{"access_token": "hunter2"}',
    "a header": "Authorization: Bearer hunter2hunter2",
    "a query": "https://example.org/?token=hunter2&a=1",
}


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS.keys())
def test_secrets_are_hidden(text: str) -> None:
    line = log_line(AT, "ERROR", text, error=text)

    assert "hunter2" not in line
    assert line.count("***") == 2


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:3000 (Ctrl-C ends it)",
        "the basic panel; 5 tokens, 3 files@once",
        "https://example.org/docs#a-run-fails",
        "Step 3: the secret is in the data",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text


RELAYED = {
    "ours": (log_line(AT, "INFO", "hello", run_id="1"), {"message": "hello", "run_id": "1"}),
    "Dagster's": (
        '{"event": "Collected 1 runs", "logger": "dagster.daemon", "level": "info", '
        '"timestamp": "2030-01-01T12:00:00.000000Z"}',
        {"message": "Collected 1 runs", "level": "INFO", "logger": "dagster.daemon"},
    ),
    "a coloured text": ("\x1b[32m2030\x1b[0m - \x1b[34mINFO\x1b[0m - x\n", {"message": "2030 - INFO - x"}),
    "JSON that is no object": ("[1, 2]", {"message": "[1, 2]"}),
    "JSON of another kind": ('{"a": 1}', {"message": '{"a": 1}'}),
}


@pytest.mark.parametrize(("written", "expected"), RELAYED.values(), ids=RELAYED.keys())
def test_what_other_programs_write_takes_the_same_form(written: str, expected: dict[str, str]) -> None:
    found = json.loads(relayed_line(written, AT))

    assert found.items() >= expected.items()
    assert found["time"] == "2030-01-01T12:00:00.000000Z"


def test_an_empty_line_is_not_passed_on() -> None:
    assert relayed_line("\x1b[0m \n", AT) == ""


@pytest.mark.parametrize(("value", "expected"), [("json", "json"), ("", "text"), ("xml", "text")])
def test_the_format_is_known_even_where_settings_are_wrong(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    monkeypatch.setenv("TURNOVER_LOG_FORMAT", value)
    monkeypatch.setenv("TURNOVER_THREADS", "none")

    assert wanted_log_format() == expected


def test_what_children_write_is_passed_on_as_objects(capsys: pytest.CaptureFixture[str]) -> None:
    program = "import sys; print('a'); print(); sys.stdout.flush(); sys.stderr.write('token=hunter2')"
    with subprocess.Popen([sys.executable, "-c", program], **PIPED) as child:
        _relay(child)

    assert [line["message"] for line in lines_of(capsys.readouterr().err)] == ["a", "token=***"]


# Runs --------------------------------------------------------------------------------------------


def broken_job() -> dg.JobDefinition:
    @dg.asset(check_specs=[dg.AssetCheckSpec("nice", asset="noted")])
    def noted(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster reads it
        context.log.debug("for the page")
        context.log.warning("password=hunter2")
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="nice", passed=False)])

    @dg.asset(deps=[noted])
    def broken() -> None:
        raise ValueError("postgres://ada:hunter2@db is gone")

    return dg.Definitions(assets=[noted, broken]).resolve_implicit_global_asset_job_def()


def run_broken(tmp_path: Path) -> list[dg.EventLogEntry]:
    """A run that fails, with the instance that is shipped; what is on record of it."""
    (tmp_path / "dagster.yaml").write_bytes(shipped_file("dagster.yaml").read_bytes())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        done = broken_job().execute_in_process(
            instance=instance, raise_on_error=False, tags={jobs.ATTEMPT_TAG: "2"}
        )
        return list(instance.all_logs(done.run_id))


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_says_what_happened_where_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TURNOVER_LOG_FORMAT", "json")

    recorded = run_broken(tmp_path)
    written = capfd.readouterr().err

    assert "hunter2" not in written
    found = lines_of(written)
    assert {line["run_id"] for line in found} == {recorded[0].run_id}
    assert {line["attempt"] for line in found} == {2}
    events = [(line.get("event"), line.get("step"), line["level"]) for line in found]
    assert events == [
        ("RUN_START", None, "INFO"),
        ("STEP_START", "noted", "INFO"),
        (None, "noted", "WARNING"),
        ("ASSET_MATERIALIZATION", "noted", "INFO"),
        ("ASSET_CHECK_EVALUATION", "noted", "WARNING"),
        ("STEP_SUCCESS", "noted", "INFO"),
        ("STEP_START", "broken", "INFO"),
        ("STEP_FAILURE", "broken", "ERROR"),
        ("RUN_FAILURE", None, "ERROR"),
    ]
    assert found[3]["asset"] == "noted"
    assert (found[4]["check"], found[4]["passed"]) == ("nice", False)
    assert found[5]["seconds"] > 0
    assert found[7]["exception"] == "ValueError"
    assert "is gone" in found[7]["error"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_page_has_everything_whatever_the_terminal_shows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    log_format: str,
) -> None:
    monkeypatch.setenv("TURNOVER_LOG_FORMAT", log_format)

    recorded = run_broken(tmp_path)
    written = capfd.readouterr().err

    assert "for the page" in {entry.user_message for entry in recorded}
    assert "for the page" not in written
    assert {entry.level for entry in recorded} == {logging.DEBUG, logging.WARNING, logging.ERROR}
    kinds = {entry.dagster_event.event_type_value for entry in recorded if entry.dagster_event}
    assert {"STEP_START", "STEP_SUCCESS", "ASSET_MATERIALIZATION", "RESOURCE_INIT_STARTED"} & kinds
    assert "DEBUG" not in written
    assert ("password=hunter2" in written) == (log_format == "text")


def test_the_terminal_shows_text_from_info_on(monkeypatch: pytest.MonkeyPatch) -> None:
    handler, levels = TerminalHandler(), {}
    for level in (logging.DEBUG, logging.INFO, logging.ERROR):
        record = logging.LogRecord("dagster", level, "", 0, "x", (), None)
        handler.emit(record)
        levels[level] = record.levelno

    assert levels == {logging.DEBUG: logging.NOTSET, logging.INFO: logging.INFO, logging.ERROR: logging.ERROR}


# Commands ----------------------------------------------------------------------------------------


def turnover(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {f"TURNOVER_{name.upper()}": str(value) for name, value in QUICK.items()}
    environment |= {"TURNOVER_HOME": str(home), "TURNOVER_LOG_FORMAT": "json"}
    return subprocess.run(
        [*MODULE, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_run_that_only_refuses_a_file_says_so_in_objects(copied: Landed) -> None:
    (copied.folder / "empty.csv").write_text("a,b\n")

    done = turnover(copied.settings.home, "run", "--landing", str(copied.folder))

    found = lines_of(done.stderr)
    assert (done.returncode, done.stdout) == (1, "")
    assert {line["job"] for line in found if "job" in line} == {jobs.INGEST}
    assert [line["level"] for line in found if line.get("file") == "empty.csv"] == ["WARNING"]
    assert (found[-1]["files_landed"], found[-1]["files_refused"], found[-1]["published"]) == (0, 1, False)


@pytest.mark.slow
def test_every_line_of_a_run_of_the_command_is_an_object(copied: Landed) -> None:
    (copied.folder / "next.csv").write_text(next_week(copied))
    (copied.folder / "empty.csv").write_text("a,b\n")

    done = turnover(copied.settings.home, "run", "--landing", str(copied.folder))

    assert (done.returncode, done.stdout) == (0, "")
    found = lines_of(done.stderr)
    assert all({"time", "level", "message"} <= line.keys() for line in found)
    assert all(TIME.fullmatch(line["time"]) for line in found)
    assert {line["job"] for line in found if "job" in line} == {jobs.INGEST, jobs.REFRESH}
    assert "forecasts/published" in {line.get("asset") for line in found}
    account = found[-1]
    assert (account["files_landed"], account["files_refused"], account["published"]) == (1, 1, True)
    refused = [line for line in found if line.get("file") == "empty.csv"]
    assert [line["level"] for line in refused] == ["WARNING"]


def test_an_error_of_a_command_is_an_object(tmp_path: Path) -> None:
    done = turnover(tmp_path / "nowhere", "export", "forecasts")

    assert (done.returncode, done.stdout) == (1, "")
    (line,) = lines_of(done.stderr)
    assert line["level"] == "ERROR"
    assert "Nothing has been published" in line["message"]


def test_the_death_of_a_command_is_an_object(tmp_path: Path) -> None:
    program = (
        "import logging, warnings\n"
        "from turnover_assets.commands.console import plain_errors\n"
        "with plain_errors():\n"
        "    warnings.warn('old', UserWarning)\n"
        "    logging.getLogger('library').error('bad: %s', 'token=hunter2')\n"
        "    raise ZeroDivisionError('by\\nzero')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TURNOVER_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=False,
    )

    warned, logged, died = lines_of(done.stderr)
    assert done.returncode == 1
    assert "old" in warned["message"]
    assert (logged["logger"], logged["message"]) == ("library", "bad: token=***")
    assert (died["level"], died["exception"], died["error"]) == ("CRITICAL", "ZeroDivisionError", "by\nzero")
