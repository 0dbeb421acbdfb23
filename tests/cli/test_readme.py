"""The README's own commands, in its order, on the files it names; only budgets are cut."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, blocks, commands, faster, ready_to_run

from llamaherd.core.files import read_json

README = (ROOT / "README.md").read_text("utf-8")
BLOCKS, COMMANDS = blocks(README), commands(README)


@pytest.fixture
def chair(finished_run, tmp_path, monkeypatch):
    """Where a user sits who has had a run and has files of their own."""
    monkeypatch.chdir(tmp_path)
    run, world = finished_run.folder, finished_run.folder / "world"
    shutil.copytree(run, "runs/miniature")
    for name, file in (
        ("documents", world / "documents.jsonl"), ("dialogues", world / "demonstrations.jsonl"), ("prompts", world / "ppo.jsonl"),
    ):  # fmt: skip
        shutil.copy(file, f"{name}.jsonl")
    pairs = [(run / f"v{version}-preferences" / "preferences.jsonl").read_text("utf-8") for version in range(1, 6)]
    Path("preferences.jsonl").write_text("".join(pairs), "utf-8")
    Path("my-recipe.yaml").write_text("tune_from: v0\n", "utf-8")
    for kind, block in BLOCKS:
        if kind == "yaml" and (name := re.match(r"# (\S+)\n", block)):
            Path(name[1]).write_text(block, "utf-8")


def served(words):
    """Starts a server, asks what the README asks, and ends it."""
    environment = {**os.environ, "BROWSER": "true", "LLAMAHERD_THREADS": "1"}
    command = [sys.executable, "-u", "-m", "llamaherd.cli", *words, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            said = [server.stdout.readline() for _ in range(3)]
            assert said[2].startswith("ready: "), (words, said, server.poll())
            if "v5" in said[2]:
                address = re.search(r"http://\S+/v1", said[0])[0]
                [snippet] = [block for kind, block in BLOCKS if kind == "python" and "OpenAI" in block]
                snippet = snippet.replace("http://127.0.0.1:8000/v1", address)
                subprocess.run([sys.executable, "-c", snippet], check=True, capture_output=True, timeout=60)
        finally:
            server.send_signal(signal.SIGINT)
            out, error = server.communicate(timeout=60)
    assert server.returncode == 0, (words, out, error)
    return said


def test_the_servers_words_are_those_of_the_readme():
    assert "llamaherd at http://127.0.0.1:8000 (API: http://127.0.0.1:8000/v1); Ctrl+C ends it\nloading v5, v0\nready: v5, v0\n" in README


@pytest.mark.usefixtures("chair")
def test_every_command_works(command, monkeypatch, hub):
    hub.add("models/meta-llama/Llama-2-7b-chat-hf", {path.name: path.read_bytes() for path in Path("runs/miniature/v0").iterdir()})
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    monkeypatch.setenv("LLAMAHERD_STATE", str(Path("state").absolute()))
    done, servers = set(), []
    for name, *words in COMMANDS:
        if name != "llamaherd":
            assert name == "make"
            continue
        if words[0] == "claims":
            ready_to_run("miniature", *words[1:])
        elif words[0] == "run" and "--help" not in words:
            ready_to_run(*words[1:])
        elif words[0] == "serve":
            servers.append(words)
        else:
            monkeypatch.setattr("sys.stdin", io.StringIO("Hello.\n"))
            outcome = command(*faster(words))
            # A run of seconds is not healthy, and the doctor says so.
            assert outcome.code in ((0, 1) if words[0] == "doctor" else (0,)), (words, outcome)
            assert outcome.out.strip(), words
        done.add(words[0])
    for words in servers:
        said = served(words)
        assert re.sub(r"http://127.0.0.1:\d+", "ADDRESS", said[0]) == "llamaherd at ADDRESS (API: ADDRESS/v1); Ctrl+C ends it\n"
    assert len(servers) >= 3
    assert {"run", "chat", "generate", "data", "tokenizer", "pretrain", "sft", "reward", "score", "reject", "ppo", "evaluate"} <= done
    assert {"download", "plan", "merge", "quantize", "convert", "upload"} <= done
    assert {"versions", "doctor", "reward-report", "curves"} <= done
    assert read_json(Path("aligned/manifest.json"))["parents"].keys() >= {"tuned", "helpful", "safe"}


def test_make_knows_its_targets():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = {words[1] for words in COMMANDS if words[0] == "make"} | set(re.findall(r"`make ([a-z-]+)", README))
    assert named >= {"run", "test"}
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


def test_every_file_that_is_named_is_there():
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    assert linked
    assert [name for name in linked if not (ROOT / name).exists()] == []
    listed = re.findall(r"^  (\w+(?:/|\.py)) ", README, re.MULTILINE)
    assert {name.rstrip("/") for name in listed} == {
        entry.name for entry in os.scandir(ROOT / "src/llamaherd") if not entry.name.startswith("__") and entry.name != "py.typed"
    }
