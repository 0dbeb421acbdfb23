"""The README's own commands, in its order, on the files it names; only budgets are cut."""

import io
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from llamaherd.core.files import read_json
from llamaherd.recipe.checks import problems
from llamaherd.recipe.config import load_recipe

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = [shlex.split(line, comments=True) for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
FASTER = {
    "pretrain": ["--steps=20", "--optimizer.warmup_steps=2"], "sft": ["--epochs=0.2"], "reward": ["--epochs=0.2"], "evaluate": ["--safety_prompts=8", "--helpfulness_prompts=8"],
    "reject": ["--k=2", "--max_new_tokens=8"], "curves": ["--samples=2", "--temperatures=1.0", "--max_new_tokens=8"], "win-rate": ["--sampling.max_new_tokens=8"], "ppo": ["--ppo.iterations=1", "--ppo.max_new_tokens=8"], "generate": ["--max-new-tokens=8"],
}  # fmt: skip


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


def ready_to_run(recipe, *words):
    """A recipe's settings are read and checked; running it is other tests' matter."""
    assert problems(load_recipe(recipe, [word for word in words if "=" in word])) == []


@pytest.mark.usefixtures("chair")
def test_every_command_works(command, monkeypatch, hub):
    hub.add("models/meta-llama/Llama-2-7b-chat-hf", {path.name: path.read_bytes() for path in Path("runs/miniature/v0").iterdir()})
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    done = set()
    for name, *words in COMMANDS:
        if name != "llamaherd":
            assert name == "make"
            continue
        if words[0] == "claims":
            ready_to_run("miniature", *words[1:])
        elif words[0] == "run" and "--help" not in words:
            ready_to_run(*words[1:])
        else:
            monkeypatch.setattr("sys.stdin", io.StringIO("Hello.\n"))
            outcome = command(*words, *FASTER.get("win-rate" if "win-rate" in words else words[0], []))
            # A run of seconds is not healthy, and the doctor says so.
            assert outcome.code in ((0, 1) if words[0] == "doctor" else (0,)), (words, outcome)
            assert outcome.out.strip(), words
        done.add(words[0])
    assert {"run", "chat", "generate", "data", "tokenizer", "pretrain", "sft", "reward", "score", "reject", "ppo", "evaluate"} <= done
    assert {"download", "plan", "merge", "quantize", "convert", "upload"} <= done
    assert {"versions", "doctor", "reward-report", "curves"} <= done
    assert read_json(Path("aligned/manifest.json"))["parents"].keys() >= {"tuned", "helpful", "safe"}


def test_make_knows_its_targets():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text("utf-8")
    named = {words[1] for words in COMMANDS if words[0] == "make"} | set(re.findall(r"`make ([a-z-]+)", README))
    assert named >= {"run", "test"}
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


def test_every_file_that_is_named_is_there():
    root = Path(__file__).parents[2]
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    assert linked
    assert [name for name in linked if not (root / name).exists()] == []
    listed = re.findall(r"^  (\w+(?:/|\.py)) ", README, re.MULTILINE)
    assert {name.rstrip("/") for name in listed} == {
        entry.name for entry in os.scandir(root / "src/llamaherd") if not entry.name.startswith("__") and entry.name != "py.typed"
    }
