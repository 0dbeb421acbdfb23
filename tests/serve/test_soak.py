"""Mixed load with faults: memory stays flat, and no slot, thread, file or task is left behind.

LLAMAHERD_SOAK_S: so many seconds the slow test takes.
"""

import asyncio
import gc
import http.client
import json
import os
import shutil
import socket
import statistics
import struct
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from tests.serve.conftest import Running

from llamaherd.core.seeds import python_rng

CLIENTS = 6
NAMES = ("Ada", "Ben", "Eva", "Max", "Zoe", "Leo")
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a"],
    "additionalProperties": False,
}
FUNCTION = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"enum": ["a", "b"]}}}}}
HOSTILE = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a|b|ab)*(a{1,999}){1,999}$"}}, "required": ["a"]}


def talk(random: Random) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Where does {random.choice(NAMES)} live, and {random.choice(NAMES)}? {random.randrange(1000)}"}]


def asked(random: Random) -> list[tuple[str, str, dict[str, Any] | None]]:
    """(method, path, body) of what one client does in a row."""
    chat = {"model": random.choice(["short", "endless"]), "messages": talk(random), "max_tokens": random.randrange(1, 40)}
    form = {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}, "max_tokens": 60}
    raw = {"model": "short", "prompt": [f"{random.choice(NAMES)} lives", "Ben lives"], "max_tokens": 5}
    id, node = (str(uuid.UUID(int=random.getrandbits(128))) for _ in range(2))
    kept = f"/api/conversations/{id}"
    post = "/v1/chat/completions"
    return random.choice([
        [("POST", post, chat)], [("POST", post, chat | {"stream": True})], [("POST", post, chat | {"stream": True, "logprobs": True, "n": 2})],
        [("POST", post, chat | {"n": 3, "logprobs": True, "top_logprobs": 2})], [("POST", post, chat | form)],
        [("POST", post, chat | {"tools": [FUNCTION], "tool_choice": "required", "max_tokens": 60})],
        [("POST", "/v1/completions", raw | {"echo": True, "logprobs": 1, "max_tokens": 0})], [("POST", "/v1/completions", raw | {"stream": True})],
        [("POST", "/tokenize", {"prompt": "Ada lives. " * random.randrange(1, 50)}), ("POST", "/detokenize", {"tokens": [1, 300]})],
        [("POST", "/v1/moderations", {"input": [talk(random)[0]["content"]]}), ("GET", "/metrics", None), ("GET", "/v1/models", None)],
        [("POST", "/v1/rewards", {"model": "helpfulness", "dialogues": [{"messages": [*talk(random), {"role": "assistant", "content": "In Rome."}]}]})],
        [
            ("POST", "/api/conversations", {"id": id, "title": "t"}), ("GET", "/api/conversations?query=lives", None),
            ("POST", f"{kept}/nodes", {"id": node, "role": "user", "content": "Who?"}), ("GET", f"{kept}/export", None), ("DELETE", kept, None),
        ],
        [("POST", "/api/render", {"texts": ["**a** $x^2$", "```py\nx = 1\n```", f"| a |\n|---|\n| {random.randrange(99)} |"]})],
        [("POST", "/v1/chat/preview", chat), ("GET", "/health", None), ("GET", "/", None)],
    ])  # fmt: skip


