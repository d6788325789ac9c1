"""Dagster in this process: whether it was told to stop, whatever libraries make of that."""

import os
import signal
import threading

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from turnover_assets.embedded import stop_signals


def stop(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    threading.Event().wait(60)


@dg.op
def stopped() -> None:
    stop(signal.SIGINT)


@dg.op
def ended() -> None:
    stop(signal.SIGTERM)


@dg.op
def stopped_in_a_query() -> None:
    """As DuckDB tells it: an error of its own, whose cause is what the handler of the signal raised."""
    try:
        stop(signal.SIGINT)
    except DagsterExecutionInterruptedError as error:
        raise RuntimeError("Query interrupted") from error


@dg.op
def forgotten() -> None:
    """As Dagster does with a signal after the last step."""
    try:
        stop(signal.SIGINT)
    except DagsterExecutionInterruptedError:
        return


@dg.op
def failing() -> None:
    raise RuntimeError("Query interrupted") from KeyError("this")


@pytest.mark.parametrize(
    ("body", "succeeds", "expected"),
    [
        (stopped, False, True),
        (ended, False, True),
        (stopped_in_a_query, False, True),
        (forgotten, True, True),
        (failing, False, False),
    ],
    ids=lambda value: value.name if isinstance(value, dg.OpDefinition) else "",
)
def test_a_stop_is_told_from_a_failure(body: dg.OpDefinition, succeeds: bool, expected: bool) -> None:
    job = dg.GraphDefinition(name="job", node_defs=[body]).to_job()
    with stop_signals() as was_told_to_stop:
        result = job.execute_in_process(raise_on_error=False)
        assert was_told_to_stop() is expected
    assert result.success is succeeds


def test_other_signals_stop_nothing() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with stop_signals() as was_told_to_stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not was_told_to_stop()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_other_threads_are_told_of_no_signal() -> None:
    told: list[bool] = []

    def look() -> None:
        with stop_signals() as was_told_to_stop:
            told.append(was_told_to_stop())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()

    assert told == [False]
