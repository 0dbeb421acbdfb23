"""Our server under load beside llama.cpp's and transformers', on the same model; `python -m benchmarks.serving --model DIR`.

Every server is a process of its own on loopback, and this one is the client: seeded, streamed requests for chat completions, all of a
number of streams at once, the servers taking turns. In the invariant mode every answer is compared with what the same request gets
when it is alone. `--write docs/performance.md` puts the table into that page. llama.cpp's server takes part where LLAMAHERD_LLAMA_CPP_PYTHON names a Python that has `llama-cpp-python[server]`.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.pages import filled
from llamaherd.core.artifacts import model_path
from llamaherd.core.files import write_text
from llamaherd.core.seeds import python_rng

VARIABLE = "LLAMAHERD_LLAMA_CPP_PYTHON"
COMMAND = (sys.executable, "-c", "from llamaherd.cli import main; main()")
START_S, REQUEST_S = 60.0, 30.0
INVARIANT = "llamaherd, invariant"
NAMES = ("Ada", "Ben", "Eva", "Finn", "Hugo", "Jack", "Kim", "Lars", "Mary", "Nick", "Olga", "Rita", "Uma", "Zoe")
ASKED = ("Where does {} live?", "What is the job of {}?", "What does {} do for fun?", "Which animal lives with {}?", "What does {} eat?")


@dataclass(frozen=True)
class Side:
    """A server that is up. `name` is what it calls the model."""

    title: str
    url: str
    name: str


@dataclass(frozen=True)
class Heard:
    """One streamed answer: text, tokens, and seconds until the first piece of text and until the end."""

    text: str
    tokens: int
    first_s: float
    whole_s: float


def requests(count: int, new: int, rng_seed: int = 0) -> list[dict[str, Any]]:
    """Bodies without their model: one short question each, sampled with a seed of its own."""
    rng = python_rng(rng_seed, "serving")
    return [
        {
            "messages": [{"role": "user", "content": rng.choice(ASKED).format(rng.choice(NAMES))}], "seed": index + 1, "temperature": 1.0,
            "max_tokens": new, "stream": True, "stream_options": {"include_usage": True},
        }
        for index in range(count)
    ]  # fmt: skip


async def ask(side: Side, body: dict[str, Any]) -> Heard:
    """One request over a connection of its own. Raises RuntimeError for an answer that is none."""
    place = urlsplit(side.url)
    content = json.dumps({"model": side.name, **body}).encode()
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    try:
        status = (await reader.readline()).split()
        while (await reader.readline()).strip():
            pass
        if status[1:2] != [b"200"]:
            raise RuntimeError(f"{side.title} answered {b' '.join(status)!r} {(await reader.read(500))!r}")
        text, pieces, tokens, first_s = "", 0, None, 0.0
        async for line in lines(reader):
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise RuntimeError(f"{side.title} ended a stream with {chunk['error']}")
            piece = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            if piece and not text:
                first_s = time.perf_counter() - started
            text, pieces = text + piece, pieces + bool(piece)
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
        whole_s = time.perf_counter() - started
        return Heard(text, pieces if tokens is None else tokens, first_s or whole_s, whole_s)
    finally:
        writer.close()


async def lines(reader: asyncio.StreamReader) -> Any:
    """The lines of a chunked body."""
    held = b""
    while size := int((await reader.readline()).split(b";")[0] or b"0", 16):
        held += await reader.readexactly(size)
        await reader.readexactly(2)
        *whole, held = held.split(b"\n")
        for line in whole:
            yield line.decode().rstrip("\r")
    yield held.decode()


async def together(side: Side, bodies: Sequence[dict[str, Any]]) -> tuple[list[Heard], float]:
    """(all answers, asked at once, the seconds until the last of them)."""
    started = time.perf_counter()
    heard = await asyncio.wait_for(asyncio.gather(*(ask(side, body) for body in bodies)), REQUEST_S)
    return heard, time.perf_counter() - started


async def alone(side: Side, bodies: Sequence[dict[str, Any]]) -> list[Heard]:
    """All answers, each asked for after the one before has ended."""
    return [await asyncio.wait_for(ask(side, body), REQUEST_S) for body in bodies]


def told(heard: Sequence[Heard], seconds: float) -> dict[str, float]:
    """Figures of one turn: time to first token (median and 95th percentile), tokens a second in all and of the median stream."""
    firsts = sorted(one.first_s for one in heard)
    return {
        "first_ms": 1000 * statistics.median(firsts), "first_95_ms": 1000 * firsts[int(0.95 * (len(firsts) - 1))],
        "tokens_per_s": sum(one.tokens for one in heard) / seconds,
        "stream_tokens_per_s": statistics.median(one.tokens / one.whole_s for one in heard),
    }  # fmt: skip


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def process(command: Sequence[str], threads: int, folder: Path) -> Iterator[Path]:
    """Runs while the block does; the file that takes down what it says. It ends with its block, if need be by force."""
    log = folder / f"{len(list(folder.iterdir()))}.log"
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("w") as out:
        running = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, stdin=subprocess.DEVNULL)
        try:
            yield log
        finally:
            running.terminate()
            try:
                running.wait(15)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def wait_until(log: Path, url: str | None, what: str) -> str:
    """The address of a server once it answers: `url`, or the first that it prints. Raises RuntimeError with what it said instead."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        said = log.read_text("utf-8", "replace")
        found = url or next(iter(re.findall(r"http://127\.0\.0\.1:\d+", said)), None)
        if found:
            place = urlsplit(found)
            with socket.socket() as one:
                one.settimeout(1)
                if one.connect_ex((place.hostname, place.port)) == 0 and (url or "ready:" in said):
                    return found
        time.sleep(0.2)
    raise RuntimeError(f"{what} is not up after {START_S:g} s; it said: {log.read_text('utf-8', 'replace')[-500:]}")


