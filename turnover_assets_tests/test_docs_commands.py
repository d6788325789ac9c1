"""The commands in the documentation: each is one with such options, and those that only read are run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets_tests.factories import Landed
from turnover_assets_tests.test_docs import PAGES, REPOSITORY

OPERATIONS = REPOSITORY / "docs" / "operations.md"
# Those that change nothing in the home, and need nothing that a small home has not.
READING = (
    *("export", "files", "decisions", "alerts list", "alerts check", "models list", "models show"),
    *("adjustments list", "adjustments check", "housekeep --dry-run", "metrics --once", "rebuild --check"),
)
NOT_IN_A_SMALL_HOME = re.compile(r"forecasts_as_of|\b12\b|2017-06-10|\| ")


def commands_of(page: Path) -> Iterator[list[str]]:
    """The words of each `turnover` command in the shell blocks of a page, without pipes and redirections."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.split(r" #| \| | 2?>", line)[0].strip()
            if found := re.match(r"(?:[A-Z_]+=\S+ )*turnover(?: (.*))?$", command):
                yield shlex.split(found[1] or "")


def all_commands() -> list[Any]:
    return [
        pytest.param(words, id=f"{page.name}: turnover {' '.join(words)}")
        for page in PAGES
        for words in commands_of(page)
    ]


@pytest.mark.parametrize("words", all_commands())
def test_every_command_in_the_documentation_is_one_with_such_options(words: list[str]) -> None:
    command: Any = get_command(app)
    context = command.make_context("turnover", list(words))
    while hasattr(command, "resolve_command"):
        left = [*getattr(context, "_protected_args", []), *context.args]
        name, command, rest = command.resolve_command(context, left)
        context = command.make_context(name, list(rest), parent=context)

    assert command.callback is not None


def reading_commands() -> list[str]:
    found = {shlex.join(words) for words in commands_of(OPERATIONS)}
    chosen = [text for text in found if text.startswith(READING) and not NOT_IN_A_SMALL_HOME.search(text)]
    return sorted(chosen)


@pytest.mark.parametrize("command", reading_commands())
def test_commands_that_only_read_work_as_the_operations_guide_writes_them(
    copied: Landed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(copied.settings.home))
    for name, value in {"TRAINING_SHARE": copied.settings.training_share, "BACKTEST_WINDOWS": 1}.items():
        monkeypatch.setenv(f"TURNOVER_{name}", str(value))
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(app, shlex.split(command))

    assert result.exit_code == 0, result.output
