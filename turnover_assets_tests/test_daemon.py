"""The real daemon: a dropped file with nobody pressing a button, and some weeks in fast motion.

A whole year is benchmarks/year.py.
"""

import time
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest

from turnover_assets.defs import common, jobs
from turnover_assets.defs.partitions import CUTOFFS, name_of
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.factories import Landed, next_week
from turnover_assets_tests.fast_motion import account, fast_motion
from turnover_assets_tests.fast_motion.looks import LOOKS
from turnover_assets_tests.fast_motion.year import WEEKS, Year
from turnover_assets_tests.ui_factories import ask, running_ui
from turnover_assets_tests.waiting import wait_until

ENDS_WITHIN = 60  # seconds: whoever hangs does so for longer, even on a busy machine


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_weeks_with_planted_events_are_noticed_and_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    told: list[str] = []
    quick = {"training_share": 0.003, "sensor_interval_seconds": 1}
    with fast_motion(tmp_path, WEEKS, told.append, **quick) as year:
        year.run()

        assert unnoticed(year) == [], told
        assert (account.lost(year), account.doubled(year)) == (0, 0)
        assert (account.repeated(year), account.unplanned(year)) == ([], [])
        assert {*year.seen} == {*LOOKS}


def unnoticed(year: Year) -> list[str]:
    return [event for event, seen in year.seen.items() if not seen.noticed]


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
    settings = copied.settings
    before = current(settings.published_path)
    log = tmp_path / "ui.log"
    with running_ui(settings, log) as (process, _):
        (settings.landing_path / "new.csv").write_text(next_week(copied))
        wait_until(lambda: current(settings.published_path) != before, f"it publishes, see {log}")
        children = psutil.Process(process.pid).children(recursive=True)
        listening = addresses(children)
        code_servers = [child.pid for child in children if {"api", "grpc"} <= {*child.cmdline()}]
        began = time.monotonic()
    _, alive = psutil.wait_procs(children, timeout=max(0.0, began + ENDS_WITHIN - time.monotonic()))

    after = current(settings.published_path)
    assert after.facts["cutoff"] > before.facts["cutoff"]
    files = after.read("files")
    assert files["name"].tolist().count("new.csv") == 1
    assert len(files) == len(before.read("files")) + 1
    assert landings_of(copied, "new.csv") == 1
    assert listening == {"127.0.0.1"}
    assert len(code_servers) == 1  # shared by page and daemon
    assert (process.returncode, alive) == (0, [])
    assert time.monotonic() - began < ENDS_WITHIN


def landings_of(home: Landed, name: str) -> int:
    """How often a file's partition was materialised; also makes sure that each job ran once for it."""
    with dg.DagsterInstance.from_config(str(home.settings.dagster_path)) as instance:
        (key,) = [k for k in instance.get_materialized_partitions(common.LANDED) if name_of(k) == name]
        made = [run.job_name for run in instance.get_runs() if "dagster/sensor_name" in run.tags]
        assert sorted(made) == [jobs.INGEST, jobs.REFRESH]
        records = dg.AssetRecordsFilter(asset_key=common.LANDED, asset_partitions=[key])
        return len(instance.fetch_materializations(records, limit=10).records)


LAUNCH = """mutation Fill($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
STATUS = """query Status($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status } ... on PythonError { message } } }"""


@pytest.mark.slow
def test_past_cutoffs_chosen_in_the_page_are_forecast_in_one_run_and_published(
    copied: Landed, tmp_path: Path
) -> None:
    settings, log = copied.settings, tmp_path / "ui.log"
    with dg.DagsterInstance.from_config(str(settings.dagster_path)) as instance:
        cutoffs = instance.get_dynamic_partitions(str(CUTOFFS.name))[-3:]
    chosen = {"assetSelection": [{"path": common.AS_OF.path}], "partitionNames": cutoffs}

    with running_ui(settings, log) as (_, port):
        backfill = ask(port, LAUNCH, params=chosen)["launchPartitionBackfill"]["backfillId"]

        def status() -> str:
            return str(ask(port, STATUS, id=backfill)["partitionBackfillOrError"]["status"])

        wait_until(lambda: status().startswith("COMPLETED"), f"the backfill ends, see {log}", every=0.5)
        assert status() == "COMPLETED_SUCCESS"
        wait_until(
            lambda: "forecasts_as_of" in current(settings.published_path).facts["tables"],
            f"it is published, see {log}",
        )

    published = current(settings.published_path).read("forecasts_as_of")
    assert sorted(published["cutoff"].astype(str).unique()) == sorted(cutoffs)
    assert published["actual"].notna().any()  # the past is known by now
    with dg.DagsterInstance.from_config(str(settings.dagster_path)) as instance:
        made = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}))
        assert [run.status for run in made] == [dg.DagsterRunStatus.SUCCESS]  # one run, one cutoff at a time
        assert {*cutoffs} == {*instance.get_materialized_partitions(common.AS_OF)}