@contextmanager
def ours(model: Path, threads: int, folder: Path, most: int, invariant: bool) -> Iterator[Side]:
    """`llamaherd serve`, with room for as many streams."""
    command = [*COMMAND, "serve", f"model={model}", "--port", "0", f"--limits.waiting={max(256, most)}"]
    command += [f"--limits.connections={max(512, most + 8)}"] + ["--invariant"] * invariant
    title = INVARIANT if invariant else "llamaherd"
    with process(command, threads, folder) as log:
        yield Side(title, wait_until(log, None, title), "model")


@contextmanager
def llama_cpp(python: str, model: Path, threads: int, folder: Path) -> Iterator[Side]:
    """llama.cpp's server for Python, on the same weights in float32."""
    subprocess.run([*COMMAND, "convert", str(model), str(folder / "model.gguf"), "--to", "gguf", "--dtype", "float32"], check=True)
    port = free_port()
    command = [python, "-m", "llama_cpp.server", "--model", str(folder / "model.gguf"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--n_threads", str(threads), "--n_threads_batch", str(threads), "--n_ctx", "1024", "--interrupt_requests", "false"]
    with process(command, threads, folder) as log:
        yield Side("llama.cpp", wait_until(log, f"http://127.0.0.1:{port}", "llama.cpp's server"), "model")


@contextmanager
def transformers(model: Path, threads: int, folder: Path, batching: bool) -> Iterator[Side]:
    """`transformers serve`, with its continuous batching or as it is."""
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--device", "cpu", "--dtype", "float32"] + ["--continuous-batching"] * batching
    with process(command, threads, folder) as log:
        url = wait_until(log, f"http://127.0.0.1:{port}", "transformers serve")
        yield Side("transformers, batching" if batching else "transformers", url, str(model))


def lacks(python: str, module: str) -> str | None:
    """What a Python says when it cannot import a module."""
    done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it failed"])[-1]


def others(model: Path, threads: int, folder: Path) -> Iterator[Any]:
    """Servers of others that this machine has, each as a context; says of the rest why not."""
    python = os.environ.get(VARIABLE)
    if python is None:
        print(f"llama.cpp's server is left out: {VARIABLE} names no Python")
    elif problem := lacks(python, "llama_cpp.server.app"):
        print(f"llama.cpp's server is left out: {python} says {problem}; llama-cpp-python[server] has what it needs")
    else:
        yield llama_cpp(python, model, threads, folder)
    if problem := lacks(sys.executable, "transformers.cli.serve, openai"):
        print(f"transformers serve is left out: {problem}; transformers[serving] has what it needs")
    else:
        yield transformers(model, threads, folder, batching=False)
        yield transformers(model, threads, folder, batching=True)


def row(streams: int, title: str, turns: Sequence[dict[str, float]], equal: str) -> str:
    """Medians over turns."""
    medians = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    figures = f"{medians['first_ms']:,.0f} | {medians['first_95_ms']:,.0f} | {medians['tokens_per_s']:,.0f} | {medians['stream_tokens_per_s']:,.1f}"
    return f"| {streams} | {title} | {figures} | {equal} |"


class Turns:
    """What is measured, turn by turn. A side that took longer than `most_s` for a turn, or failed, is asked for no more."""

    def __init__(self, sides: Sequence[Side], new: int, turns: int, most_s: float):
        self._left, self._new, self._turns, self._most_s = list(sides), new, turns, most_s
        self._alone: dict[int, str] = {}
        """Of the invariant side: what a request gets when nothing else is at work."""
        self.notes: list[str] = []

    async def rows(self, count: int) -> list[str]:
        """One row for each side that is left, for so many streams at once."""
        bodies, figures, equal = requests(count, self._new), {side.title: list[dict[str, float]]() for side in self._left}, dict[str, str]()
        for turn in range(self._turns):
            for side in list(self._left):
                try:
                    heard, seconds = await together(side, bodies)
                    figures[side.title].append(told(heard, seconds))
                    if side.title == INVARIANT and turn == self._turns - 1:
                        equal[side.title] = f"{await self._same(side, bodies, heard)} of {count}"
                except (RuntimeError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                    self._give_up(side, f"failed at {count} streams: {type(error).__name__} {error}")
                    continue
                if seconds > self._most_s:
                    self._give_up(side, f"took {seconds:.0f} s for {count} streams and was asked for no more")
        return [row(count, title, found, equal.get(title, "")) for title, found in figures.items() if found]

    async def _same(self, side: Side, bodies: Sequence[dict[str, Any]], heard: Sequence[Heard]) -> int:
        """How many answers are, letter by letter, what the same request gets alone."""
        missing = range(len(self._alone), len(bodies))
        self._alone |= {
            index: one.text for index, one in zip(missing, await alone(side, [bodies[index] for index in missing]), strict=True)
        }
        return sum(one.text == self._alone[index] for index, one in enumerate(heard))

    def _give_up(self, side: Side, why: str) -> None:
        self._left.remove(side)
        self.notes.append(f"{side.title} {why}.")


async def measure(sides: Sequence[Side], streams: Sequence[int], new: int, turns: int, most_s: float) -> str:
    """The table, printed as it comes too."""
    lines = [
        "| streams | server | first token, ms | 95%, ms | tokens/s | tokens/s of a stream | equal to the same alone |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for side in sides:
        await alone(side, requests(2, new, 1))  # to warm up
    measured = Turns(sides, new, turns, most_s)
    for count in streams:
        found = await measured.rows(count)
        print("\n".join(found), flush=True)
        lines += found
    print("\n".join(["", *measured.notes]))
    return "\n".join([*lines, *(["", *measured.notes] if measured.notes else []), ""])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or RUN:VERSION of a chat model")
    parser.add_argument("--streams", default="1,8,32,64,200", help="requests at once, one table row each")
    parser.add_argument("--new", type=int, default=48, help="most new tokens of an answer")
    parser.add_argument("--turns", type=int, default=2, help="turns of each server for each number of streams")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each server")
    parser.add_argument("--most-s", type=float, default=10.0, help="a server that takes longer for a turn is asked for no more streams")
    parser.add_argument("--ours", action="store_true", help="no servers of others")
    parser.add_argument("--write", type=Path, help="page whose table between <!-- serving --> and <!-- end --> is replaced")
    options = parser.parse_args(arguments)
    if options.write:
        filled(options.write.read_text(encoding="utf-8"), {"serving": ""})  # says before any work that the page has no place for it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end as well
    streams = [int(count) for count in options.streams.split(",")]
    model = model_path(options.model)
    place = f"Threads: {options.threads}; {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before.\n\n"
    print(f"Serving {model.name}. {place}")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        sides = [stack.enter_context(ours(model, options.threads, folder, max(streams), invariant)) for invariant in (False, True)]
        if not options.ours:
            sides += [stack.enter_context(other) for other in others(model, options.threads, folder)]
        table = asyncio.run(measure(sides, streams, options.new, options.turns, options.most_s))
    if options.write:
        write_text(options.write, filled(options.write.read_text(encoding="utf-8"), {"serving": f"\n{place}{table}\n"}))


if __name__ == "__main__":
    main()
