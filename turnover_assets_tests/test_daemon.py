"""The real daemon: a dropped file with nobody pressing a button, and some weeks in fast motion.

A whole year is benchmarks/year.py.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest

from turnover_assets.defs import common, jobs
from turnover_assets.defs.partitions import name_of
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.factories import QUICK, Landed, free_port, next_week
from turnover_assets_tests.year import WEEKS, Year, fast_motion

MODULE = [sys.executable, "-m", "turnover_assets.cli"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_weeks_with_planted_events_are_noticed_and_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    told: list[str] = []
    with fast_motion(tmp_path, WEEKS, told.append, sensor_interval_seconds=1) as year:
        year.run()

        assert unnoticed(year) == [], told
        assert (year.lost(), year.doubled()) == (0, 0)
        assert year.repeated_runs() == []
        assert set(year.seen) == {"bad file", "late file", "restatement", "killed run", "killed daemon"}


def unnoticed(year: Year) -> list[str]:
    return [event for event, seen in year.seen.items() if not seen.noticed]


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s until {what}"
        time.sleep(0.25)


def answers(port: int) -> bool:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": "{ version }"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return "version" in json.load(response)["data"]
    except OSError:
        return False


def addresses(processes: list[psutil.Process]) -> set[str]:
    """Where processes listen; one that has ended meanwhile listens nowhere."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            connections = process.net_connections("inet")
            found |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    return found


@pytest.mark.slow
def test_the_ui_lands_a_dropped_file_publishes_and_ends_whole(copied: Landed, tmp_path: Path) -> None:
    settings, port = copied.settings, free_port()
    before = current(settings.published_path)
    environment = {
        **os.environ,
        "TURNOVER_HOME": str(settings.home),
        **{f"TURNOVER_{name.upper()}": str(value) for name, value in QUICK.items()},
        "TURNOVER_SENSOR_INTERVAL_SECONDS": "2",
    }
    log = tmp_path / "ui.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*MODULE, "ui", "--port", str(port)], env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: answers(port), 90, f"GraphQL answers, see {log}")
        (settings.landing_path / "new.csv").write_text(next_week(copied))
        wait_until(lambda: current(settings.published_path) != before, 150, f"it publishes, see {log}")
        children = psutil.Process(process.pid).children(recursive=True)
        listening = addresses(children)
        code_servers = [child.pid for child in children if {"api", "grpc"} <= {*child.cmdline()}]
    finally:
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        code = process.wait(60)
    _, alive = psutil.wait_procs(children, timeout=max(0.0, began + 25 - time.monotonic()))

    after = current(settings.published_path)
    assert after.facts["cutoff"] > before.facts["cutoff"]
    files = after.read("files")
    assert files["name"].tolist().count("new.csv") == 1
    assert len(files) == len(before.read("files")) + 1
    assert landings_of(copied, "new.csv") == 1
    assert listening == {"127.0.0.1"}
    assert len(code_servers) == 1  # shared by page and daemon
    assert (code, alive) == (0, [])
    assert time.monotonic() - began < 25


def landings_of(home: Landed, name: str) -> int:
    """How often a file's partition was materialised; also makes sure that each job ran once for it."""
    with dg.DagsterInstance.from_config(str(home.settings.dagster_path)) as instance:
        (key,) = [k for k in instance.get_materialized_partitions(common.LANDED) if name_of(k) == name]
        made = [run.job_name for run in instance.get_runs() if "dagster/sensor_name" in run.tags]
        assert sorted(made) == [jobs.INGEST, jobs.REFRESH]
        records = dg.AssetRecordsFilter(asset_key=common.LANDED, asset_partitions=[key])
        return len(instance.fetch_materializations(records, limit=10).records)
