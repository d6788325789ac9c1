"""Failures: the error in Dagster's records that tells a person why a run failed.

What belongs here: finding it in a chain of errors. What does not: what is said with it.
"""

from dagster_shared.error import SerializableErrorInfo

from turnover_assets import errors


def is_ours(error: SerializableErrorInfo) -> bool:
    """Whether an error is one of ours, whose message was written for people."""
    return hasattr(errors, error.cls_name or "")


def telling(error: SerializableErrorInfo) -> SerializableErrorInfo:
    """Of an error and its causes the first that is ours, else the innermost."""
    while error.cause is not None and not is_ours(error):
        error = error.cause
    return error
