"""From start to end: what is said, what cannot be started, and case 32, in processes of their own."""

import http.client
import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.errors import UserError
from llamaherd.serve.config import AccessConfig, ServeConfig
from llamaherd.serve.server import address, bind, check_sharing, say

JSON = {"Content-Type": "application/json"}


class Process:
    """`llamaherd serve` on a free port."""

    def __init__(self, *arguments: str, **environment: str):
        command = [sys.executable, "-m", "llamaherd.cli", "serve", *arguments, "--port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "LLAMAHERD_THREADS": "1", **environment}
        )
        self.lines: list[str] = []
        self.said("llamaherd at ")
        self.port = int(re.search(r"://[^/ ]*:(\d+)", self.lines[0])[1])  # type: ignore[index]

    def said(self, beginning: str, within_s: float = 60.0) -> str:
        """The line that begins so."""
        assert self.process.stdout
        ends = time.monotonic() + within_s
        while True:
            assert select.select([self.process.stdout], [], [], max(0.0, ends - time.monotonic()))[0], self.lines
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read() if self.process.stderr else ""
            self.lines.append(line.rstrip("\n"))
            if line.startswith(beginning):
                return self.lines[-1]

    def ask(self, path: str, body: dict[str, Any] | None = None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, {**(JSON if body else {}), **headers})
        return connection.getresponse()

    def end(self) -> tuple[int, str]:
        """Exit status, and what standard error holds."""
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[Process]:
    up = Process(*arguments, **environment)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait()


def stream(up: Process, tokens: int, model: str = "endless") -> http.client.HTTPResponse:
    messages = [{"role": "user", "content": "Hi."}]
    return up.ask("/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": tokens, "stream": True})


def test_a_term_signal_with_20_streams_ends_them_in_order(talkers) -> None:
    with serving(str(talkers / "endless"), "--limits.drain_s=4", "--limits.deadline_s=60") as up:
        up.said("ready: endless")
        assert up.ask("/health").status == 200
        begun = [stream(up, 8 if number % 2 else 1900) for number in range(20)]
        for answer in begun:
            assert answer.status == 200
            answer.readline()
        texts: list[str] = [""] * 20

        def read(number: int) -> None:
            texts[number] = begun[number].read().decode()

        readers = [threading.Thread(target=read, args=(number,)) for number in range(20)]
        for reader in readers:
            reader.start()
        up.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        refused = stream(up, 3)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert json.loads(refused.read())["error"]["code"] == "draining"
        health = up.ask("/health")
        assert (health.status, json.loads(health.read())["status"]) == (503, "draining")
        for reader in readers:
            reader.join(30)
        code, errors = up.end()
    assert code == 0, errors
    for number, text in enumerate(texts):
        assert text.endswith("data: [DONE]\n\n")
        assert ('"finish_reason": "length"' in text) or ('"error"' in text and "the server" in text), number
    assert all('"finish_reason": "length"' in text for text in texts[1::2])  # what could be finished was
    assert any('"error"' in text for text in texts[::2])
    assert "Traceback" not in errors


def test_a_second_signal_ends_it_at_once(talkers) -> None:
    with serving(str(talkers / "endless"), "--limits.drain_s=60") as up:
        up.said("ready")
        answer = stream(up, 1900)
        answer.readline()
        up.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert up.process.poll() is None
        began = time.monotonic()
        up.process.send_signal(signal.SIGINT)
        code, errors = up.end()
        assert time.monotonic() - began < 5
    assert code == 1
    assert errors == "llamaherd: ended at once; answers at work are cut\n"


def test_told_to_end_while_it_loads_it_ends_soon(talkers) -> None:
    with serving(str(talkers / "short")) as up, socket.create_connection(("127.0.0.1", up.port)):
        began = time.monotonic()
        up.process.send_signal(signal.SIGTERM)
        assert up.end() == (0, "")
        assert time.monotonic() - began < 10


