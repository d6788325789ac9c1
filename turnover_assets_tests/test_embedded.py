"""Tests of failures: which error in Dagster's records tells a person why a run failed."""

import os
import signal
import threading

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from turnover_assets.defs.failures import was_stopped


def result_of(body: dg.OpDefinition) -> dg.ExecuteInProcessResult:
    job = dg.GraphDefinition(name="job", node_defs=[body]).to_job()
    return job.execute_in_process(raise_on_error=False)


@dg.op
def stopped_in_python() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(60)


@dg.op
def stopped_in_a_query() -> None:
    """As DuckDB tells it: an error of its own, whose cause is what the handler of the signal raised."""
    raise RuntimeError("Query interrupted") from DagsterExecutionInterruptedError


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
