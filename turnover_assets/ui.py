"""`turnover ui`: Dagster's webserver and daemon as two child processes on loopback.

What belongs here: starting and ending them together.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from turnover_assets.core.log_lines import relayed_line
from turnover_assets.errors import TurnoverError
from turnover_assets.settings import Settings
from turnover_assets.storage.home import shipped_file

GRACE_SECONDS = 20
PIPED: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


def serve(settings: Settings, port: int) -> int:
    """Run webserver and daemon until one of them ends or a signal comes; returns an exit code."""
    environment = {
        **os.environ,
        **settings.environment(),
        "DAGSTER_HOME": str(settings.dagster_path),
    }
    workspace = ["--workspace", str(shipped_file("workspace.yaml"))]
    as_json = settings.log_format == "json"
    if as_json:
        workspace += ["--log-format", "json"]
    commands = [
        ["dagster_webserver", "--host", "127.0.0.1", "--port", str(port), *workspace],
        ["dagster._daemon", "run", *workspace],
    ]
    # Sessions of their own: Ctrl-C reaches this process only, which then ends the children, once.
    children = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", *command],
            env=environment,
            start_new_session=True,
            **(PIPED if as_json else {}),
        )
        for command in commands
    ]
    for child in children if as_json else []:
        threading.Thread(target=_relay, args=(child,), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        while all(child.poll() is None for child in children):
            time.sleep(0.5)
        return next(child.returncode for child in children if child.returncode is not None) or 0
    except KeyboardInterrupt:
        return 0
    finally:
        _end(children)


def _relay(child: subprocess.Popen[bytes]) -> None:
    """Pass on what a child and its own children write, as JSON lines on standard error."""
    for line in child.stdout or ():
        if told := relayed_line(line.decode(errors="replace"), datetime.now(UTC)):
            sys.stderr.write(f"{told}\n")
            sys.stderr.flush()


def check_port(port: int) -> None:
    """Make sure that the web page can listen on a port of loopback.

    Raises:
        TurnoverError: It cannot.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise TurnoverError(
                f"Port {port} cannot be used ({error.strerror}). Choose another with --port."
            ) from None


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    """End the children within the grace period, and whatever they started."""
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
    deadline = time.monotonic() + GRACE_SECONDS
    try:
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