def test_the_first_start_with_keys_shows_one_and_the_next_does_not(talkers, tmp_path) -> None:
    state = tmp_path / "state"
    with serving(str(talkers / "short"), "--keys", "--state", str(state)) as up:
        key = re.search(r"lh-[\w-]{43}", up.said("key of local, shown this once: "))[0]  # type: ignore[index]
        up.said("ready: short")
        assert up.ask("/v1/models").status == 401
        assert up.ask("/v1/models", Authorization=f"Bearer {key}").status == 200
        kept = [path for path in state.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
        assert kept == []
        added = subprocess.run(
            [sys.executable, "-m", "llamaherd.cli", "keys", "add", "ann", "--state", str(state)], capture_output=True, text=True, check=True
        )
        assert up.ask("/v1/models", Authorization=f"Bearer {added.stdout.strip()}").status == 200
    with serving(str(talkers / "short"), "--keys", "--state", str(state)) as up:
        up.said("ready")
        assert not [line for line in up.lines if "lh-" in line]
        assert up.ask("/v1/models", Authorization=f"Bearer {key}").status == 200
        up.process.send_signal(signal.SIGTERM)  # with nothing at work
        assert up.end() == (0, "")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    try:
        made = [
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ]
        subprocess.run(["openssl", *made, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return cert, key


def test_over_tls_browsers_are_told_to_stay_there(talkers, certificate, tmp_path) -> None:
    cert, key = certificate
    with serving(str(talkers / "short"), "--keys", "--tls-cert", str(cert), "--tls-key", str(key), "--state", str(tmp_path)) as up:
        secret = up.said("key of local").split(": ")[1].split()[0]
        assert up.lines[0].startswith("llamaherd at https://")
        context = ssl.create_default_context(cafile=str(cert))
        connection = http.client.HTTPSConnection("localhost", up.port, context=context, timeout=30)
        connection.request("GET", "/health")
        answer = connection.getresponse()
        answer.read()
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
        form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"https://localhost:{up.port}"}
        connection.request("POST", "/login", f"key={secret}", form)
        assert "; Secure" in connection.getresponse().headers["Set-Cookie"]
        with socket.create_connection(("127.0.0.1", up.port)) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"HTTP/1.1 200" not in plain.recv(100)


def test_a_server_whose_output_nobody_reads_goes_on(monkeypatch) -> None:
    """As in `llamaherd serve MODEL | head -1`."""
    reads, writes = os.pipe()
    os.close(reads)
    moved: list[tuple[int, int]] = []
    with suppress(OSError), os.fdopen(writes, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(os, "dup2", lambda old, new: moved.append((old, new)))
        say("one", "two")
    [(nowhere, standard_output)] = moved
    assert standard_output == 1
    assert os.write(nowhere, b"x") == 1
    os.close(nowhere)


# What cannot be started


def config(**settings: Any) -> ServeConfig:
    return ServeConfig(models=("x",), **settings)


def test_beyond_loopback_it_asks_for_tls(certificate, tmp_path) -> None:
    cert, key = certificate
    for host in ("0.0.0.0", "::", "192.168.1.5", "box.lan"):
        with pytest.raises(UserError, match=r"give --tls-cert FILE --tls-key FILE.* --insecure-http"):
            check_sharing(config(host=host))
        check_sharing(config(host=host, access=AccessConfig(insecure_http=True)))
        check_sharing(config(host=host, access=AccessConfig(tls_cert=cert, tls_key=key)))
    for host in ("127.0.0.1", "::1", "localhost"):
        check_sharing(config(host=host))
    other = tmp_path / "other.pem"
    subprocess.run(["openssl", "genrsa", "-out", str(other), "2048"], check=True, capture_output=True)
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:x", "-in", str(key), "-out", str(locked)], check=True, capture_output=True
    )
    for wrong, message in (
        (AccessConfig(tls_cert=cert), "--tls-key is missing"),
        (AccessConfig(tls_key=key), "--tls-cert is missing"),
        (AccessConfig(tls_cert=tmp_path / "none", tls_key=key), "--tls-cert .*none: cannot be read: No such file"),
        (AccessConfig(tls_cert=cert, tls_key=tmp_path / "none"), "--tls-key .*none: cannot be read: No such file"),
        (AccessConfig(tls_cert=key, tls_key=key), "not a certificate and its private key"),
        (AccessConfig(tls_cert=cert, tls_key=other), "not a certificate and its private key"),
        (AccessConfig(tls_cert=cert, tls_key=locked), "is locked with a password"),
    ):
        with pytest.raises(UserError, match=message):
            check_sharing(config(access=wrong))


def test_addresses_that_cannot_be_had() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: something listens at 127.0.0.1 already"):
            bind("127.0.0.1", port)
    with pytest.raises(UserError, match="--host 192.0.2.1 --port 0: cannot listen there"):
        bind("192.0.2.1", 0)
    with pytest.raises(UserError, match="no address of that name"):
        bind("no such host", 0)


def test_the_address_is_one_that_a_browser_here_can_open() -> None:
    assert address(config(), 1) == "http://127.0.0.1:1"
    assert address(config(host="0.0.0.0"), 1) == "http://127.0.0.1:1"
    assert address(config(host="::1"), 1) == "http://[::1]:1"
    assert address(config(host="box.lan", access=AccessConfig(tls_cert=Path("c"))), 443) == "https://box.lan:443"
