"""Automatic decisions on record: what a sensor or schedule returns, told in words and kept.

What belongs here: turning what Dagster gets into a row of the log, and schedules whose decisions are kept.
What does not: deciding (the sensors, schedules.py, housekeeping.py), the log (storage/decision_log.py).
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from logging import getLogger
from typing import TypeVar

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from dagster._utils.schedules import is_valid_cron_string

from turnover_assets.defs import jobs
from turnover_assets.defs.partitions import name_of
from turnover_assets.errors import HomeError, TurnoverError
from turnover_assets.settings import PREFIX, Settings
from turnover_assets.storage.decision_log import Decision, DecisionLog

Evaluated = TypeVar("Evaluated", bound=dg.SensorResult | dg.RunRequest | dg.SkipReason | None)


def recorded(settings: Settings, automation: str, look: Callable[[], Evaluated]) -> Evaluated:
    """Let a sensor or schedule decide, and keep what it decided; a log that cannot be written stops nothing.

    Args:
        settings: The settings.
        automation: Name of the sensor or schedule.
        look: What decides.
    """
    try:
        found = look()
    except Exception as error:
        _keep(settings, Decision(automation, "failed", f"{type(error).__name__}: {error}"))
        raise
    _keep(settings, decision_of(automation, found))
    return found


def recorded_schedule(
    settings: Settings,
    name: str,
    setting: str,
    job: str,
    description: str,
    look: Callable[[dg.ScheduleEvaluationContext], dg.RunRequest | dg.SkipReason],
) -> dg.ScheduleDefinition:
    """A schedule, switched on, in the time zone of the settings, whose decisions are kept.

    Args:
        settings: The settings.
        name: Its name.
        setting: The field of the settings that says when it is due.
        job: The job that it asks for.
        description: What it does.
        look: What decides.

    Raises:
        TurnoverError: The setting is no line of cron.
    """
    line = str(getattr(settings, setting))
    if not is_valid_cron_string(line):
        raise TurnoverError(
            f"{PREFIX}{setting.upper()}: {line!r} is no line of cron. Write minute, hour, day of month, "
            "month and day of week, for example 0 6 * * 1 for Mondays at 6:00."
        )

    @dg.schedule(
        name=name,
        cron_schedule=line,
        execution_timezone=settings.timezone,
        job_name=job,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return recorded(settings, name, lambda: look(context))

    return schedule


def _keep(settings: Settings, decision: Decision) -> None:
    try:
        DecisionLog(settings.decisions_path).record(decision, datetime.now(UTC))
    except HomeError as error:
        getLogger(__name__).warning("%s", error)


def decision_of(automation: str, found: dg.SensorResult | dg.RunRequest | dg.SkipReason | None) -> Decision:
    """What was decided, from what Dagster gets."""
    if isinstance(found, dg.SensorResult):
        requests = list(found.run_requests or [])
        skipped = found.skip_reason.skip_message if found.skip_reason else None
    else:
        requests = [found] if isinstance(found, dg.RunRequest) else []
        skipped = found.skip_message if isinstance(found, dg.SkipReason) else None
    if requests:
        keys = [str(request.run_key) for request in requests]
        return Decision(automation, "requested", _asked_for(requests), keys)
    return Decision(automation, "skipped", skipped or "Nothing to do.")


def _asked_for(requests: Sequence[dg.RunRequest]) -> str:
    """What the runs are for, a sentence each."""
    return " ".join(f"{_purpose(request)} Attempt {_attempt(request)}." for request in requests)


def _purpose(request: dg.RunRequest) -> str:
    tags = request.tags
    first, last = tags.get(ASSET_PARTITION_RANGE_START_TAG), tags.get(ASSET_PARTITION_RANGE_END_TAG)
    if first and last:
        count = int(tags.get(jobs.FILES_TAG, 1))
        names = name_of(first) if first == last else f"{name_of(first)} to {name_of(last)}"
        return f"Landing {count} file{'' if count == 1 else 's'}: {names}."
    if reason := tags.get(jobs.REASON_TAG):
        return reason
    return f"What landed ({tags.get(jobs.CAUSE_TAG)}) and what it is made with have changed since publishing."


def _attempt(request: dg.RunRequest) -> str:
    return request.tags.get(jobs.ATTEMPT_TAG, "1")
