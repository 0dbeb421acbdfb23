"""Whoever leaves frees what was at work for him, wherever it stands: within a second nothing is open any more."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.serve.conftest import Running

from llamaherd.serve.api import chat

CHAT = {"model": "endless", "messages": [{"role": "user", "content": "Where does Ada live?"}], "max_tokens": 2000}
RAW = {"model": "endless", "prompt": ["Ada lives", "Ben lives"], "max_tokens": 2000}


@pytest.fixture
def connect(up: Running) -> Iterator[Callable[[str, dict[str, Any]], socket.socket]]:
    """Sends a request and reads nothing."""
    opened: list[socket.socket] = []

    def sent(path: str, body: dict[str, Any]) -> socket.socket:
        content = json.dumps(body).encode()
        connection = socket.create_connection(("127.0.0.1", up.port))
        opened.append(connection)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        return connection

    yield sent
    for connection in opened:
        connection.close()


def wait_open(up: Running, count: int) -> None:
    deadline = time.monotonic() + 10
    while up.open != count:
        assert time.monotonic() < deadline, f"{up.open} sequences are open"
        time.sleep(0.005)


@pytest.mark.parametrize(("path", "body", "count"), [
    ("/v1/chat/completions", CHAT, 1), ("/v1/chat/completions", {**CHAT, "n": 3}, 3),
    ("/v1/chat/completions", {**CHAT, "n": 3, "stream": True}, 3), ("/v1/completions", {**RAW, "n": 2}, 4),
    ("/v1/completions", {**RAW, "stream": True}, 2), ("/v1/completions", {**RAW, "echo": True, "logprobs": 1}, 2),
])  # fmt: skip
def test_at_work(up: Running, connect: Callable[..., socket.socket], path: str, body: dict[str, Any], count: int) -> None:
    connection = connect(path, body)
    wait_open(up, count)
    connection.close()
    up.wait_empty()


def test_in_the_middle_of_a_stream(up: Running, connect: Callable[..., socket.socket]) -> None:
    connection = connect("/v1/chat/completions", {**CHAT, "stream": True})
    said = b""
    while said.count(b"data: ") < 5:
        said += connection.recv(65536)
    connection.close()
    up.wait_empty()


def test_before_anything_was_sent(up: Running, connect: Callable[..., socket.socket]) -> None:
    for _ in range(20):
        connect("/v1/chat/completions", {**CHAT, "stream": True, "n": 2}).close()
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:  # requests may still be read
        time.sleep(0.05)
    up.wait_empty()


def test_while_the_prompt_is_tokenized(up: Running, connect: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    usual = chat.read_prompt

    def slow(*given: Any) -> Any:
        begun.set()
        assert go_on.wait(10)
        return usual(*given)

    monkeypatch.setattr(chat, "read_prompt", slow)
    for stream in (False, True):
        begun.clear()
        go_on.clear()
        connection = connect("/v1/chat/completions", {**CHAT, "stream": stream})
        assert begun.wait(10)
        connection.close()
        time.sleep(0.1)
        go_on.set()
        time.sleep(0.2)
        assert up.open == 0


def test_in_the_queue(serve: Callable[..., Any], talkers: Any) -> None:
    with serve(models=[str(talkers / "endless")], rows=1) as up:
        content = json.dumps(CHAT).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        first, second = (socket.create_connection(("127.0.0.1", up.port)) for _ in range(2))
        first.sendall(head.encode() + content)
        wait_open(up, 1)
        second.sendall(head.encode() + content)
        wait_open(up, 2)
        second.close()
        wait_open(up, 1)
        first.close()
        up.wait_empty()
