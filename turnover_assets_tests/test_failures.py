"""Tests of failures: which error in Dagster's records tells a person why a run failed."""

import os
import signal
import threading

import dagster as dg
import duckdb
import pytest

from turnover_assets.defs.failures import was_stopped


def stop_this_process() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def result_of(body: dg.OpDefinition) -> dg.ExecuteInProcessResult:
    job = dg.GraphDefinition(name="job", node_defs=[body]).to_job()
    return job.execute_in_process(raise_on_error=False)


@dg.op
def stopped_in_python() -> None:
    stop_this_process()
    threading.Event().wait(60)


@dg.op
def stopped_in_a_query() -> None:
    """DuckDB tells it as an error of its own."""
    later = threading.Timer(0.2, stop_this_process)
    later.start()
    duckdb.connect().execute("SELECT sum(a.range * b.range) FROM range(10000000) a, range(100000) b")


@dg.op
def failing() -> None:
    raise RuntimeError("Query interrupted") from KeyError("this")


@pytest.mark.parametrize(
    ("body", "expected"), [(stopped_in_python, True), (stopped_in_a_query, True), (failing, False)]
)
def test_a_stop_is_told_from_a_failure(body: dg.OpDefinition, expected: bool) -> None:
    result = result_of(body)
    assert not result.success
    assert any(was_stopped(event) for event in result.all_events) is expected
