"""`turnover ui`: Dagster's webserver and daemon as two child processes on loopback.

What belongs here: starting and ending them together.
"""

import os
import signal
import subprocess
import sys
import time
from types import FrameType

from turnover_assets.settings import Settings
from turnover_assets.storage.home import shipped_file

GRACE_SECONDS = 20


def serve(settings: Settings, port: int) -> int:
    """Run webserver and daemon until one of them ends or a signal comes; returns an exit code."""
    environment = {
        **os.environ,
        **settings.environment(),
        "DAGSTER_HOME": str(settings.dagster_path),
        "PYTHONWARNINGS": "ignore::dagster.BetaWarning",
    }
    workspace = ["--workspace", str(shipped_file("workspace.yaml"))]
    commands = [
        ["dagster_webserver", "--host", "127.0.0.1", "--port", str(port), *workspace],
        ["dagster._daemon", "run", *workspace],
    ]
    children = [
        subprocess.Popen([sys.executable, "-m", *command], env=environment)  # noqa: S603
        for command in commands
    ]

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        while all(child.poll() is None for child in children):
            time.sleep(0.5)
        return next(child.returncode for child in children if child.returncode is not None) or 0
    except KeyboardInterrupt:
        return 0
    finally:
        _end(children)


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
    for child in children:
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
