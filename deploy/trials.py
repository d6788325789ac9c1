"""What the trials of the container stack share: an account of what is so, patience, commands, Compose.

Here is nothing of the stack itself: try.py and try_from_clone.py know what is to be seen.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

PATIENCE = argparse.Namespace(factor=1.0)  # how much longer than usual to wait, on a slow or busy machine

T = TypeVar("T")
BEGAN = time.monotonic()


class NotSoError(Exception):
    """Something is not as docs/deployment.md says."""


def tell(text: str) -> None:
    """A line of the account, with the seconds since the start."""
    print(f"[{time.monotonic() - BEGAN:5.0f} s] {text}", flush=True)


def require(condition: object, text: str) -> None:
    """Tell that something is so, or end because it is not."""
    if not condition:
        raise NotSoError(text)
    tell(f"ok: {text}")


def wait_for(what: str, look: Callable[[], T | None], seconds: float, every: float = 2.0) -> T:
    """Look until something is found; what goes wrong while looking counts as not yet."""
    seconds *= PATIENCE.factor
    until, problem = time.monotonic() + seconds, ""
    while time.monotonic() < until:
        try:
            if (found := look()) is not None:
                return found
        except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
            problem = f" ({type(error).__name__}: {error})"
        time.sleep(every)
    raise NotSoError(f"{what}: not within {seconds:.0f} s{problem}")


def call(*command: str, check: bool = True, **options: Any) -> str:
    """Run a command and give what it prints; what it complains of is part of the error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if check and done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr[-3000:])
    return done.stdout


def part_of(container: Mapping[str, Any]) -> str:
    """Name of the part that a container is."""
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


def documented(page: Path, heading: str) -> list[str]:
    """The blocks of commands under a heading of a page, up to the next heading of any level."""
    part = re.split(rf"\n#+ {re.escape(heading)}\n", page.read_text("utf-8"))[1].partition("\n\n#")[0]
    return re.findall(r"^```sh\n(.*?)^```", part, re.DOTALL | re.MULTILINE)


def compose_program() -> list[str]:
    """How Compose is called here: version 2 where it is there."""
    asked = ["docker", "compose", "version"]
    has_plugin = subprocess.run(asked, capture_output=True, check=False).returncode == 0
    return ["docker", "compose"] if has_plugin else ["docker-compose"]


def tried(show: Callable[[], None]) -> int:
    """What a trial ends with: 1 where something is not so, 0 otherwise and where there is no engine."""
    there = shutil.which("docker") is not None
    if not there or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        print("skipped: there is no Docker engine here", file=sys.stderr)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was made is removed then, too
    try:
        show()
    except (NotSoError, subprocess.CalledProcessError) as problem:
        details = getattr(problem, "stderr", "") or ""
        print(f"NOT SO: {problem}\n{details}", file=sys.stderr)
        return 1
    return 0
