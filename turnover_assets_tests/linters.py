"""Tools that look at workflows and manifests, from the virtual environment that `make linters` makes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LINTERS = REPOSITORY / "build" / "linters" / "bin"


def tool(name: str) -> str:
    """A tool's path; the test is skipped where it is missing."""
    found = shutil.which(name, path=f"{LINTERS}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is missing; `make linters` installs it")
    return found


def passes(*command: object) -> None:
    """Run a tool that finds nothing where all is well."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
