"""Answers that take long: ended as soon as nobody listens any more, as events or as one object."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .errors import ApiError

T = TypeVar("T")
PING_S = 10.0
"""A comment after so much silence, so that nothing in between takes the connection for dead."""


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client closes the connection first. Only after the body was read."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "the client closed the connection")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


class EventStream(Response):
    """Server-sent events, one JSON object each, `[DONE]` after the last. `silence_s`: longest that a client may leave a piece unread.

    `end` is called when all is said, and when nobody listens any more, be it before the first event was asked for.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[dict[str, Any]], silence_s: float, end: Callable[[], None] = lambda: None):
        super().__init__()
        del self.headers["content-length"]
        self.headers.update({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events, self._silence_s, self._end = events, silence_s, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender, gone = asyncio.create_task(self._send(send)), asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sender, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (sender, gone):
                one.cancel()
            await asyncio.gather(sender, gone, return_exceptions=True)
            self._end()

    async def _send(self, send: Send) -> None:
        async def write(text: str, more: bool = True) -> None:
            message = {"type": "http.response.body", "body": text.encode(), "more_body": more}
            async with asyncio.timeout(self._silence_s):  # wait_for may swallow a cancellation before Python 3.12
                await send(message)

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with aclosing(_with_pings(self._events)) as events:
                async for event in events:
                    await write(": ping\n\n" if event is None else f"data: {json.dumps(event, ensure_ascii=False)}\n\n")
        except ApiError as error:
            await write(f"data: {json.dumps(error.body, ensure_ascii=False)}\n\n")
        await write("data: [DONE]\n\n", more=False)


async def _with_pings(events: AsyncIterator[dict[str, Any]]) -> AsyncGenerator[dict[str, Any] | None, None]:
    iterator = aiter(events)
    coming: asyncio.Future[dict[str, Any]] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(iterator))  # type: ignore[arg-type]
            done, _ = await asyncio.wait({coming}, timeout=PING_S)
            if not done:
                yield None
                continue
            finished, coming = coming, None
            try:
                yield finished.result()
            except StopAsyncIteration:
                return
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        await events.aclose()  # type: ignore[attr-defined]
