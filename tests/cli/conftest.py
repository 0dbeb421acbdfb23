"""A new user's own small files, and every command run on them once."""

import json
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.conftest import Command

from llamaherd.cli import main

NAMES = [first + last for first in ("An", "Ber", "Cla", "Do", "El") for last in ("na", "ta", "ra", "ris", "sa")]


@pytest.fixture
def refused(command: Command) -> Callable[..., str]:
    """The one line that a command prints which must not work."""

    def run(*arguments: str | Path, code: int = 2) -> str:
        outcome = command(*arguments)
        assert outcome.code == code, outcome
        assert outcome.out == ""
        assert outcome.err.startswith("llamaherd: ")
        assert outcome.err.count("\n") == 1, outcome.err
        return outcome.err.removeprefix("llamaherd: ").rstrip("\n")

    return run


def rows_file(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows, or lines as they are, to a file of the test's own folder."""

    def to_file(name: str, *rows: Any) -> Path:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), "utf-8")
        return tmp_path / name

    return to_file


def user_files(folder: Path) -> None:
    """Documents, dialogues, prompts, and preferences without grades, labels or annotators."""
    rng = random.Random(0)
    texts = [f"{name} lives in {rng.choice(['Oslo', 'Rome'])} and bakes {rng.randrange(100)} cakes." for name in NAMES for _ in range(6)]
    rows_file(folder / "documents.jsonl", [{"text": text} for text in [*texts, ""]])
    asked = [[{"role": "user", "content": f"Where does {name} live?"}] for name in NAMES]
    answers = [f"{name} lives in Rome." for name in NAMES]
    said = [[*messages, {"role": "assistant", "content": answer}] for messages, answer in zip(asked, answers, strict=True)]
    rows_file(folder / "dialogues.jsonl", [{"messages": messages} for messages in said])
    rows_file(folder / "prompts.jsonl", [{"messages": messages} for messages in asked])
    for domain in ("helpfulness", "safety"):
        pairs = [
            {"messages": messages, "chosen": answer, "rejected": "No.", "domain": domain}
            for messages, answer in zip(asked, answers, strict=True)
        ]
        rows_file(folder / f"{domain}.jsonl", pairs)
    rows_file(folder / "scripts.jsonl", [{"instruction": "Be brief.", "users": ["Where?", "Who lives in Rome?"]}] * 3)
    adversarial = [{"messages": messages, "safety": True, "preprompt": "Be safe."} for messages in asked[:4]]
    rows_file(folder / "adversarial.jsonl", adversarial)


COMMANDS = """
data build --documents documents.jsonl --out corpus
tokenizer train --corpus corpus --dialogues dialogues.jsonl --tokenizer.vocab_size 330 --out tokenizer
data shards --corpus corpus --tokenizer tokenizer --out shards
pretrain --config pretrain.yaml --out base
sft --model base --data dialogues.jsonl --out chat --row_tokens 128 --batch_rows=4 --optimizer.lr 5e-3 --epochs 8
reward --model chat --data helpfulness.jsonl --domain helpfulness --out help --batch_pairs 8
reward --model chat --data safety.jsonl --domain safety --out safe --batch_pairs 8
reject --config reject.yaml --out samples
ppo --config ppo.yaml --out after-ppo
ghost --config ghost.yaml --out ghost
distill --config distill.yaml --out distilled
"""
"""In order; each reads what those before it wrote."""

SETTINGS = {
    "pretrain": "shards: shards\nmodel: tiny\nsteps: 40\nrow_tokens: 64\noptimizer: {lr: 1e-2, warmup_steps: 2}\n",
    "reject": "model: chat\nhelpfulness: help\nsafety: safe\nprompts: prompts.jsonl\nk: 2\nmax_new_tokens: 24\n",
    "ppo": "model: chat\nhelpfulness: help\nsafety: safe\nprompts: prompts.jsonl\n"
    "ppo: {iterations: 1, batch: 8, mini_batch: 4, max_new_tokens: 24}\n",
    "ghost": "model: chat\nscripts: scripts.jsonl\nsampling: {max_new_tokens: 24}\n",
    "distill": "model: chat\nsafety: safe\nprompts: adversarial.jsonl\nharmless: prompts.jsonl\nsampling: {max_new_tokens: 24}\n",
}


class Workshop(NamedTuple):
    """A folder with a user's files and what the commands made of them."""

    folder: Path
    printed: dict[str, str]
    outbound: list[object]
    """Addresses that a command tried to reach."""


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("workshop")
    user_files(folder)
    for name, text in SETTINGS.items():
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    printed = {}
    outbound: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LLAMAHERD_THREADS", "1")
        patch.setattr(socket.socket, "connect", lambda self, address: outbound.append(address))
        patch.setattr(socket, "getaddrinfo", lambda *address, **_: outbound.append(address))
        for line in COMMANDS.strip().splitlines():
            words = line.split()
            out = words[words.index("--out") + 1]
            main(words)
            assert os.path.isfile(f"{out}/manifest.json")
            printed[out] = line
    return Workshop(folder, printed, outbound)
