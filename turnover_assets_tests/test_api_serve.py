"""`turnover serve` as a process of its own: where it listens, what it logs, how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.serving.observing import Seen, log_as_text
from turnover_assets.settings import Settings
from turnover_assets_tests.factories import free_port
from turnover_assets_tests.waiting import PATIENCE

SERVE = [sys.executable, "-m", "turnover_assets.cli", "serve", "--port", "0"]


@contextmanager
def served(settings: Settings, *options: str, **environment: str) -> Iterator[tuple[Any, str, list[str]]]:
    """The process, its address, and the lines that it wrote so far."""
    own = {"TURNOVER_HOME": str(settings.home), "TURNOVER_SNAPSHOT_POLL_SECONDS": "0.1", **environment}
    process = subprocess.Popen(
        [*SERVE, *options], env={**os.environ, **own}, stderr=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    assert process.stderr is not None
    reading = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")))
    reading.start()
    try:
        until = time.monotonic() + PATIENCE
        while not (found := re.search(r"http://[\d.]+:\d+", " ".join(lines))):
            assert process.poll() is None, lines
            assert time.monotonic() < until
            time.sleep(0.05)
        wait_until_ready(found[0], until)
        yield process, found[0], lines
    finally:
        process.kill()
        process.wait(timeout=PATIENCE)
        reading.join(timeout=PATIENCE)


def wait_until_ready(base: str, until: float) -> None:
    while True:
        try:
            assert get(f"{base}/readyz")
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)
        else:
            return


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def test_it_says_where_it_listens_logs_in_json_and_ends_when_all_is_answered(served_home: Settings) -> None:
    with served(served_home, TURNOVER_LOG_FORMAT="json") as (process, base, lines):
        get(f"{base}/v1/forecasts?limit=2")
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(get(f"{base}/v1/history?limit=100000")))
        asking.start()
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        asking.join(timeout=PATIENCE)
        assert process.wait(timeout=PATIENCE) == 0
    logged = [json.loads(line) for line in lines]

    assert len(json.loads(answers[0])["data"]) > 1000
    assert logged[0]["level"] == "WARNING"
    assert "loopback only" in logged[0]["message"]
    request = next(line for line in logged if line.get("path") == "/v1/forecasts")
    assert (request["status"], request["method"], request["route"]) == (200, "GET", "/v1/forecasts")
    assert (request["query"], request["caller"], request["client"]) == ("limit=2", "local", "127.0.0.1")
    assert request["seconds"] > 0
    assert request["bytes"] > 100
    assert re.fullmatch(r"[0-9a-f]{32}", request["request_id"])
    assert logged[-1]["message"] == "Ended."


@pytest.mark.slow
def test_several_processes_answer_and_count_together(served_home: Settings) -> None:
    with served(served_home, "--workers", "2", "--no-access-log") as (process, base, lines):
        for _ in range(40):
            get(f"{base}/v1/aggregates?limit=1")
        counted = re.findall(
            r'turnover_api_requests_total\{method="GET",route="/v1/aggregates",status="200"\} (\S+)',
            get(f"{base}/metrics"),
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0

    assert [float(count) for count in counted] == [40.0]
    assert not any("/v1/aggregates" in line for line in lines)


def test_without_a_key_it_listens_on_loopback_only(
    served_home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(served_home.home))

    refused = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0", "--port", "0"])

    assert refused.exit_code == 1
    assert "turnover keys create" in refused.stderr


def test_a_port_that_is_taken_is_told(served_home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setenv("TURNOVER_HOME", str(served_home.home))
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        refused = CliRunner().invoke(app, ["serve", "--port", str(port)])

    assert refused.exit_code == 1
    assert f"port {port}" in refused.stderr
    assert "TURNOVER_API_PORT" in refused.stderr


def test_a_line_of_log_is_one_line_whatever_the_caller_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    scope = {"path": "/a\nb\x1b[31m", "query_string": b"x=1", "method": "GET", "client": ("10.0.0.1", 1)}

    log_as_text(Seen(scope, "number", status=404), 0.0123)

    assert capsys.readouterr().err == "10.0.0.1 GET /a\\nb\\x1b[31m?x=1 404 12.3 ms 0 B number\n"


def test_help_of_the_command_loads_no_framework(tmp_path: Path) -> None:
    code = "import sys; from turnover_assets.cli import app; assert 'fastapi' not in sys.modules"

    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
