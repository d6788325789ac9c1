"""Prometheus itself: it checks and tests the shipped rules, scrapes `turnover metrics`, and loads them."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._daemon.types import DaemonHeartbeat

from turnover_assets import __version__
from turnover_assets.core.operator_metrics import METRICS
from turnover_assets.embedded import open_instance
from turnover_assets.runner import bring_up_to_date
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.api_factories import client_of
from turnover_assets_tests.factories import Landed, free_port, next_week, quiet
from turnover_assets_tests.test_docs import anchors
from turnover_assets_tests.waiting import PATIENCE

REPOSITORY = Path(__file__).resolve().parent.parent
SHIPPED = REPOSITORY / "deploy" / "prometheus"
GROUPS = yaml.safe_load((SHIPPED / "turnover.rules.yml").read_text("utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
GRAFANA = REPOSITORY / "deploy" / "grafana"
# What Grafana asks that has no answer in a home that is well and that no daemon looks after, and why.
FIRING = 'ALERTS{alertstate="firing"}'
WITHOUT_DATA = {
    FIRING: "no alert fires",
    f"max by (alertname, severity, job, part, daemon, level, member) ({FIRING})": "the same",
    "time() - turnover_sensor_last_tick_timestamp_seconds": "sensors look only where the daemon runs",
}


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian's package prometheus)")
    return found


# The rules, without Prometheus -------------------------------------------------------------------


@pytest.mark.parametrize("name", list(ALERTS))
def test_every_alert_waits_says_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]

    assert re.fullmatch(r"Turnover[A-Z]\w+", name)
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    page, _, heading = rule["annotations"]["runbook"].partition("#")
    assert heading in anchors(REPOSITORY / page)


def test_rules_speak_of_metrics_that_there_are(plain: Landed) -> None:
    with client_of(plain.settings) as client:
        served = set(re.findall(r"^# TYPE (\w+)", client.get("/metrics").text, re.MULTILINE))
    named = {name for rule in RULES for name in re.findall(r"\bturnover[:_][a-z_:]+", rule["expr"])}

    assert named <= {*METRICS, *RECORDED, *served}
    assert named >= RECORDED


def test_every_alert_is_made_to_fire_by_a_unit_test() -> None:
    tests = (SHIPPED / "turnover.rules.test.yml").read_text("utf-8")

    fired = re.findall(r'\{alertname="(\w+)"\}', tests)

    assert sorted(fired) == sorted(ALERTS)


# Prometheus --------------------------------------------------------------------------------------


@pytest.mark.prometheus
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "turnover.rules.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "turnover.rules.test.yml"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments], cwd=SHIPPED, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def running(command: list[str], log: Path, **others: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own, ended with the block; what it said is in the log."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, **others)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE)


def wait_for(question: Callable[[], Any], *logs: Path) -> Any:
    """The first answer that is true."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            if answer := question():
                return answer
        except urllib.error.URLError:
            pass  # it does not listen yet
        time.sleep(0.1)
    return pytest.fail("nothing came; the logs:\n" + "\n".join(log.read_text() for log in logs))


def ask(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return str(answer.read().decode())


@dataclass(frozen=True)
class Watched:
    """A home whose metrics a Prometheus of its own reads each second.

    Attributes:
        api: Address of Prometheus' API.
        logs: Where both processes write.
        metrics: The process of the endpoint.
    """

    api: str
    logs: tuple[Path, Path]
    metrics: subprocess.Popen[bytes]

    def query(self, text: str) -> list[Any]:
        """What Prometheus answers now."""
        answer = json.loads(ask(f"{self.api}/query?{urllib.parse.urlencode({'query': text})}"))
        return list(answer["data"]["result"])

    def wait_for(self, text: str) -> list[Any]:
        """The first answer that is not empty."""
        found: list[Any] = wait_for(lambda: self.query(text), *self.logs)
        return found


@contextmanager
def watched(settings: Settings, folder: Path) -> Iterator[Watched]:
    """Prometheus with what ships, but a scrape each second, and the endpoint that it scrapes."""
    prometheus, (ours, theirs) = tool("prometheus"), (free_port(), free_port())
    shutil.copytree(SHIPPED, folder / "config")
    shipped = (folder / "config" / "prometheus.yml").read_text("utf-8")
    adapted = shipped.replace("127.0.0.1:9464", f"127.0.0.1:{ours}").replace(" 30s", " 1s")
    (folder / "config" / "prometheus.yml").write_text(adapted)
    told, said = folder / "metrics.log", folder / "prometheus.log"
    endpoint = [sys.executable, "-m", "turnover_assets.cli", "metrics", "--port", str(ours)]
    server = [
        prometheus,
        f"--config.file={folder / 'config' / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{theirs}",
    ]
    with running(endpoint, told, env={**os.environ, **settings.environment()}) as metrics:
        wait_for(lambda: ask(f"http://127.0.0.1:{ours}/healthz"), told)
        with running(server, said):
            yield Watched(f"http://127.0.0.1:{theirs}/api/v1", (told, said), metrics)


@pytest.mark.slow
@pytest.mark.prometheus
def test_prometheus_scrapes_the_endpoint_and_evaluates_the_rules(plain: Landed, tmp_path: Path) -> None:
    with watched(plain.settings, tmp_path) as home:
        (found,) = home.wait_for("turnover_build_info")
        (jobs,) = home.wait_for('turnover_runs{job="retrain"}')
        (age,) = home.wait_for("turnover:snapshot_age_seconds")
        groups = json.loads(ask(f"{home.api}/rules"))["data"]["groups"]
        home.metrics.terminate()
        assert home.metrics.wait(PATIENCE) == 0

    assert found["metric"]["version"] == __version__
    assert found["metric"]["job"] == "turnover"
    assert jobs["metric"]["status"] == "success"
    assert float(jobs["value"][1]) == 1
    published = current(plain.settings.published_path).folder.stat().st_mtime
    assert float(age["value"][1]) == pytest.approx(time.time() - published, abs=120)
    loaded = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert set(loaded) == {*ALERTS, *RECORDED}
    assert set(loaded.values()) <= {"ok", "unknown"}  # unknown: not evaluated yet


# Grafana's questions -----------------------------------------------------------------------------


def asked_by_grafana() -> dict[str, str]:
    """Every expression that dashboards and alerts of Grafana ask Prometheus for, with who asks."""
    found = {}
    for path in sorted((GRAFANA / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            found |= {one["expr"]: panel["title"] for one in panel.get("targets", ())}
    alerts = yaml.safe_load((GRAFANA / "provisioning" / "alerting" / "turnover.yaml").read_text("utf-8"))
    for rule in (rule for group in alerts["groups"] for rule in group["rules"]):
        found |= {step["model"]["expr"]: rule["title"] for step in rule["data"] if "expr" in step["model"]}
    return found


@pytest.mark.slow
@pytest.mark.prometheus
def test_every_panel_of_grafana_shows_something_of_a_home_that_is_well(
    copied: Landed, tmp_path: Path
) -> None:
    (copied.folder / "next.csv").write_text(next_week(copied))  # so that forecasts can be judged
    bring_up_to_date(copied.settings, copied.folder, quiet)
    with open_instance(copied.settings) as instance:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", None, None))

    with watched(copied.settings, tmp_path / "watched") as home:
        for last in (
            "turnover:home_free:ratio",
            "turnover:data_age_seconds",
            "turnover_forecast_wape_ratio",
            "turnover_home_bytes",  # looked up apart from the other readings
        ):
            home.wait_for(last)
        empty = {text for text in asked_by_grafana() if not home.query(text)}

    assert empty == WITHOUT_DATA.keys()
