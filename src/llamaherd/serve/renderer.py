"""The process that renders Markdown: what a hostile text makes slow there holds nobody up here, and can be ended."""

import asyncio
import contextlib
import html
import json
import sys
from collections.abc import Iterator

LIMIT_S = 6.0
"""After so long the process is ended, and the text is shown as it was written. It shows the rest so itself well before."""
LINES, CHARACTERS = 200, 8000
"""Most of a text as it was written in one block."""
LONGEST_BYTES = 256 << 20


def escaped(text: str) -> Iterator[str]:
    """Blocks of HTML that show a text as it was written."""
    lines = [line[first : first + CHARACTERS] for line in text.split("\n") for first in range(0, max(1, len(line)), CHARACTERS)]
    block: list[str] = []
    for line in lines:
        if block and (len(block) == LINES or sum(map(len, block)) + len(line) > CHARACTERS):
            yield f"<p>{'<br>'.join(block)}</p>"
            block = []
        block.append(html.escape(line))
    if any(block):
        yield f"<p>{'<br>'.join(block)}</p>"


class Renderer:
    """Starts its process when it is first needed, and again after it was ended. One text at a time."""

    def __init__(self, limit_s: float = LIMIT_S):
        self._limit_s = limit_s
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def blocks(self, text: str) -> str:
        """The blocks of a text, as a JSON list of HTML. Never raises for what a text holds."""
        async with self._turn:
            try:
                line = await asyncio.wait_for(self._asked(text), self._limit_s)
            except (TimeoutError, OSError, ValueError):  # too slow, gone, or an answer without end
                line = b""
            except BaseException:  # whoever asked is gone: the answer to come is not the next one's
                await self._end()
                raise
            if line.endswith(b"\n"):
                return line.decode()
            await self._end()
        return json.dumps(list(escaped(text)))

    async def _asked(self, text: str) -> bytes:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "llamaherd.serve.markdown", limit=LONGEST_BYTES,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(text).encode() + b"\n")
        await self._process.stdin.drain()
        return await self._process.stdout.readline()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def close(self) -> None:
        """Ends the process."""
        async with self._turn:
            await self._end()
