"""Requests as they go over the wire, byte by byte or with headers of one's own, and what comes back."""

import http.client
import socket
import time
from typing import Any, NamedTuple

from tests.serve.conftest import Running

from llamaherd.serve.keys import Keys

HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
MESSAGES = '"messages": [{"role": "user", "content": "Hi."}]'
CHAT = b'{"model": "short", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 2}'
JSON = {"Content-Type": "application/json"}


def chat(model: str = "short", more: str = "") -> bytes:
    return f'{{"model": "{model}", {MESSAGES}{more}}}'.encode()


def request(body: bytes, path: str = "/v1/chat/completions") -> bytes:
    return HEAD.replace("/v1/chat/completions", path).encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def said(connection: socket.socket, all_of_it: bool = False) -> bytes:
    """What comes within 30 s: up to the end of the head, or of the connection."""
    connection.settimeout(30)
    found = b""
    try:
        while (all_of_it or b"\r\n\r\n" not in found) and (piece := connection.recv(65536)):
            found += piece
    except ConnectionError:
        pass
    return found


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def send(up: Running, *pieces: bytes) -> tuple[int, float]:
    """Status of the answer, and the seconds after the last piece began to be sent, or the answer came before."""
    with socket.create_connection(("127.0.0.1", up.port)) as connection:
        began = time.monotonic()
        try:
            for piece in pieces:
                connection.sendall(piece)
        except ConnectionError:
            pass
        return status(said(connection)), time.monotonic() - began


class Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes


def ask(up: Running, method: str, path: str, headers: Any = (), body: bytes | None = None) -> Answer:
    """One request with these headers and no others of weight; pairs may repeat a name, and `Host` may be given."""
    pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=any(name == "Host" for name, _ in pairs), skip_accept_encoding=True)
        for name, value in pairs:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


class Locked(NamedTuple):
    up: Running
    ann: str
    ben: str
    keys: Keys


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
