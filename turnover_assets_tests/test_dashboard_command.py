"""`turnover dashboard` as a process of its own: where it listens, whom it lets in, how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.settings import Settings
from turnover_assets_tests.factories import free_port

ADDRESS = re.compile(r"http://[\d.]+:\d+")


def test_it_says_where_it_listens_shows_pages_and_ends_when_told_to(served_home: Settings) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "turnover_assets.cli", "dashboard", "--port", "0"],
        env={**os.environ, "TURNOVER_HOME": str(served_home.home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        told = process.stderr.readline() + process.stderr.readline()
        found = ADDRESS.search(told)
        assert found, told
        with urllib.request.urlopen(f"{found[0]}/", timeout=60) as answer:  # waits in the socket's queue
            page = answer.read().decode()
        process.send_signal(signal.SIGTERM)
        last = process.stderr.read()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait(timeout=60)

    assert "loopback only" in told
    assert "<h1>Overview</h1>" in page
    assert last.endswith("Ended.\n")


def test_without_a_key_it_listens_on_loopback_only(
    served_home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(served_home.home))

    refused = CliRunner().invoke(app, ["dashboard", "--host", "0.0.0.0", "--port", "0"])

    assert refused.exit_code == 1
    assert "turnover keys create" in refused.stderr


def test_a_port_that_is_taken_is_told(served_home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(served_home.home))
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        refused = CliRunner().invoke(app, ["dashboard", "--port", str(port)])

    assert refused.exit_code == 1
    assert f"port {port}" in refused.stderr
    assert "TURNOVER_DASHBOARD_PORT" in refused.stderr
