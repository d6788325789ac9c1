"""Limits on what a request may be: the length of its address and of its body.

What belongs here: what is refused before anything is done with it. What does not: limits of rows and time
(answers.py, workers.py), and clients that are too slow (protocol.py).
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnover_assets.serving.problems import Problem


class Limits:
    """Middleware that refuses requests that are too long.

    Args:
        app: What answers.
        address_bytes: Bytes of path and query at most.
        body_bytes: Bytes of the body at most.
    """

    def __init__(self, app: ASGIApp, address_bytes: int, body_bytes: int) -> None:
        self._app, self._address_bytes, self._body_bytes = app, address_bytes, body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > self._address_bytes:
            await self._address_too_long().response()(scope, receive, send)
            return
        length = _said_length(scope)
        if length is not None and length > self._body_bytes:
            await self._body_too_long().response()(scope, receive, send)
            return
        if length == 0 or (length is None and scope["method"] in ("GET", "HEAD")):
            await self._app(scope, receive, send)
        else:
            await self._counting(scope, receive, send)

    async def _counting(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose body may be longer than it says, or does not say how long it is."""
        got, is_too_long, has_begun = 0, False, False

        async def counted() -> Message:
            nonlocal got, is_too_long
            message = await receive()
            got += len(message.get("body", b""))
            if got > self._body_bytes and not has_begun:
                is_too_long = True
                raise self._body_too_long()
            return message

        async def unless_too_long(message: Message) -> None:
            nonlocal has_begun
            if not is_too_long:  # else the framework's own answer to the exception, which says less
                has_begun = True
                await send(message)

        await self._app(scope, counted, unless_too_long)
        if is_too_long:
            await self._body_too_long().response()(scope, receive, send)

    def _address_too_long(self) -> Problem:
        return Problem(
            414,
            f"The address is longer than {self._address_bytes} bytes.",
            "Name fewer values in one request.",
            headers={"Connection": "close"},
        )

    def _body_too_long(self) -> Problem:
        return Problem(
            413,
            f"The body is longer than {self._body_bytes} bytes.",
            "Send fewer rows in one request.",
            field="body",
            headers={"Connection": "close"},
        )


def _said_length(scope: Scope) -> int | None:
    """The header Content-Length; None where there is none that is a number."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return None
