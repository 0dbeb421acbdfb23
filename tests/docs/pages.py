"""What a page says to do: its commands, its files and its Python, as they stand there."""

import re
import shlex
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from llamaherd import cli
from llamaherd.recipe.checks import problems
from llamaherd.recipe.config import load_recipe
from llamaherd.serve import server

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FASTER = {
    "pretrain": ["--steps=20", "--optimizer.warmup_steps=2"], "sft": ["--epochs=0.2"], "reward": ["--epochs=0.2"], "evaluate": ["--safety_prompts=8", "--helpfulness_prompts=8"],
    "reject": ["--k=2", "--max_new_tokens=8"], "curves": ["--samples=2", "--temperatures=1.0", "--max_new_tokens=8"], "win-rate": ["--sampling.max_new_tokens=8"], "ppo": ["--ppo.iterations=1", "--ppo.max_new_tokens=8"], "generate": ["--max-new-tokens=8"],
}  # fmt: skip
Block = tuple[str, str]
"""The kind of a fenced block, and what it holds."""


def blocks(text: str) -> list[Block]:
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def lines(text: str) -> list[str]:
    """The commands in order: every line of `sh` blocks, and of `console` ones what follows `$ `."""
    found = []
    for kind, block in blocks(text):
        whole = block.replace("\\\n", " ").splitlines()
        found += whole if kind == "sh" else [line[2:] for line in whole if line.startswith("$ ")] if kind == "console" else []
    return [line for line in found if line.strip() and not line.startswith("#")]


def commands(text: str) -> list[list[str]]:
    """The words of each command, in order."""
    return [shlex.split(line, comments=True) for line in lines(text)]


def faster(words: Sequence[str]) -> list[str]:
    """A command with its budget cut, whatever it was."""
    cuts = FASTER.get("win-rate" if "win-rate" in words else words[0], [])
    named = {cut.partition("=")[0] for cut in cuts}
    return [*(word for word in words if word.partition("=")[0] not in named), *cuts]


def ready_to_run(recipe: str, *words: str) -> None:
    """A recipe's settings are read and checked; running it is other tests' matter."""
    assert problems(load_recipe(recipe, [word for word in words if "=" in word])) == []


def write_files(text: str, folder: Path) -> list[str]:
    """Writes the files that a page shows, each introduced by a line that ends in its name and a colon; their names."""
    found = re.findall(r"`([\w-]+\.(?:jsonl|yaml|py|diff))`:\n\n```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for name, content in found:
        (folder / name).write_text(content, "utf-8")
    return [name for name, _ in found]


def serve_once(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Runs `serve ...` of these words at a free port until it is ready, asks for its health, ends it; the names of its models."""
    made: list[server.Server] = []
    make_server = server.make_server

    def keeping(*given: Any) -> server.Server:
        made.append(make_server(*given))
        return made[-1]

    monkeypatch.setattr(server, "make_server", keeping)
    monkeypatch.setattr(server, "complain_in_lines", lambda: None)
    words = [word.replace("0.0.0.0", "127.0.0.1") for word in words]
    if "--port" in words:
        del words[(place := words.index("--port")) : place + 2]
    thread = threading.Thread(target=cli.main, args=([*words, "--port", "0"],))
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not (made and made[0].port and made[0]._service.state == "ready"):
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        scheme = "https" if "--tls-cert" in words else "http"
        told = httpx.get(f"{scheme}://127.0.0.1:{made[0].port}/health", verify=ssl._create_unverified_context(), trust_env=False)
        assert told.json() == {"status": "ready"}
        return set(made[0]._service.models)
    finally:
        for one in made:
            one.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
