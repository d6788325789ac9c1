"""Who asks, and what they may: callers, their scopes, and the guard of each route.

What belongs here: what routes need. What does not: how a caller is recognised.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, get_args

from fastapi import Request

from turnover_assets.serving.problems import Problem

Scope = Literal["read", "what-if", "adjust", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        id: Identifies the key or person in the audit; never a secret.
        name: For people.
        scopes: What may be done.
    """

    id: str
    name: str
    scopes: frozenset[Scope]


LOCAL = Caller("local", "this machine", frozenset(SCOPES))


def require(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency of routes: gives the caller, who must have the scope.

    The middleware of access puts the caller into `request.state.caller`; where nobody was recognised it is
    None.
    """

    async def guard(request: Request) -> Caller:
        caller: Caller | None = request.state.caller
        if caller is None:
            raise Problem(
                401,
                "No valid API key or token came with the request.",
                "Send a key in the header X-API-Key or a token as Authorization: Bearer; `turnover keys "
                "create` makes a key.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if scope not in caller.scopes:
            raise Problem(
                403,
                f"This needs the scope {scope!r}, which {caller.name!r} has not.",
                "Ask whoever runs the service for a key that has it: `turnover keys create --scope "
                f"{scope}`.",
            )
        return caller

    return guard
