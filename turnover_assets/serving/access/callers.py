"""Callers, their scopes, and the guard of each route.

What belongs here: what routes need. What does not: how a caller is recognised (middleware.py).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request

from turnover_assets.core.api_keys import SCOPES, Rate, Scope
from turnover_assets.serving.problems import Problem

HOW = (
    "Send a key in the header X-API-Key, or a token as Authorization: Bearer; `turnover keys create` makes a "
    "key."
)


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        id: Identifies the key or person in the audit; never a secret.
        name: For people.
        scopes: What may be done.
        rate: How often; None for as often as is wanted.
        ab_share: Share of the series that the challenger answers; None where the caller takes part in no
            test.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    rate: Rate | None = None
    ab_share: float | None = None


LOCAL = Caller("local", "this machine", frozenset(SCOPES))


def unrecognised(detail: str = "No valid API key or token came with the request.") -> Problem:
    """The answer to who was not recognised."""
    return Problem(401, detail, HOW, headers={"WWW-Authenticate": "Bearer"})


def require(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency of routes: gives the caller, who must have the scope.

    The middleware of access puts the caller into `request.state.caller`; where nobody was recognised it is
    None.
    """

    async def guard(request: Request) -> Caller:
        caller: Caller | None = request.state.caller
        if caller is None:
            raise unrecognised()
        if scope not in caller.scopes:
            raise Problem(
                403,
                f"This needs the scope {scope!r}, which {caller.name!r} has not.",
                "Ask whoever runs the service for a key that has it: `turnover keys create --scope "
                f"{scope}`.",
            )
        return caller

    return guard
