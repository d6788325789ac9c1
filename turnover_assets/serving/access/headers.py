"""Headers and addresses as they come and go: read once, and set on every answer.

What belongs here: what is refused for its form, and the headers of every answer. What does not: who asks
(recognition.py), and from where (peers.py).
"""

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from starlette.types import Message, Send
from starlette.types import Scope as ScopeOfServer

from turnover_assets.core.api_keys import KEY_LIKE, Rate
from turnover_assets.serving.access.limits import Standing
from turnover_assets.serving.problems import Problem

IN_ADDRESS = re.compile(
    rb"(?:^|[?&;])(?:api[_-]?key|x-api-key|access[_-]?token|authorization)=", re.IGNORECASE
)
ONCE = (b"authorization", b"x-api-key", b"host")
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
POLICY = b"content-security-policy"
PAGE_POLICY = b"frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
DATA_POLICY = b"default-src 'none'; frame-ancestors 'none'"


def read_headers(scope: ScopeOfServer) -> dict[bytes, bytes]:
    """The headers by name; those on which access rests may come once only."""
    found: dict[bytes, bytes] = dict(scope["headers"])
    if len(found) < len(scope["headers"]):
        names = [name for name, _ in scope["headers"]]
        for name in ONCE:
            if names.count(name) > 1:
                text = name.decode()
                raise Problem(400, f"The header {text} came more than once.", "Send it once.", text)
        chains = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if chains:
            found[b"x-forwarded-for"] = b",".join(chains)
    return found


def check_address(scope: ScopeOfServer) -> None:
    """Refuse a key in the address: it would stay in histories and in the logs of proxies."""
    query: bytes = scope["query_string"]
    plain = unquote_to_bytes(query) if b"%" in query else query
    if IN_ADDRESS.search(query) or KEY_LIKE.search(plain.decode("latin-1") + " " + scope["path"]):
        # Whoever logs this request afterwards, logs no key.
        path = KEY_LIKE.sub("[blanked]", scope["path"])
        scope.update(path=path, raw_path=quote(path).encode(), query_string=b"")
        raise Problem(
            400,
            "A key or token stands in the address.",
            "Send it in the header X-API-Key or as Authorization: Bearer. If it was a right one, replace it "
            "with `turnover keys rotate`: addresses are kept in logs.",
            "X-API-Key",
        )


def limit_headers(standing: Standing | None, rate: Rate | None) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that say how a caller stands with his limit; none where he has none."""
    if standing is None or rate is None:
        return ()
    return (
        (b"ratelimit-limit", b"%d" % standing.limit),
        (b"ratelimit-policy", b"%d;w=%d" % (rate.requests, rate.seconds)),
        (b"ratelimit-remaining", b"%d" % standing.remaining),
        (b"ratelimit-reset", b"%d" % standing.reset),
    )


def with_headers(send: Send, more: Iterable[tuple[bytes, bytes]]) -> Send:
    """Sends answers with the headers that every one has, where the application has not set its own."""

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: list[Any] = [*message.get("headers", ()), *more]
            names = {name for name, _ in headers}
            headers += [pair for pair in SECURITY_HEADERS if pair[0] not in names]
            if POLICY not in names:
                page = any(name == b"content-type" and b"html" in value for name, value in headers)
                headers.append((POLICY, PAGE_POLICY if page else DATA_POLICY))
            message = {**message, "headers": headers}
        await send(message)

    return sender
