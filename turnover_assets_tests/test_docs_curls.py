"""Every curl that the documentation shows is run: here those with a key, and of the container stack."""

import csv
import io
import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.api_factories import publish
from turnover_assets_tests.proxy_factories import PARTS, running_proxy
from turnover_assets_tests.test_access_server import needs_curl
from turnover_assets_tests.test_api_docs import examples
from turnover_assets_tests.test_api_serve import served
from turnover_assets_tests.test_docs import REPOSITORY
from turnover_assets_tests.waiting import wait_until

README, ACCESS, DEPLOYMENT = "README.md", "docs/access.md", "docs/deployment.md"
RUN_HERE = {README: 1, ACCESS: 2, DEPLOYMENT: 1}
CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
REFUSED = 22  # what curl ends with where it is to fail on a status


def curls(page: Path) -> list[str]:
    """The lines of code of a page that call curl, without remarks."""
    code = "\n".join(block or words for block, words in CODE.findall(page.read_text("utf-8")))
    return [line.strip() for line in code.splitlines() if re.search(r"\bcurl\s+[-\"'h$]", line)]


def documented() -> dict[str, list[str]]:
    pages = [REPOSITORY / README, *sorted((REPOSITORY / "docs").rglob("*.md"))]
    found = {str(page.relative_to(REPOSITORY)): curls(page) for page in pages}
    return {name: lines for name, lines in found.items() if lines}


def test_every_curl_of_the_documentation_is_run_by_a_test() -> None:
    found = documented()
    of_the_api = [line for name in sorted(found.keys() - RUN_HERE) for line in found[name]]

    assert {name: len(found[name]) for name in RUN_HERE} == RUN_HERE
    assert found.keys() - RUN_HERE == {"docs/api.md", "docs/what-if.md"}
    assert sorted(of_the_api) == sorted(line for example in examples() for line in example.requests)


def run(line: str, base: str, folder: Path, key: str = "") -> tuple[int, str]:
    """Exit code and output of a line, to a server elsewhere."""
    for documented_address in ("http://127.0.0.1:8000", "https://localhost:8443"):
        line = line.replace(documented_address, base)
    words = [*shlex.split(line.replace("$KEY", key)), "--silent", "--show-error", "--max-time", "30"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def home(served_home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home of one's own, which gets keys."""
    settings = served_home.model_copy(update={"home": tmp_path_factory.mktemp("asked")})
    settings.published_path.mkdir()
    publish(settings.published_path, current(served_home.published_path))
    return settings


@pytest.fixture(scope="module")
def base(home: Settings) -> Iterator[str]:
    with served(home) as (_, address, _):
        yield address


def created_key(home: Settings) -> str:
    """A key as the pages have it made."""
    words = ["keys", "create", "--name", f"reporting {time.monotonic_ns()}", "--scope", "read"]
    made = CliRunner().invoke(app, words, env={"TURNOVER_HOME": str(home.home)})
    assert made.exit_code == 0, made.output
    return made.stdout.strip()


@pytest.mark.slow
@needs_curl
def test_readme_asks_the_total_until_a_key_is_needed_and_keys_open_it_as_documented(
    base: str, home: Settings, tmp_path: Path
) -> None:
    found = documented()
    (open_to_all,) = found[README]
    code, text = run(open_to_all, base, tmp_path)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(text)))
    total = current(home.published_path).read("aggregates").query("level == 'total'")
    assert [float(row["forecast"]) for row in rows] == pytest.approx(
        total.sort_values("horizon")["forecast"].tolist()
    )

    key = created_key(home)
    wait_until(lambda: run(f"{open_to_all} --fail", base, tmp_path)[0] == REFUSED)

    for line in found[ACCESS]:
        code, text = run(line, base, tmp_path, key)
        assert code == 0
        assert len(json.loads(text)["data"]) == len(current(home.published_path).read("forecasts"))
        assert run(line, base, tmp_path, key[:-1])[0] == REFUSED


@pytest.mark.slow
@needs_curl
def test_the_key_of_the_stack_opens_the_api_through_its_proxy(
    base: str, home: Settings, tmp_path: Path
) -> None:
    (line,) = documented()[DEPLOYMENT]
    key = created_key(home)
    parts = {**dict.fromkeys(PARTS, "127.0.0.1:1"), "api": base.removeprefix("http://")}
    with running_proxy(tmp_path, parts) as proxy:
        through = f"https://localhost:{proxy.port}"
        asked = partial(run, line, through, tmp_path, key)
        wait_until(lambda: "data" in json.loads(asked()[1]))  # the server looks for new keys now and then
        answer = json.loads(asked()[1])
        refused = json.loads(run(line, through, tmp_path, key[:-1])[1])
        untrusted, _ = run(line.replace("--cacert stack/secrets/tls_certificate", ""), through, tmp_path, key)

    assert len(answer["data"]) == len(current(home.published_path).read("forecasts"))
    assert refused["status"] == 401
    assert untrusted == 60  # nobody knows who signed its certificate
