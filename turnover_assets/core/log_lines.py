"""Logs that programs read: one JSON object a line, without secrets.

What belongs here: the form of a line. What does not: what is logged, and where it goes.
"""

import json
import re
from datetime import UTC, datetime
from math import isfinite
from typing import Any

HIDDEN = "***"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
SECRETS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)",  # scheme://user:password@host
        r"(\bhttps?://[^\s/]*hooks?\.[^\s/]+/)[^\s\"']+",  # the path of a webhook is its key
        r"(\b\w*(?:password|passwd|secret|token|api_?key)\w*[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&]+",
        r"(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}",  # a header that authorises
    )
]


def log_line(at: datetime, level: str, message: str, **facts: Any) -> str:
    """A line of log; facts that are None are left out, and texts are rid of what looks like a secret.

    Args:
        at: When; told in UTC.
        level: Name of the level, for example `INFO`.
        message: What happened, in words.
        **facts: What programs select by, such as `run_id`.

    Example:
        >>> log_line(datetime(2030, 1, 1, tzinfo=UTC), "INFO", "landed", run_id="1", step=None)
        '{"time": "2030-01-01T00:00:00.000000Z", "level": "INFO", "message": "landed", "run_id": "1"}'
    """
    when = at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    line = {"time": when, "level": level, "message": message, **facts}
    shown = {name: _clean(value) for name, value in line.items() if value is not None}
    return json.dumps(shown, ensure_ascii=False, default=str)


def relayed_line(written: str, at: datetime) -> str:
    r"""The line of log of what another program wrote: its own JSON line, Dagster's, or any text.

    Args:
        written: What it wrote, one line.
        at: When it was read, for text that does not say it.

    Returns:
        The line; empty where nothing was written.

    Example:
        >>> relayed_line("\x1b[34mServing\x1b[0m\n", datetime(2030, 1, 1, tzinfo=UTC))
        '{"time": "2030-01-01T00:00:00.000000Z", "level": "INFO", "message": "Serving"}'
    """
    text = COLOURS.sub("", written).strip()
    if not text:
        return ""
    try:
        found = json.loads(text)
        if {"time", "level", "message"} <= found.keys():
            return text
        when = datetime.fromisoformat(found["timestamp"])
        level, message, source = str(found["level"]).upper(), str(found["event"]), found.get("logger")
    except (ValueError, LookupError, TypeError, AttributeError):
        return log_line(at, "INFO", text)
    return log_line(when, level, message, logger=source)


def without_secrets(text: str) -> str:
    """A text in which passwords, tokens, keys and webhooks' paths are hidden.

    Example:
        >>> without_secrets("postgres://ada:hunter2@db/x with token=abc")
        'postgres://ada:***@db/x with token=***'
    """
    for pattern in SECRETS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def _clean(value: Any) -> Any:
    """Secrets hidden in texts; numbers that are not finite, which JSON does not know, as nothing."""
    if isinstance(value, str):
        return without_secrets(value)
    return None if isinstance(value, float) and not isfinite(value) else value