class Client(threading.Thread):
    """Asks one thing after the other; every so manyth is a fault."""

    def __init__(self, up: Running, number: int, ends: float, fault_every: int):
        super().__init__(name=f"client {number}")
        self._up, self._ends, self._fault_every = up, ends, fault_every
        self._random = python_rng(0, "soak", number)
        self._faults: list[Callable[[], None]] = [
            self._half_a_head, self._half_a_body, self._leaves_at_once, self._leaves_after_some, self._resets, self._reads_slowly, self._says_nothing,
            self._sends_no_json, self._wants_too_much, self._sends_a_hostile_schema,
        ]  # fmt: skip
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self) -> None:
        done = 0
        try:
            while time.monotonic() < self._ends:
                done += 1
                if done % self._fault_every == 0:
                    fault = self._faults[done // self._fault_every % len(self._faults)]
                    fault()
                    self.seen[f"fault {fault.__name__}"] += 1
                else:
                    for method, path, body in asked(self._random):
                        self._expect((200, 204), method, path, body)
        except Exception as error:  # whatever it is, the test is to say it
            self.wrong.append(repr(error))

    def _expect(self, right: tuple[int, ...], method: str, path: str, body: dict[str, Any] | None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._up.port, timeout=60)
        try:
            connection.request(
                method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"} if body else {}
            )
            answer = connection.getresponse()
            said = answer.read()
            if answer.status not in right or b'"error": {' in said:
                self.wrong.append(f"{method} {path} {answer.status} {said[:300]!r}")
            self.seen[path.split("?")[0] if not path.startswith("/api/conv") else "/api/conversations"] += 1
        finally:
            connection.close()

    def _begun(self, body: bytes, upto: int | None = None) -> socket.socket:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        line = socket.create_connection(("127.0.0.1", self._up.port), timeout=30)
        line.sendall((head.encode() + body)[:upto])
        return line

    @property
    def _long(self) -> bytes:
        stream, n = self._random.random() < 0.7, self._random.randrange(1, 4)
        return json.dumps({"model": "endless", "messages": talk(self._random), "max_tokens": 1500, "stream": stream, "n": n}).encode()

    def _half_a_head(self) -> None:
        self._begun(b"", 30).close()

    def _half_a_body(self) -> None:
        self._begun(self._long, 200).close()

    def _leaves_at_once(self) -> None:
        self._begun(self._long).close()

    def _leaves_after_some(self) -> None:
        with self._begun(
            json.dumps({"model": "endless", "messages": talk(self._random), "max_tokens": 1500, "stream": True}).encode()
        ) as line:
            line.recv(4096)

    def _resets(self) -> None:
        with self._begun(self._long) as line:
            time.sleep(self._random.random() * 0.2)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _reads_slowly(self) -> None:
        with self._begun(
            json.dumps({"model": "endless", "messages": talk(self._random), "max_tokens": 1500, "stream": True}).encode()
        ) as line:
            for _ in range(10):
                line.recv(1)
                time.sleep(0.05)

    def _says_nothing(self) -> None:
        with socket.create_connection(("127.0.0.1", self._up.port), timeout=30) as line:
            assert line.recv(10) == b""  # dropped after limits.silence_s

    def _sends_no_json(self) -> None:
        with self._begun(b'{"model": "short", "messages": [') as line:
            assert line.recv(4096).split()[1] == b"400"

    def _wants_too_much(self) -> None:
        self._expect((400,), "POST", "/v1/chat/completions", {"model": "short", "messages": talk(self._random), "n": 10**6})

    def _sends_a_hostile_schema(self) -> None:
        form = {"type": "json_schema", "json_schema": {"name": "s", "schema": HOSTILE}}
        body = {"model": "short", "messages": talk(self._random), "max_tokens": 4, "response_format": form}
        self._expect((200, 400), "POST", "/v1/chat/completions", body)


def left(up: Running) -> dict[str, int]:
    """What a server holds when nobody asks."""

    async def tasks() -> int:
        return len(asyncio.all_tasks())

    process = psutil.Process()
    counted = asyncio.run_coroutine_threadsafe(tasks(), up.server.servers[0].get_loop()).result(10)
    return {"threads": process.num_threads(), "files": process.num_fds(), "tasks": counted}


def load(up: Running, first: int, seconds: float, fault_every: int) -> tuple[Counter[str], list[int]]:
    """(what was asked, how often; the process's memory in bytes, every half second) of so many seconds."""
    clients = [Client(up, first + number, time.monotonic() + seconds, fault_every) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    rss: list[int] = []
    while any(client.is_alive() for client in clients):
        rss.append(psutil.Process().memory_info().rss)
        time.sleep(0.5)
    settle(up)
    assert [wrong for client in clients for wrong in client.wrong] == []
    return sum((client.seen for client in clients), Counter()), rss


def soak(up: Running, seconds: float, fault_every: int, growth: float) -> dict[str, Any]:
    """Demands what must hold after so many seconds, a quarter of which warms up. What was measured, for people."""
    load(up, 0, seconds / 4, 5)
    before = left(up)
    seen, rss = load(up, CLIENTS, seconds * 3 / 4, fault_every)
    after, fifth = left(up), len(rss) // 5
    early, late = statistics.median(rss[:fifth]), statistics.median(rss[-fifth:])
    mib = [round(one / 2**20, 1) for one in (early, max(rss), late)]
    told = {"asked": dict(seen), "rss_mib_early_most_late": mib, "before": before, "after": after}
    assert late < early * (1 + growth), told
    for base in up.service.bases:
        assert base.worker is not None
        stats = base.worker.stats
        assert (base.worker.open, stats.waiting, stats.running, stats.failed) == (0, 0, 0, 0), (told, stats)
        assert stats.finished["stop"] + stats.finished["length"] > 0
        told[base.name] = {"finished": dict(stats.finished), "cancelled": stats.cancelled, "tokens": stats.tokens}
    assert up.server.config.loaded_app.state.door.at_work == 0
    assert up.service.health == "ready"
    assert after["threads"] <= before["threads"] + 8, told  # pools grow to their size as they are used
    assert after["files"] <= before["files"] + 8, told  # the database's as well
    assert after["tasks"] <= before["tasks"], told
    return told


def settle(up: Running) -> None:
    """Until nothing is open, and connections that wait for more have ended."""
    up.wait_empty(20)
    ends = time.monotonic() + 30
    while up.server.server_state.connections or up.server.server_state.tasks:
        assert time.monotonic() < ends, up.server.server_state.connections
        time.sleep(0.05)
    gc.collect()


@pytest.fixture
def serving(serve: Callable[..., Any], talkers: Path, tiny_folder: Path, tmp_path: Path) -> Iterator[Running]:
    """Chat models, and reward models with as much context."""
    for name in ("helpfulness", "safety"):
        shutil.copytree(tiny_folder / name, tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    with serve(
        models=[str(talkers / "short"), str(talkers / "endless")], rewards=[str(tmp_path / "helpfulness")], memory_gib=0.0005,
        guard={"model": str(tmp_path / "safety"), "threshold": 1e-9}, limits={"silence_s": 2}, state=str(tmp_path / "state"),
    ) as up:  # fmt: skip
        yield up


def test_for_some_seconds(serving: Running) -> None:
    soak(serving, 16.0, 5, 0.15)  # a process that has just begun still grows


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_for_half_an_hour(serving: Running) -> None:
    print(json.dumps(soak(serving, float(os.environ.get("LLAMAHERD_SOAK_S", "1800")), 100, 0.02)))
