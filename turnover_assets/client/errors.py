"""What can go wrong between a client and the API, with what the API says of it.

What belongs here: exceptions. What does not: when to try again (retries.py).
"""

import json
from collections.abc import Mapping
from typing import Any

import httpx

from turnover_assets.errors import TurnoverError


class ClientError(TurnoverError):
    """Anything that goes wrong between the client and the API."""


class UnreachableError(ClientError):
    """No answer came: the service is not there, or did not answer in time.

    Args:
        url: What was asked for.
        problem: What happened.
    """

    def __init__(self, url: str, problem: str) -> None:
        self.url = url
        super().__init__(
            f"No answer from {url} ({problem}). See that the service runs there (`turnover serve`), and that "
            "this machine can reach it; a longer timeout helps where answers are large."
        )


class ApiError(ClientError):
    """The API answered that it does not answer.

    Args:
        status: The HTTP status.
        problem: The problem document; see docs/api.md. Empty where another program answered.
        request_id: Under which the service's log tells more; may be empty.

    Attributes:
        detail: What is wrong, in a sentence.
        remedy: What to do about it.
        fields: What is wrong with each parameter or field of the body.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], request_id: str = "") -> None:
        self.status, self.problem, self.request_id = status, dict(problem), request_id
        self.detail = str(problem.get("detail", "The answer is no problem document."))
        self.remedy = str(problem.get("remedy", "See that the address is that of the API, not of a page."))
        self.fields = {str(one["field"]): str(one["detail"]) for one in problem.get("problems", ())}
        more = [f"{field}: {text}" for field, text in self.fields.items() if text != self.detail]
        lines = [f"{status}: {self.detail}", *(f"  - {line}" for line in more), self.remedy]
        super().__init__("\n".join(lines) if more else " ".join(lines))


class NotAllowedError(ApiError):
    """The key is missing, unknown, or has not the scope that is needed (401, 403)."""


class NotFoundError(ApiError):
    """There is no such series, member, cutoff or path (404)."""


class SnapshotGoneError(ApiError):
    """Later pages are of a snapshot that is no longer kept (410)."""


class BusyError(ApiError):
    """The service asked to wait longer or more often than the client was told to (429, 503)."""


KINDS: Mapping[int, type[ApiError]] = {
    401: NotAllowedError,
    403: NotAllowedError,
    404: NotFoundError,
    410: SnapshotGoneError,
    429: BusyError,
    503: BusyError,
}


def error_of(response: httpx.Response) -> ApiError:
    """The exception that an answer stands for."""
    try:
        found = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        found = {}
    problem = found if isinstance(found, dict) and "detail" in found else {}
    request_id = response.headers.get("x-request-id", "")
    return KINDS.get(response.status_code, ApiError)(response.status_code, problem, request_id)
