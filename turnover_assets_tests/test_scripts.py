"""Dockerfiles and shell scripts, as hadolint and shellcheck see them; skipped where these are missing."""

from pathlib import Path

import pytest

from turnover_assets_tests.linters import REPOSITORY, passes, tool

DOCKERFILES = sorted(
    path for path in REPOSITORY.glob("**/Dockerfile") if not {".venv", "build"} & {*path.parts}
)
FOLDERS = (".ci", "deploy")


def is_script(path: Path) -> bool:
    """Whether a file says in its first line that a shell is to run it."""
    with path.open("rb") as stream:
        first = stream.readline()
    return first.startswith(b"#!") and first.rstrip().endswith(b"sh")


SCRIPTS = sorted(
    path
    for folder in FOLDERS
    for path in (REPOSITORY / folder).rglob("*")
    if path.is_file() and is_script(path)
)


def named(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def test_there_is_something_to_look_at() -> None:
    assert {"Dockerfile", "deploy/nginx/Dockerfile"} <= {named(path) for path in DOCKERFILES}
    assert {".ci/run", "deploy/init", "deploy/postgres/databases.sh"} <= {named(path) for path in SCRIPTS}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=named)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    passes(tool("hadolint"), dockerfile)


@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_shellcheck_finds_nothing(script: Path) -> None:
    passes(tool("shellcheck"), "--severity=warning", script)


def test_faults_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN cd /tmp\n")
    (tmp_path / "script").write_text("#!/bin/sh\ncd $1\n")

    with pytest.raises(AssertionError, match="DL3007"):
        passes(tool("hadolint"), tmp_path / "Dockerfile")
    with pytest.raises(AssertionError, match="SC2164"):
        passes(tool("shellcheck"), "--severity=warning", tmp_path / "script")
