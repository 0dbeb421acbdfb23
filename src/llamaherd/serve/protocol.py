"""HTTP over one connection, with the limits that uvicorn leaves to others: how many, how long a head may take, who reads too slowly.

An answer that comes before its request was read whole (413, 431, ...) is followed by a short time in which the rest is read and thrown
away: closing at once would make the system drop the answer on its way to a client that still sends.
"""

import asyncio
import socket
import sys
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .config import LimitsConfig
from .door import SAFE
from .errors import ApiError

SPARE_CONNECTIONS = 64
"""So many beyond the limit are told so; what comes on top is closed without a word."""
LINGER_S = 2.0
LEAST_BYTES = 4 << 10
"""A client that takes less in `silence_s` while more waits for it does not read."""
SEND_BYTES = 64 << 10
"""So much the system holds for a client that reads slowly; left to itself it takes megabytes, and reports progress as rarely."""
KEEP_ALIVE_S = 15


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    message = "the server has too many connections; try again later"
    await ApiError(503, message, code="connections", headers={**SAFE, "Retry-After": "1", "Connection": "close"}).response(
        scope, receive, send
    )


class _Line:
    """A transport that counts what is written and lets the protocol say how it ends."""

    def __init__(self, transport: asyncio.Transport, protocol: "LimitedProtocol"):
        self._transport, self._protocol = transport, protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._transport.write(data)
        self._protocol.wrote(len(data))

    def close(self) -> None:
        self._protocol.hang_up()

    def is_closing(self) -> bool:
        return self._protocol.lingering or self._transport.is_closing()


class LimitedProtocol(H11Protocol):
    """Use `limited(limits)`, which says which limits."""

    limits: LimitsConfig
    lingering = False
    _timer: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _written = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Line(transport, self))  # type: ignore[arg-type]
        self._bare = transport
        beyond = len(self.connections) - self.limits.connections
        if beyond > SPARE_CONNECTIONS:
            transport.abort()
        elif beyond > 0:
            self.app = _full
        self._timer = self.loop.call_later(LINGER_S if beyond > 0 else self.limits.silence_s, self._too_slow)
        line = transport.get_extra_info("socket")
        if line is not None and line.family in (socket.AF_INET, socket.AF_INET6):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio leaves it to us for sockets that were bound already
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._stall):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        """The clock runs while a head, or a body that nobody waits for any more, is incomplete."""
        head = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        unwanted = self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE
        if not (head or unwanted):
            if self._timer and not self.lingering:
                self._timer.cancel()
                self._timer = None
        elif not self._timer:
            self._timer = self.loop.call_later(self.limits.silence_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self.conn.trailing_data[0] and self.conn.their_state is h11.IDLE:
            self._refuse(ApiError(408, "the request came too slowly", code="too_slow"))
        else:
            self._bare.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self._watch()

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing():
            self._bare.close()

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._bare.close()
        else:
            self.cycle.keep_alive = False

    def _unsupported_upgrade_warning(self) -> None:
        """Answered as if it had not been asked for, which HTTP allows; no stranger fills the log with it."""

    def send_400_response(self, msg: str) -> None:
        """For what is no HTTP: uvicorn calls this where it caught what h11 says about it."""
        status = getattr(sys.exception(), "error_status_hint", 400)
        if status == 431:
            self._refuse(ApiError(431, f"request line and headers are longer than {self.limits.head_bytes} bytes", code="too_large"))
        else:
            self._refuse(ApiError(400, "this is not an HTTP request that can be understood", code="not_http"))

    def _refuse(self, error: ApiError) -> None:
        """Answers outside of any request, and ends the connection."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._bare.abort()
            return
        answer = error.response
        headers = [
            *answer.raw_headers,
            *((name.lower().encode(), value.encode()) for name, value in SAFE.items()),
            (b"connection", b"close"),
        ]
        for event in (h11.Response(status_code=error.status, headers=headers), h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.hang_up()

    def hang_up(self) -> None:
        """Closes, at once when everything was read."""
        if self.lingering or self._bare.is_closing():
            return
        if self.conn.their_state not in (h11.SEND_BODY, h11.ERROR, h11.IDLE):
            self._bare.close()
            return
        self.lingering = True
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self._bare.can_write_eof():
            self._bare.write_eof()
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(LINGER_S, self._bare.close)

    def wrote(self, n_bytes: int) -> None:
        """Begins to watch whether the client reads."""
        self._written += n_bytes
        if self._stall is None and self._bare.get_write_buffer_size():
            self._stall = self.loop.call_later(self.limits.silence_s, self._see_progress, self._taken())

    def _taken(self) -> int:
        return self._written - self._bare.get_write_buffer_size()

    def _see_progress(self, before: int) -> None:
        self._stall = None
        if not self._bare.get_write_buffer_size():
            return
        if self._taken() - before < LEAST_BYTES:
            self._bare.abort()
        else:
            self._stall = self.loop.call_later(self.limits.silence_s, self._see_progress, self._taken())


def limited(limits: LimitsConfig) -> type[LimitedProtocol]:
    """The protocol with these limits, as a class that uvicorn makes one of for each connection."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limits": limits})
