"""How many connections there may be, whatever they are at."""

import asyncio
import resource
import socket
import subprocess
import time
from pathlib import Path

import pytest

from llamaherd.core.errors import UserError
from llamaherd.serve import sockets
from llamaherd.serve.server import bind
from llamaherd.serve.sockets import Listening, demand_files


def test_what_is_too_many_is_closed_and_those_that_leave_make_room() -> None:
    async def serves() -> list[bytes]:
        async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            await reader.read()
            writer.close()

        async def comes() -> tuple[bytes, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return await asyncio.wait_for(reader.read(5), 10), writer
            except ConnectionError:
                return b"", writer

        listening = Listening(bind("127.0.0.1", 0), 3)
        port = listening.getsockname()[1]
        async with await asyncio.start_server(greets, sock=listening):
            there = [await comes() for _ in range(5)]
            for _, writer in there:
                writer.close()
            ends = time.monotonic() + 10
            while not (late := (await comes())[0]):
                assert time.monotonic() < ends
            return [said for said, _ in there] + [late]

    assert asyncio.run(serves()) == [b"hello", b"hello", b"hello", b"", b"", b"hello"]


def test_files_for_all_connections_or_a_word_about_it(monkeypatch) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    demand_files(10)
    assert limits == []
    demand_files(1000)
    assert limits == [(1000 + sockets.OTHER_FILES, 4096)]
    with pytest.raises(UserError, match=r"limits\.connections: needs 5192 open files, and this system allows 4096 \(ulimit -Hn\)"):
        demand_files(5000)


def test_a_handshake_that_never_comes_is_not_waited_for(serve, talkers: Path, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run(["openssl", *made, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    access = {"tls_cert": str(cert), "tls_key": str(key)}
    with (
        serve(models=[str(talkers / "short")], access=access, limits={"silence_s": 0.3}, ready=False) as up,
        socket.create_connection(("127.0.0.1", up.port), timeout=20) as silent,
    ):
        began = time.monotonic()
        assert silent.recv(1) == b""
        assert 0.2 < time.monotonic() - began < 10
