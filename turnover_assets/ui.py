"""`turnover ui`: Dagster's code server, webserver and daemon as child processes on loopback.

What belongs here: starting and ending them together.

The code server is a process of its own, which page and daemon share: a daemon that is given the module alone
starts another code server each minute, and the page one more.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import FrameType
from typing import Any

import yaml

from turnover_assets.core.log_lines import relayed_line
from turnover_assets.errors import TurnoverError
from turnover_assets.settings import Settings
from turnover_assets.storage.home import shipped_file

SOCKET = "code.sock"
GRACE_SECONDS = 20
READY_SECONDS = 120
LONGEST_FOLDER = 60  # characters of the folder of sockets, whose paths may have about 100
PIPED: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
Child = subprocess.Popen[bytes]


def serve(settings: Settings, port: int) -> int:
    """Run code server, page and daemon until one of them ends or a signal comes; returns an exit code."""
    children: list[Child] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    with _private_folder() as folder:
        try:
            code, workspace = _code_server(folder)
            as_json = ["--log-format", "json"] if settings.log_format == "json" else []
            told = [*workspace, *as_json]
            children.append(_start(settings, [*code, *as_json]))
            _wait_for(folder / SOCKET, children[0])
            children.append(
                _start(settings, ["dagster_webserver", "--host", "127.0.0.1", "--port", str(port), *told])
            )
            children.append(_start(settings, ["dagster._daemon", "run", *told]))
            while all(child.poll() is None for child in children):
                time.sleep(0.5)
            return next(child.returncode for child in children if child.returncode is not None) or 0
        except KeyboardInterrupt:
            return 0
        finally:
            _end(children)


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder that only this user can look into, with a path short enough for a socket."""
    usual = gettempdir()
    parent = usual if len(usual) <= LONGEST_FOLDER else "/tmp"  # noqa: S108 - a folder of its own is made in it
    with TemporaryDirectory(prefix="turnover-", dir=parent) as path:
        yield Path(path)


def _code_server(folder: Path) -> tuple[list[str], list[str]]:
    """The command of a code server of the shipped code location, and what tells others of it."""
    (entry,) = yaml.safe_load(shipped_file("workspace.yaml").read_text("utf-8"))["load_from"]
    module, location = (entry["python_module"][name] for name in ("module_name", "location_name"))
    server = {"grpc_server": {"socket": str(folder / SOCKET), "location_name": location}}
    (folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [server]}), "utf-8")
    # Errors of the code are shown on the page where it is loaded late.
    command = ["dagster", "api", "grpc", "--lazy-load-user-code", "--use-python-environment-entry-point"]
    command += ["--socket", str(folder / SOCKET), "--module-name", module, "--location-name", location]
    command += ["--inject-env-vars-from-instance", "--log-level", "warning"]
    return command, ["--workspace", str(folder / "workspace.yaml")]


def _start(settings: Settings, command: list[str]) -> Child:
    """Start a child in a session of its own: Ctrl-C reaches this process only, which then ends it, once."""
    environment: Mapping[str, str] = {
        **os.environ,
        **settings.environment(),
        "DAGSTER_HOME": str(settings.dagster_path),
    }
    as_json = settings.log_format == "json"
    child = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", *command],
        env=environment,
        start_new_session=True,
        **(PIPED if as_json else {}),
    )
    if as_json:
        threading.Thread(target=_relay, args=(child,), daemon=True).start()
    return child


def _wait_for(path: Path, server: Child) -> None:
    """Wait until a server answers at a socket, or has ended."""
    deadline = time.monotonic() + READY_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(path))
            return
        time.sleep(0.1)


def _relay(child: Child) -> None:
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


def _end(children: list[Child]) -> None:
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
