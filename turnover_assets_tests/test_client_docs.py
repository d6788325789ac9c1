"""docs/client.md: its examples run against the small retailer that it names, and give what it shows."""

import doctest
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.client import errors
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.api_factories import live_server, publish
from turnover_assets_tests.factories import Landed
from turnover_assets_tests.test_docs import REPOSITORY

PAGE = REPOSITORY / "docs" / "client.md"
DOCUMENTED = "http://127.0.0.1:8000"


@pytest.fixture
def address(plain: Landed, tmp_path: Path) -> Iterator[str]:
    settings = plain.settings.model_copy(update={"home": tmp_path})
    settings.published_path.mkdir()
    publish(settings.published_path, current(plain.settings.published_path))
    with live_server(settings) as found:
        yield found


def test_the_examples_give_what_the_page_shows(address: str) -> None:
    text = PAGE.read_text("utf-8").replace(DOCUMENTED, address)
    examples = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    told: list[str] = []

    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    with pd.option_context("display.width", 200):
        runner.run(examples, out=told.append)

    assert runner.tries > 20
    assert runner.failures == 0, "".join(told)


def test_the_page_s_retailer_is_the_one_of_the_tests(plain: Landed, tmp_path: Path) -> None:
    (line,) = re.findall(r"^turnover (sample .*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    words = [str(tmp_path) if word == "files" else word for word in shlex.split(line)]

    assert CliRunner().invoke(app, words).exit_code == 0

    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in plain.folder.iterdir()}


def test_every_exception_is_in_the_table() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE))

    kinds = {kind.__name__ for kind in (errors.ApiError, errors.UnreachableError, *errors.KINDS.values())}
    assert listed - {"exception"} == kinds
