"""Access and audit on a real server, and the commands of docs/access.md as they are written there."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.storage.audit import AuditFilter, opened_audit
from turnover_assets_tests.test_docs import REPOSITORY
from turnover_assets_tests.test_docs_commands import commands_of
from turnover_assets_tests.waiting import PATIENCE, wait_until

PAGE = REPOSITORY / "docs" / "access.md"
SERVE = """
import sys, uvicorn
from turnover_assets.serving.access import SERVER_OPTIONS
from turnover_assets_tests.serving_factories import audited_app
uvicorn.run(audited_app(), port=int(sys.argv[1]), log_level="warning", **SERVER_OPTIONS)
"""
needs_curl = pytest.mark.skipif(
    subprocess.run(["which", "curl"], capture_output=True, check=False).returncode != 0,
    reason="there is no curl",
)
Start = Callable[[], tuple[subprocess.Popen[bytes], int]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers of one home, on loopback."""
    started: list[subprocess.Popen[bytes]] = []

    def make() -> tuple[subprocess.Popen[bytes], int]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        environment = {**os.environ, "TURNOVER_HOME": str(tmp_path), "TURNOVER_AUDIT_FLUSH_SECONDS": "0.2"}
        server = subprocess.Popen([sys.executable, "-c", SERVE, str(port)], env=environment, cwd=REPOSITORY)
        started.append(server)
        wait_until(lambda: is_listening(port) or server.poll() is not None, "the server listens", every=0.02)
        assert server.poll() is None
        return server, port

    yield make
    for server in started:
        server.kill()
        server.wait()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def curl(port: int, *words: str, **variables: str) -> tuple[int, str]:
    """Exit code and output of a command line of the page, at another port."""
    line = " ".join(words).replace(":8000", f":{port}")
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def turnover(home: Path, *words: str) -> str:
    result = CliRunner().invoke(app, list(words), env={"TURNOVER_HOME": str(home)})
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def recorded(home: Path) -> list[tuple[Any, ...]]:
    with opened_audit(home / "audit", AuditFilter()) as con:
        return con.execute("SELECT path, caller, status FROM audit ORDER BY asked_at").fetchall()


@needs_curl
def test_a_first_key_closes_a_running_server_and_the_curl_lines_of_the_page_open_it(
    tmp_path: Path, start: Start
) -> None:
    server, port = start()
    lines = re.findall(r"^curl .*$", PAGE.read_text("utf-8"), re.MULTILINE)
    open_to_all = curl(port, "curl --silent --fail http://127.0.0.1:8000/v1/forecasts")

    key = turnover(tmp_path, "keys", "create", "--name", "me", "--scope", "read")
    unasked = "curl --silent --fail http://127.0.0.1:8000/v1/forecasts"
    wait_until(lambda: curl(port, unasked)[0] != 0, "the server knows of the key", seconds=3)  # as PAGE says

    assert open_to_all == (0, "[1,2,3]")
    assert len(lines) == 2
    for line in lines:
        assert curl(port, line, KEY=key) == (0, "[1,2,3]")
        assert curl(port, line, KEY=f"{key[:-1]}!")[0] == 22
    server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE) in (0, -signal.SIGTERM)
    found = recorded(tmp_path)
    assert found[0] == ("/v1/forecasts", "local", 200)
    assert [row[1:] for row in found[-4:]] == [(key.split("_")[1], 200), ("", 401)] * 2


@needs_curl
def test_a_killed_server_loses_only_what_waited(tmp_path: Path, start: Start) -> None:
    server, port = start()
    _, other = start()
    for each in (port, other):
        assert curl(each, "curl --silent --fail http://127.0.0.1:8000/v1/forecasts")[0] == 0
    wait_until(
        lambda: (tmp_path / "audit").is_dir() and len(recorded(tmp_path)) == 2,
        "both are recorded",
        every=0.05,
    )

    server.kill()
    server.wait()

    assert recorded(tmp_path) == [("/v1/forecasts", "local", 200)] * 2


def test_the_commands_of_the_page_work_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = list(commands_of(PAGE))

    for words in commands:
        turnover(tmp_path / "home", *words)

    assert {words[0] for words in commands} == {"keys", "audit"}
    assert (tmp_path / "audit.parquet").is_file()


def test_the_settings_that_the_page_exports_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from turnover_assets.serving.access import check_exposure
    from turnover_assets.settings import load_settings

    exported = re.findall(r"^export (\w+)=(\S+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    for name, value in exported:
        monkeypatch.setenv(name, value)

    assert len(exported) == 7
    assert check_exposure(load_settings(home=tmp_path), "0.0.0.0") == ""
