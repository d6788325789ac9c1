"""The id of a request: one for its answer, its log line and its row in the audit.

What belongs here: choosing it, once, whichever middleware is first. What does not: who keeps it.
"""

import re
from collections.abc import Iterable
from uuid import uuid4

from starlette.types import Scope

from turnover_assets.serving.blanking import blanked

HEADER = b"x-request-id"
Header = tuple[bytes, bytes]
_SANE = re.compile(rb"[0-9A-Za-z._-]{1,64}")


def request_id(scope: Scope) -> str:
    """The id of a request: the one chosen before, the caller's own where it is sane, or a new one.

    Args:
        scope: The request as the server gives it; its state has `request_id` afterwards.
    """
    state = scope.setdefault("state", {})
    known = str(state.get("request_id", ""))
    if not known or blanked(known) != known:
        state["request_id"] = known = _given(scope) or uuid4().hex
    return known


def with_id(headers: Iterable[Header], known: str) -> list[Header]:
    """The headers of an answer, with the id of its request unless they have one."""
    found = list(headers)
    return found if any(name == HEADER for name, _ in found) else [*found, (HEADER, known.encode())]


def _given(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == HEADER and _SANE.fullmatch(value):
            return "" if blanked(text := value.decode()) != text else text
    return ""
