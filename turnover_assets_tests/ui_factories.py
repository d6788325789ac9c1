"""`turnover ui` as a process on a home, and questions to its page."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from turnover_assets.settings import Settings
from turnover_assets_tests.factories import QUICK, free_port
from turnover_assets_tests.waiting import PATIENCE, wait_until

MODULE = [sys.executable, "-m", "turnover_assets.cli"]


def ask(port: int, query: str, **variables: Any) -> Any:
    """What the page answers to a query of GraphQL, as its own browser code asks."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)["data"]


def answers(port: int) -> bool:
    try:
        return "version" in ask(port, "{ version }")
    except OSError:
        return False


@contextmanager
def running_ui(settings: Settings, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`turnover ui` on a home, answering: its process and its port."""
    port = free_port()
    environment = {
        **os.environ,
        "TURNOVER_HOME": str(settings.home),
        **{f"TURNOVER_{name.upper()}": str(value) for name, value in QUICK.items()},
        "TURNOVER_SENSOR_INTERVAL_SECONDS": "2",
    }
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*MODULE, "ui", "--port", str(port)], env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: answers(port), f"GraphQL answers, see {log}", every=0.5)
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
