"""What Dagster's runs write to the terminal, wherever they run: text from INFO on, or JSON lines.

What belongs here: the log handler that dagster.yaml names. What does not: what is kept and shown in the page,
which is everything.

Dagster hands each record to its event log first, then to the handlers that dagster.yaml names, then to a
console logger of its own that prints every event; that one is chosen by the configuration of each run, so it
cannot be replaced for all runs at once. It skips records without a level, hence this handler, having seen a
record, takes the level off those that are not for the terminal.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

from turnover_assets.core.log_lines import log_line
from turnover_assets.defs.jobs import ATTEMPT_TAG
from turnover_assets.settings import wanted_log_format

EVENTS = {
    "PIPELINE_START",
    "PIPELINE_SUCCESS",
    "PIPELINE_FAILURE",
    "PIPELINE_CANCELED",
    "STEP_START",
    "STEP_SUCCESS",
    "STEP_FAILURE",
    "STEP_UP_FOR_RETRY",
    "STEP_RESTARTED",
    "ASSET_MATERIALIZATION",
    "ASSET_CHECK_EVALUATION",
}


class TerminalHandler(logging.Handler):
    """Writes JSON lines where they are asked for, and keeps the terminal free of what is not for it."""

    def __init__(self) -> None:
        super().__init__()
        self._json = wanted_log_format() == "json"

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record in."""
        if self._json:
            if line := line_of(record):
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
            record.levelno = logging.NOTSET
        elif record.levelno < logging.INFO:
            record.levelno = logging.NOTSET


def line_of(record: logging.LogRecord) -> str:
    """The JSON line of a record of a run; empty for what only Dagster itself needs to know."""
    about, event = getattr(record, "dagster_meta", {}), getattr(record, "dagster_event", None)
    facts, level = {}, record.levelname
    if event is not None:
        if event.event_type_value not in EVENTS:
            return ""
        facts, level = _event_facts(event), _level(event, record.levelno)
    elif record.levelno < logging.INFO:
        return ""
    elif record.exc_info and record.exc_info[0]:
        facts = {"exception": record.exc_info[0].__name__, "error": str(record.exc_info[1])}
    return log_line(
        datetime.fromtimestamp(record.created, UTC),
        level,
        about.get("orig_message") or record.getMessage(),
        run_id=about.get("run_id"),
        job=about.get("job_name"),
        step=about.get("step_key"),
        attempt=int((about.get("job_tags") or {}).get(ATTEMPT_TAG, 1)),
        **facts,
    )


def _event_facts(event: Any) -> dict[str, Any]:
    """What an event says beyond its message."""
    facts: dict[str, Any] = {"event": event.event_type_value.replace("PIPELINE", "RUN")}
    if event.event_type_value == "STEP_SUCCESS":
        facts["seconds"] = event.step_success_data.duration_ms / 1000
    elif event.event_type_value == "ASSET_MATERIALIZATION":
        facts["asset"] = event.asset_key.to_user_string()
    elif event.event_type_value == "ASSET_CHECK_EVALUATION":
        found = event.asset_check_evaluation_data
        facts |= {
            "asset": found.asset_key.to_user_string(),
            "check": found.check_name,
            "passed": found.passed,
        }
    error = getattr(event.event_specific_data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    if error is not None:
        facts |= {"exception": error.cls_name, "error": error.message.strip()}
    return facts


def _level(event: Any, level: int) -> str:
    """Events that Dagster logs as DEBUG are INFO here, and failed checks are warnings."""
    if event.event_type_value == "ASSET_CHECK_EVALUATION" and not event.asset_check_evaluation_data.passed:
        return "WARNING"
    return logging.getLevelName(max(level, logging.INFO))
