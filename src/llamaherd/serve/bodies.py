"""Bodies of requests before any route reads them: JSON only, all of it in time and in bounds, and nothing in it that could hold up others.

What is looked at is bounded first, and looked at in a thread: a body may be refused, but it never keeps the event loop busy.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..core.errors import UserError
from ..core.files import parse_json
from .config import LimitsConfig
from .errors import ApiError

_MARKS = (b",", b"[", b"{")
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""A text; one without an end goes on to the end, so that each byte is looked at once."""
_PIECE = re.compile(rb'(?:"(?:[^"\\]|\\.)*+"?|[^"]{1,65536}+){1,1024}+', re.DOTALL)
"""Some texts, and what stands between them: so much at a time that others get their turn."""
SMALL_BYTES = 16 << 10
"""What is looked at sooner than a thread could begin to."""
_CLOSE = {"Connection": "close"}


class Gone(Exception):
    """The client closed the connection before its request was there."""


class Bodies:
    """Middleware that hands on whole bodies that are sound JSON."""

    def __init__(self, app: ASGIApp, limits: LimitsConfig, files: Mapping[str, int] | None = None):
        """`files`: paths that take files of so many bytes, which their routes read piece by piece."""
        self._app, self._limits, self._files = app, limits, files or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if headers.get("transfer-encoding") is None and headers.get("content-length", "0").strip("0") == "":
            await self._app(scope, receive, send)
            return
        try:
            _demand_json(headers)
            file_bytes = self._files.get(scope["path"])
            body = await read_body(receive, headers, file_bytes or self._limits.body_bytes, self._limits)
            if file_bytes is not None:
                pass
            elif len(body) <= SMALL_BYTES:
                check_json(body, self._limits)
            else:
                await asyncio.to_thread(check_json, body, self._limits)
        except ApiError as error:
            await error.response(scope, receive, send)
            return
        except Gone:
            return
        left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return left.pop() if left else await receive()

        await self._app(scope, again, send)


def _demand_json(headers: Headers) -> None:
    """Raises ApiError for what a page of another site could send without asking first, and for packed bodies."""
    kinds, packed = headers.getlist("content-type"), headers.getlist("content-encoding")
    if len(kinds) != 1 or kinds[0].partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "the body must be JSON, with one header Content-Type: application/json", headers=_CLOSE)
    if [one for one in packed if one.strip().lower() != "identity"]:
        raise ApiError(415, "the body must not be packed; send it without Content-Encoding", headers=_CLOSE)


async def read_body(receive: Receive, headers: Headers, most_bytes: int, limits: LimitsConfig) -> bytes:
    """A whole body. Raises ApiError for one that is too long, said or sent, or too slow; Gone."""
    too_long = ApiError(413, f"the body is longer than {most_bytes} bytes, the most that is taken", code="too_large", headers=_CLOSE)
    said = headers.get("content-length")
    if said is not None and int(said) > most_bytes:
        raise too_long
    pieces, length, more = [], 0, True
    try:
        async with asyncio.timeout(limits.receive_s):
            while more:
                async with asyncio.timeout(limits.silence_s):  # wait_for may swallow a cancellation before Python 3.12
                    message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                pieces.append(message.get("body", b""))
                length, more = length + len(pieces[-1]), message.get("more_body", False)
                if length > most_bytes:
                    raise too_long
    except TimeoutError:
        said_s = f"{limits.silence_s:g} s of silence, {limits.receive_s:g} s for the whole"
        raise ApiError(408, f"the body came too slowly; the most is {said_s}", code="too_slow", headers=_CLOSE) from None
    return b"".join(pieces)


def check_json(body: bytes, limits: LimitsConfig) -> None:
    """Raises ApiError for what is not JSON, is too much, or could be read in two ways."""
    values, objects = marks_in(body, limits.values, limits.objects)
    if values > limits.values:
        raise ApiError(400, f"the body holds more than {limits.values} values, the most that is taken", code="too_many_values")
    if objects > limits.objects:
        raise ApiError(400, f"the body holds more than {limits.objects} objects, the most that is taken", code="too_many_values")

    def whole(digits: str) -> int:
        if len(digits) > limits.digits:
            raise UserError(f"the number {digits:.40}... has {len(digits)} digits; at most {limits.digits} are taken")
        return int(digits)

    too_deep = f"lists and objects are nested deeper than {limits.depth}, the most that is taken"
    openings = body.count(b"[") + body.count(b"{")
    try:
        value = parse_json(body, "the body", "expected one JSON object", whole)
    except UserError as error:
        deep = "recursion" in str(error)
        raise ApiError(400, f"the body: {too_deep}" if deep else str(error), code="too_deep" if deep else "not_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"the body is a JSON {type(value).__name__}; expected one object", code="not_json")
    if openings > limits.depth or len(body) > SMALL_BYTES:
        _demand_shape(value, limits, too_deep)


def marks_in(body: bytes, values: int, objects: int) -> tuple[int, int]:
    """(about how many values JSON holds, how many objects), by the marks between them and without building any; no further than
    beyond one of the limits.
    """
    found = opened = 0
    if sum(body.count(mark) for mark in _MARKS) <= min(values, objects):
        return found, opened
    start = 0
    while start < len(body) and found <= values and opened <= objects:
        piece = _PIECE.match(body, start)
        assert piece, "a piece is any byte that is none of a text, or a text"
        start, between = piece.end(), _TEXT.sub(b"", piece[0])  # some of these marks may stand in texts
        found += sum(between.count(mark) for mark in _MARKS)
        opened += between.count(b"{")
    return found, opened


def _demand_shape(value: Any, limits: LimitsConfig, too_deep: str) -> None:
    """Raises ApiError for what is nested too deeply, and for objects with more fields than any schema could name a reason for."""
    level = [value]
    for _ in range(limits.depth):
        for one in level:
            if isinstance(one, dict) and len(one) > limits.fields:
                raise ApiError(400, f"the body: an object has {len(one)} fields; at most {limits.fields} are taken", code="too_many_fields")
        items = [item for one in level for item in (one.values() if isinstance(one, dict) else one)]
        level = [item for item in items if isinstance(item, (dict, list))]
        if not level:
            return
    raise ApiError(400, f"the body: {too_deep}", code="too_deep")
