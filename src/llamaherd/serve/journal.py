"""What is written down: a line about each request when the operator asks for it, and complaints without what users said.

Everything goes through JSON or `one_line`, so no text of a stranger begins a line of its own or steers a terminal.
"""

import json
import logging
import os
import sys
import threading
import time
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..core.errors import UserError, one_line
from .metrics import METHODS

log = logging.getLogger(__name__)
MOST_TEXT_BYTES = 1 << 20
"""So much of a request and of its answer is written down when texts are."""


class OneLine(logging.Formatter):
    """One line for each complaint. An error's own words may quote a user, so only its kind and its place are said."""

    def format(self, record: logging.LogRecord) -> str:
        # What asyncio adds to its complaints are the insides of tasks, errors and their words included.
        said = str(record.msg).split("\n")[0] if record.name == "asyncio" else one_line(record.getMessage(), 1000)
        return f"llamaherd: {said}{self.formatException(record.exc_info) if record.exc_info else ''}"

    def formatException(self, error: Any) -> str:
        kind, _, trace = error
        return f" ({kind.__name__ if kind else '?'} {_places(trace)})"


def _places(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)[-4:]
    return "at " + ", ".join(f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def complain_in_lines() -> None:
    """All logging of this process, one line each, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    threading.excepthook = _died


def _died(thread: threading.ExceptHookArgs) -> None:
    log.critical("a thread died", exc_info=thread.exc_value)


def open_log(place: str) -> TextIO:
    """A file that lines are added to, readable by its owner alone, or standard error for `-`. Raises UserError."""
    if place == "-":
        return sys.stderr
    try:
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise UserError(f"--log {place}: cannot be written: {error.strerror}") from None
    return os.fdopen(handle, "a", encoding="utf-8", buffering=1)


_made: ContextVar[list[int] | None] = ContextVar("tokens made for the request at hand", default=None)


def tokens_made(count: int) -> None:
    """Counts tokens for the request whose task, or child of it, this is called in."""
    if (made := _made.get()) is not None:
        made[0] += count


class Journal:
    """Middleware that writes a JSON object about each request: never what users say, unless `texts`."""

    def __init__(self, app: ASGIApp, out: TextIO, texts: bool):
        self._app, self._out, self._texts, self._failed = app, out, texts, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, made = time.monotonic(), 0, [0]
        _made.set(made)
        asked, answered = bytearray(), bytearray()
        texts = self._texts and scope["path"] != "/login"

        async def reading() -> Message:
            message = await receive()
            asked.extend(message.get("body", b"")[: MOST_TEXT_BYTES - len(asked)])
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if texts:
                answered.extend(message.get("body", b"")[: MOST_TEXT_BYTES - len(answered)])
            await send(message)

        try:
            await self._app(scope, reading if texts else receive, sending)
        finally:
            self._write(scope, status, time.monotonic() - began, made[0], (bytes(asked), bytes(answered)) if texts else None)

    def _write(self, scope: Scope, status: int, seconds: float, tokens: int, texts: tuple[bytes, bytes] | None) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "owner": scope.get("state", {}).get("owner", "-"),
            "method": scope["method"] if scope["method"] in METHODS else "other",
            "route": getattr(scope.get("route"), "path", "-"),
            "status": status,
            "seconds": round(seconds, 3),
            "tokens": tokens,
        }
        if texts:
            line |= {name: text.decode("utf-8", "replace") for name, text in zip(("asked", "answered"), texts, strict=True)}
        try:
            self._out.write(json.dumps(line) + "\n")
        except (OSError, ValueError) as error:  # a full disk ends no request; said once
            if not self._failed:
                log.warning("the log cannot be written: %s", error)
            self._failed = True
