"""Many at once, over HTTP: 200 streams that are each what they are alone, and ten times more than there is room for (case 19)."""

import asyncio
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from tests.serve.conftest import Running

from llamaherd.core.seeds import python_rng

NAMES = ("Ada", "Ben", "Eva", "Max", "Zoe", "Leo")
STREAMS = 200


class Told(NamedTuple):
    """One answer; seconds from the request to the head of the answer, to its first text, and to its end."""

    status: int
    headers: str
    text: str
    head_s: float
    first_s: float
    whole_s: float


async def ask(up: Running, body: dict[str, Any]) -> Told:
    """One request on a connection of its own; the text is what a stream says, put together, or the body."""
    content = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
    try:
        writer.write(head.encode() + content)
        headers = (await reader.readuntil(b"\r\n\r\n")).decode()
        head_s = time.perf_counter() - began
        status, first_s, text, whole = int(headers.split()[1]), 0.0, "", b""
        while line := await reader.readline():
            whole += line
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            said = "".join(choice["delta"].get("content") or "" for choice in event["choices"])
            first_s = first_s or (time.perf_counter() - began if said else 0.0)
            text += said
        return Told(status, headers.lower(), text if body.get("stream") else whole.decode(), head_s, first_s, time.perf_counter() - began)
    finally:
        writer.close()


def streams(tokens: int) -> list[dict[str, Any]]:
    """Dialogues of mixed lengths of which half begin alike, each with settings and a seed of its own."""
    random = python_rng(0, "streams over http")
    asked = []
    for number in range(STREAMS):
        messages = [{"role": "system", "content": "Answer briefly. " * 3}] if number % 2 else []
        question = " ".join(f"Where does {random.choice(NAMES)} live?" for _ in range(random.randint(1, 4)))
        asked.append({
            "model": "endless", "messages": [*messages, {"role": "user", "content": question}], "seed": number, "stream": True,
            "temperature": random.choice([0.0, 0.7, 1.0]), "max_tokens": random.randint(tokens // 2, tokens),
        })  # fmt: skip
    return asked


def crowd(serve: Callable[..., Any], talkers: Path, tokens: int, every: int) -> None:
    """All at once, then every so manyth alone."""
    asked = streams(tokens)

    async def at_once() -> list[Told]:
        return await asyncio.gather(*(ask(up, one) for one in asked))

    with serve(models=[str(talkers / "endless")], invariant=True) as up:
        began = time.perf_counter()
        told = asyncio.run(at_once())
        seconds = time.perf_counter() - began
        assert {one.status for one in told} == {200}
        assert len({one.text for one in told}) > STREAMS // 2
        assert up.service.models["endless"].worker.stats.finished["length"] >= STREAMS * 9 // 10
        for number in range(0, STREAMS, every):
            assert asyncio.run(ask(up, asked[number])).text == told[number].text, number
        made = sum(one["max_tokens"] for one in asked)
        first = sorted(one.first_s for one in told if one.first_s)
    print(
        f"{STREAMS} streams: first text after {first[0]:.2f} s, median {statistics.median(first):.2f}, last {first[-1]:.2f};"
        f" all after {seconds:.2f} s, {made / seconds:.0f} tokens/s"
    )
    assert first[-1] < seconds


def test_200_streams_are_each_what_they_are_alone(serve: Callable[..., Any], talkers: Path) -> None:
    crowd(serve, talkers, 20, 20)


@pytest.mark.slow
def test_200_longer_streams_are_each_what_they_are_alone(serve: Callable[..., Any], talkers: Path) -> None:
    crowd(serve, talkers, 120, 1)


def overload(serve: Callable[..., Any], talkers: Path, seconds: float) -> None:
    """Ten times as many ask, again and again, as the server has room for."""
    room = 4
    body = {"model": "short", "messages": [{"role": "user", "content": "Where does Ada live?"}], "max_tokens": 20}
    memory: list[int] = []

    async def insists(number: int, ends: float) -> list[Told]:
        told = []
        await asyncio.sleep(number / (10 * room))
        while time.monotonic() < ends:
            told.append(await ask(up, body))
            await asyncio.sleep(told[-1].status == 429)  # as Retry-After says
        return told

    async def at_once() -> list[Told]:
        ends = time.monotonic() + seconds
        asking = asyncio.gather(*(insists(number, ends) for number in range(10 * room)))
        while not asking.done():
            await asyncio.sleep(0.1)
            memory.append(psutil.Process().memory_info().rss)
        return [one for told in await asking for one in told]

    with serve(models=[str(talkers / "short")], limits={"waiting": room}) as up:
        told = asyncio.run(at_once())
        refused = [one for one in told if one.status == 429]
        assert {one.status for one in told} == {200, 429}
        assert len(refused) > 5 * room
        assert all("\r\nretry-after: 1\r\n" in one.headers for one in refused)
        assert all(json.loads(one.text)["choices"][0]["finish_reason"] for one in told if one.status == 200)
        after = [memory[len(memory) // 4], memory[-1]]
        assert after[1] - after[0] < 16 << 20, memory
        up.wait_empty()
        assert asyncio.run(ask(up, body)).status == 200
        stats = up.service.models["short"].worker.stats
        assert (stats.waiting, stats.running, stats.failed, stats.cancelled) == (0, 0, 0, 0)
    waits = sorted(one.head_s for one in refused)
    print(
        f"{len(told)} requests in {seconds:g} s, {len(refused)} refused: median {statistics.median(waits) * 1000:.0f} ms,"
        f" 99% {waits[int(len(waits) * 0.99)] * 1000:.0f} ms; memory {after[0] >> 20} MiB, then {after[1] >> 20}"
    )
    assert statistics.median(waits) < 0.5  # 0.1 where nothing else computes, the askers included


def test_ten_times_too_many_for_some_seconds(serve: Callable[..., Any], talkers: Path) -> None:
    overload(serve, talkers, 4.0)


@pytest.mark.slow
def test_ten_times_too_many_for_a_minute(serve: Callable[..., Any], talkers: Path) -> None:
    overload(serve, talkers, 60.0)
