"""docs/api.md and docs/what-if.md: every request in them is made, and what they show is what comes."""

import json
import re
import shlex
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from turnover_assets.serving.routes.health import Readiness
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.api_factories import live_server
from turnover_assets_tests.test_docs import REPOSITORY
from turnover_assets_tests.waiting import PATIENCE

PAGE = REPOSITORY / "docs" / "api.md"
PAGES = (PAGE, REPOSITORY / "docs" / "what-if.md")
DOCUMENTED = "http://127.0.0.1:8000"
ANSWERS = {"served", "status", "predictions", "outputs", "extensions", "live", "platform"}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """The requests of a block, and what the block after it shows of the last of them."""

    requests: tuple[str, ...]
    kind: str = ""
    shown: str = ""


def examples() -> list[Example]:
    found: list[Example] = []
    for kind, text in BLOCK.findall("\n".join(page.read_text("utf-8") for page in PAGES)):
        if kind == "sh":
            found.append(Example(tuple(line for line in text.splitlines() if line.startswith("curl "))))
        elif found[-1].requests:
            found[-1] = Example(found[-1].requests, kind, text)
    return [example for example in found if example.requests]


@pytest.fixture(scope="module")
def base(served_home: Settings) -> Iterator[str]:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    with live_server(served_home) as address:
        yield address


def words(line: str, base: str, settings: Settings) -> list[str]:
    """A request of the page, to this server and of a series that it has."""
    first = current(settings.published_path).read("forecasts").iloc[0]
    line = line.replace(DOCUMENTED, base)
    for key, shown in (("store", 8), ("department", 11)):
        own = str(first[key])
        line = re.sub(rf"\b{key}={shown}\b", f"{key}={own}", line)
        line = re.sub(rf'("{key}": ){shown}\b', rf"\g<1>{own}", line)
        line = re.sub(rf'("name": "{key}".*?"data": \[){shown}\b', rf"\g<1>{own}", line)
    return shlex.split(line)


def shape(value: Any) -> Any:
    """What a value looks like: names and kinds, of lists the first element."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def like(shown: Any, came: Any) -> bool:
    """Whether an answer looks as the page shows it; null may stand where a value may be missing."""
    if isinstance(shown, dict) and isinstance(came, dict):
        return shown.keys() == came.keys() and all(like(shown[name], came[name]) for name in shown)
    if isinstance(shown, list) and isinstance(came, list):
        return bool(shown) == bool(came) and all(like(a, b) for a, b in zip(shown, came, strict=False))
    return shown == came or type(None) in (shown, came)


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.requests[-1].split("8000")[-1])
def test_requests_of_the_page_give_what_it_shows(
    base: str, served_home: Settings, tmp_path: Path, example: Example
) -> None:
    for line in example.requests:
        command = [*words(line, base, served_home), "--max-time", "30"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if "stor=" not in line and done.stdout.startswith("{"):
            assert set(json.loads(done.stdout)) & ANSWERS
            assert "problems" not in json.loads(done.stdout) or "readyz" in line

    if example.kind == "json":
        shown, came = json.loads(example.shown), json.loads(done.stdout)
        assert like(shape(shown), shape(came)), done.stdout[:2000]
    elif example.shown.startswith("link:"):
        assert re.search(r'^link: </v1/\S+&page=\S+>; rel="next"', done.stdout, re.MULTILINE)
    elif example.kind == "text":
        assert done.stdout.splitlines()[0] == example.shown.splitlines()[0]


def test_every_path_and_metric_of_the_page_is_one(base: str) -> None:
    text = PAGE.read_text("utf-8")
    with urllib.request.urlopen(f"{base}/openapi.json", timeout=PATIENCE) as answer:
        paths = set(json.load(answer)["paths"])
    with urllib.request.urlopen(f"{base}/metrics", timeout=PATIENCE) as answer:
        metrics = answer.read().decode()

    told = set(re.findall(r"`(/[a-z0-9/-]+)`", text)) - {"/docs", "/openapi.json"}
    assert told <= paths
    assert {path for path in paths if path.startswith("/v1/")} <= told
    for name in re.findall(r"`(turnover_api_\w+)`", text):
        assert name in metrics


def test_readiness_says_what_the_page_says() -> None:
    assert {"snapshot", "cutoff", "age_seconds", "model_version", "problems"} <= set(Readiness.model_fields)
