"""Records of runs: what is read from Dagster's log, and what is kept."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pytest

from turnover_assets.core import run_records
from turnover_assets.defs import jobs
from turnover_assets.defs.run_records import read_ended
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.factories import Landed

TAGS = jobs.training_tags("age", "Trained 8 periods ago.") | {jobs.ATTEMPT_TAG: "2"}


@dg.asset(key=["cleaned", "sales"])
def sales(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    context.log.warning("look at this")
    return dg.MaterializeResult(metadata={"dagster/row_count": 12, "bytes": 3_000})


@dg.asset(key=["model", "broken"], deps=[sales])
def broken() -> None:
    raise ValueError("no")


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """One run that ended well, and one of which a step failed."""
    with dg.DagsterInstance.ephemeral() as made:
        dg.materialize([sales], instance=made, tags=TAGS)
        dg.materialize([sales, broken], instance=made, raise_on_error=False)
        yield made


def read(instance: dg.DagsterInstance) -> tuple[pd.DataFrame, pd.DataFrame]:
    runs, steps = read_ended(instance, set())
    return pd.DataFrame(runs), pd.DataFrame(steps)


def test_a_run_is_told_with_its_cause_attempt_duration_and_warnings(instance: dg.DagsterInstance) -> None:
    runs, _ = read(instance)

    well = runs[runs["status"] == "success"].iloc[0]
    assert (well["cause"], well["attempt"], well["warnings"]) == ("Trained 8 periods ago.", 2, 1)
    assert well["seconds"] == pytest.approx((well["ended_at"] - well["started_at"]).total_seconds(), abs=1e-3)
    assert sorted(runs["status"]) == ["failure", "success"]


def test_a_step_is_told_with_what_it_made_how_large_and_how_it_ended(instance: dg.DagsterInstance) -> None:
    runs, steps = read(instance)

    failed = steps[steps["run_id"] == runs[runs["status"] == "failure"]["run_id"].iloc[0]].set_index("step")
    assert failed.loc["cleaned__sales", ["asset", "status", "rows", "bytes"]].tolist() == [
        "cleaned/sales",
        "success",
        12,
        3_000,
    ]
    assert failed.loc["cleaned__sales", "seconds"] > 0
    assert failed.loc["model__broken", "status"] == "failure"
    assert pd.isna(failed.loc["model__broken", "asset"])


def test_runs_on_record_are_not_read_again(instance: dg.DagsterInstance) -> None:
    known = {record.dagster_run.run_id for record in instance.get_run_records()}

    assert read_ended(instance, known) == ([], [])


def run(number: int) -> dict[str, Any]:
    ended = pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(number, "h")
    return {"run_id": f"r{number:04}", "job": "refresh", "status": "success", "ended_at": ended}


def test_the_newest_runs_and_their_steps_are_kept(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_records, "RUNS_KEPT", 3)
    run_records.prepare(con)
    for number in range(5):
        steps = [{"run_id": f"r{number:04}", "step": "clean", "status": "success"}]
        run_records.keep_runs(con, [run(number)], steps)

    assert run_records.known_runs(con) == {"r0002", "r0003", "r0004"}
    assert con.execute(f"SELECT DISTINCT run_id FROM {run_records.STEPS} ORDER BY 1").fetchall() == [
        ("r0002",),
        ("r0003",),
        ("r0004",),
    ]


def test_a_published_snapshot_tells_the_runs_that_had_ended_before(plain: Landed) -> None:
    snapshot = current(plain.settings.published_path)

    runs, steps = snapshot.read("runs"), snapshot.read("steps")

    assert runs["job"].tolist() == [jobs.INGEST]
    landed = steps[steps["asset"] == "raw/landed_files"].iloc[0]
    assert landed["rows"] > 0
    assert snapshot.read("decisions").empty  # nobody decided by himself
