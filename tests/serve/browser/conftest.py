"""Chromium on the page of a real server, whose answers a test can script where it needs to know them beforehand."""

import asyncio
import json
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serve import conftest as serving

sync_api = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright (the dev extra)")

OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
OPTIONS += ("--disable-component-update", "--disable-sync")
MOST_WAIT_MS = 10_000

Message = MutableMapping[str, Any]


@dataclass
class Reply:
    """What one request for an answer gets: pieces as they are streamed, or an error.

    `gate`: the pieces after the first wait for it. `breaks`: the connection is closed after the pieces.
    """

    pieces: tuple[str, ...] = ()
    finish: str = "stop"
    delay_s: float = 0.0
    gate: threading.Event | None = None
    breaks: bool = False
    status: int = 200
    message: str = ""
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    logprobs: bool = False
    hangs: bool = False
    """Nothing comes at all."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Of every chunk, beside what OpenAI's have."""
    hangs_after: bool = False
    """Nothing comes after the pieces."""


class Script:
    """Stands before the application: answers chat completions with what a test put in, and everything else as it is."""

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque()
        self.bodies: list[dict[str, Any]] = []
        self.left = 0
        """Answers whose reader went away before their end."""

    def add(self, *pieces: str, **settings: Any) -> Reply:
        """The next answer."""
        self.replies.append(Reply(pieces, **settings))
        return self.replies[-1]

    def around(self, app: Any) -> Any:
        async def scripted(scope: Message, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] == "/v1/chat/completions" and self.replies:
                await self._reply(self.replies.popleft(), receive, send)
            else:
                await app(scope, receive, send)

        return scripted

    async def _reply(self, reply: Reply, receive: Any, send: Any) -> None:
        raw, more = b"", True
        while more:
            message = await receive()
            raw, more = raw + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(json.loads(raw))
        headers = {"content-type": "application/json" if reply.status != 200 else "text/event-stream", **reply.headers}
        start = {"type": "http.response.start", "status": reply.status}
        await send({**start, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]})
        if reply.status != 200:
            error = {"error": {"message": reply.message, "type": "x", "param": None, "code": reply.code}}
            await send({"type": "http.response.body", "body": json.dumps(error).encode()})
            return
        stream, gone = asyncio.ensure_future(self._stream(reply, send)), asyncio.ensure_future(receive())
        await asyncio.wait({stream, gone}, return_when=asyncio.FIRST_COMPLETED)
        self.left += not stream.done()
        stream.cancel()
        gone.cancel()
        await asyncio.gather(stream, gone, return_exceptions=True)

    async def _stream(self, reply: Reply, send: Any) -> None:
        async def write(text: str) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            if reply.logprobs and delta.get("content"):
                tops = [{"token": "other", "logprob": -2.0, "bytes": None}]
                choice["logprobs"] = {"content": [{"token": delta["content"], "logprob": -0.5, "bytes": None, "top_logprobs": tops}]}
            return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice], **reply.extra})}\n\n"

        await write(": hello\n\n")
        while reply.hangs:
            await asyncio.sleep(0.005)
        for index, piece in enumerate(reply.pieces):
            while index and reply.gate and not reply.gate.is_set():
                await asyncio.sleep(0.005)
            await write(chunk({"content": piece}))
            await asyncio.sleep(reply.delay_s)
        while reply.hangs_after:
            await asyncio.sleep(0.005)
        if reply.breaks:
            raise ConnectionResetError
        await write(chunk({}, reply.finish) + "data: [DONE]\n\n")
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Site:
    """A running server, and the script of its answers."""

    up: serving.Running
    script: Script

    @property
    def api(self) -> str:
        return f"{self.up.url}/api"

    def conversations(self) -> list[dict[str, Any]]:
        """All that is saved, with messages."""
        heads = httpx.get(f"{self.api}/conversations", params={"limit": 200}).json()["data"]
        return [httpx.get(f"{self.api}/conversations/{head['id']}").json() for head in heads]

    def clear(self) -> None:
        self.script.replies.clear()
        self.script.bodies.clear()
        self.script.left = 0
        for head in httpx.get(f"{self.api}/conversations", params={"limit": 200}).json()["data"]:
            httpx.delete(f"{self.api}/conversations/{head['id']}")

    def saved(self, exchanges: list[tuple[str, str]], title: str = "Saved") -> str:
        """Saves a conversation and returns its id."""
        messages = [{"role": role, "content": text} for pair in exchanges for role, text in zip(("user", "assistant"), pair, strict=True)]
        before = {one["id"] for one in self.conversations()}
        answer = httpx.post(f"{self.api}/import", json={"messages": messages, "title": title}, timeout=60)
        assert answer.json()["imported"] == 1, answer.text
        [id] = {one["id"] for one in self.conversations()} - before
        httpx.patch(f"{self.api}/conversations/{id}", json={"title": title})
        return str(id)


@contextmanager
def scripted_site(models: list[Path], state: Path, ready: bool = True, **settings: Any) -> Iterator[Site]:
    """A site of one's own."""
    script, make = Script(), serving.make_server

    def make_scripted(service: Any) -> Any:
        server = make(service)
        server.config.app = script.around(server.config.app)
        return server

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "make_server", make_scripted)
        running = serving.running(ready, models=[str(model) for model in models], state=str(state), **settings)
        up = running.__enter__()
    try:
        yield Site(up, script)
    finally:
        running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def shared_site(talkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with scripted_site([talkers / "short", talkers / "endless"], tmp_path_factory.mktemp("state")) as site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Site:
    """The one server of all browser tests, without conversations."""
    shared_site.clear()
    return shared_site


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for the tests of a file, or they are skipped. No longer: while it is there an event loop counts as running, and
    other files' tests have loops of their own.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("browser tests need Chromium: make test-system")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """`new_page("/#/c/...", viewport={...})`: a page in a context of its own, whose errors fail the test."""
    contexts, errors = [], []

    def make(address: str = "/", context: Any = None, base: str | None = None, **settings: Any) -> Any:
        if context is None:
            context = browser.new_context(**{"viewport": {"width": 1100, "height": 800}, **settings})
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(MOST_WAIT_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None)
        page.goto((base or site.up.url) + address)
        page.locator("body[data-ready]").wait_for()
        return page

    yield make
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def page(new_page: Callable[..., Any]) -> Any:
    """The chat page, just opened."""
    return new_page()


def message_box(page: Any) -> Any:
    """Where messages are written."""
    return page.get_by_label("Message", exact=True)


def ask(page: Any, text: str) -> None:
    """Writes a message and sends it."""
    message_box(page).fill(text)
    message_box(page).press("Enter")


def answers(page: Any) -> Any:
    """The texts of all answers that are shown."""
    return page.locator(".message.assistant .message-body")


def finishes(page: Any) -> None:
    """Waits until no answer is being written and all is saved."""
    sync_api.expect(page.locator("#stop")).to_be_hidden()
    page.wait_for_function("() => !Object.keys(localStorage).some((key) => key.startsWith('llamaherd.outbox.'))")
