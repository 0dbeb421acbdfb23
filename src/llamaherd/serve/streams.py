"""Answers that take long: ended as soon as nobody listens any more, as events or as one object."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .errors import ApiError
from .ticket import Mailbox

T = TypeVar("T")
PING_S = 10.0
"""A comment after so much silence, so that nothing in between takes the connection for dead."""
_as_json = json.JSONEncoder(ensure_ascii=False).encode


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

    Those of a portion go out together. `end` is called when all is said, and when nobody listens any more, be it before the first
    portion was asked for.
    """

    media_type = "text/event-stream"

    def __init__(self, portions: AsyncGenerator[list[dict[str, Any]]], silence_s: float, end: Callable[[], None] = lambda: None):
        super().__init__()
        del self.headers["content-length"]
        self.headers.update({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._portions, self._silence_s, self._end = portions, silence_s, end

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
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        box = Mailbox[str | None]()
        telling = asyncio.create_task(self._tell(box))
        try:
            more = True
            while more:
                try:
                    async with asyncio.timeout(PING_S):  # wait_for may swallow a cancellation before Python 3.12
                        pieces = await box.take()
                except TimeoutError:
                    pieces = [": ping\n\n"]
                more = pieces[-1] is not None
                if not more:
                    pieces[-1] = "data: [DONE]\n\n"
                    await telling  # raises what it failed with, and the answer is left without its end
                body = "".join(piece for piece in pieces if piece).encode()
                async with asyncio.timeout(self._silence_s):
                    await send({"type": "http.response.body", "body": body, "more_body": more})
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell(self, box: Mailbox[str | None]) -> None:
        """Everything to be sent, and None after the last: what comes while a piece is on its way is sent as one."""
        try:
            async with aclosing(self._portions) as portions:
                async for portion in portions:
                    await box.emptied()
                    if portion:
                        box.put("".join(f"data: {_as_json(one)}\n\n" for one in portion))
        except ApiError as error:
            box.put(f"data: {_as_json(error.body)}\n\n")
        finally:
            box.put(None)
