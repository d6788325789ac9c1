"""HTTP as clients speak it who take their time: they are waited for, but not for ever.

What belongs here: when a connection is cut. What does not: how long is too long (settings).

uvicorn itself waits without end for a request to arrive, takes headers of any length, and holds an answer as
long as its reader likes.
"""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64_000
SLOWEST_BYTES = 10_000  # read in each span of time by a client that is still alive


class PatientConfig(uvicorn.Config):
    """uvicorn's configuration, with the time that clients have.

    Attributes:
        client_seconds: Time in which a request must arrive whole, and in which at least SLOWEST_BYTES of an
            answer that does not fit the network's own buffers must be read, again and again.
    """

    def __init__(self, app: Any, client_seconds: float, **options: Any) -> None:
        super().__init__(app, http=PatientProtocol, **options)
        self.client_seconds = client_seconds


class PatientProtocol(HttpToolsProtocol):
    """Cuts a connection whose request does not arrive, or whose answer is not read."""

    def __init__(self, config: uvicorn.Config, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        assert isinstance(config, PatientConfig)
        self._seconds = config.client_seconds
        self._arriving: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._is_in_head, self._head_bytes = False, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody connected, and has yet to ask."""
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """They left."""
        self._arrived()
        self._read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        if self.cycle is None or self.cycle.response_complete:
            self._await_request()
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("The headers are too long.")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._is_in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole; the body may follow."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._arrived()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The answer is not read as fast as it is written."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """It was read."""
        self._read()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing more was asked; a connection that has not even read the answer is not waited for."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _await_request(self) -> None:
        if self._arriving is None:
            self._arriving = self.loop.call_later(self._seconds, self._cut)

    def _arrived(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _await_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self._seconds, self._look_at_reading, left)

    def _look_at_reading(self, before: int) -> None:
        if self.transport.get_write_buffer_size() > before - SLOWEST_BYTES:
            self._cut()
        else:
            self._await_reading()

    def _read(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()
