"""Failures: the error in Dagster's records that tells a person why a run failed.

What belongs here: finding it in a chain of errors. What does not: what is said with it.
"""

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster_shared.error import SerializableErrorInfo

from turnover_assets import errors

SIGNALS = {DagsterExecutionInterruptedError.__name__, KeyboardInterrupt.__name__}


def is_ours(error: SerializableErrorInfo) -> bool:
    """Whether an error is one of ours, whose message was written for people."""
    return hasattr(errors, error.cls_name or "")


def telling(error: SerializableErrorInfo) -> SerializableErrorInfo:
    """Of an error and its causes the first that is ours, else the innermost."""
    while error.cause is not None and not is_ours(error):
        error = error.cause
    return error


def was_stopped(event: dg.DagsterEvent) -> bool:
    """Whether a step or run failed since its process was told to stop; a library may tell it as an error."""
    what = event.event_specific_data if event.is_failure else None
    error: SerializableErrorInfo | None = getattr(what, "error", None)
    while error is not None and error.cls_name not in SIGNALS:
        error = error.cause
    return error is not None
