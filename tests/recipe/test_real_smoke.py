"""The recipe on real text in small, killed once on its way: everything it promises is there, and nothing of its tests was trained on."""

import html
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recipe.test_interrupted import killed_within

from llamaherd.chat.template import encode_dialogue
from llamaherd.checkpoints.huggingface import load_model
from llamaherd.core.artifacts import open_artifact, versions
from llamaherd.core.files import read_json, read_rows
from llamaherd.core.metrics import read_metrics
from llamaherd.data.records import read_dialogues
from llamaherd.losses.language import language_loss
from llamaherd.recipe.chain import chain
from llamaherd.recipe.config import load_recipe
from llamaherd.train.batches import TokenBatch

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs kill -9"), pytest.mark.timeout(1800)]
COMMAND = (sys.executable, "-m", "llamaherd.cli", "run", "real-smoke")
KILLED = ("base", "v1-safety", "v1-samples", "distilled", "v2")
"""One of them is killed."""
TELLING_CHARACTERS = 30
"""Shorter texts, such as a greeting, may stand anywhere."""


@dataclass(frozen=True)
class Run:
    """A finished run, and what its last start printed."""

    folder: Path
    lines: list[str]
    kept: dict[str, int]
    """When each artifact that the kill left was made."""


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    assert data.is_dir()
    folder = tmp_path_factory.mktemp("real") / "smoke"
    seed = random.SystemRandom().randrange(10**6)
    stage = random.Random(seed).choice(KILLED)
    kept = killed_within(COMMAND, folder, stage, random.Random(seed).uniform(0.0, 1.0))["finished"]
    print(f"seed {seed}: killed in {stage}, with {len(kept)} artifacts")
    done = subprocess.run([*COMMAND, "--out", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return Run(folder, done.stdout.splitlines(), kept)


def test_every_artifact_is_there_and_none_was_made_twice(run: Run) -> None:
    recipe = load_recipe("real-smoke")
    steps = chain(recipe, run.folder)
    for step in steps:
        assert open_artifact(run.folder / step.name).manifest["stage"] == step.stage
    assert not list(run.folder.glob("*.partial"))
    assert versions(run.folder) == ["v0", "v1", "v2"]
    assert {name: (run.folder / name / "manifest.json").stat().st_mtime_ns for name in run.kept} == run.kept
    told = [line for line in run.lines if re.match(r"\[ ?\d+/", line)]
    assert len(told) == len(steps) - len(run.kept)
    for line in told:
        assert re.fullmatch(rf"\[ ?\d+/{len(steps)}\] +[\d:]+ left  (\S+) +\S.* \([\d:]+\)  \|  (\S.*)", line), line
    assert run.lines[-1] == f"report: {run.folder / 'report.html'}"
    again = subprocess.run([*COMMAND, "--out", str(run.folder)], capture_output=True, text=True, check=True)
    assert again.stdout.startswith(f"{run.folder} is finished (")


def test_losses_fell(run: Run) -> None:
    for name in ("base", "v0"):
        losses = [row["loss"] for row in read_metrics(run.folder / name / "metrics.jsonl")]
        part = len(losses) // 4
        assert sum(losses[-part:]) < sum(losses[:part]), name


@pytest.mark.parametrize("name", ["v1", "v2-rejection"])
def test_a_version_expects_what_it_was_tuned_on_more_than_its_start_does(run: Run, name: str) -> None:
    """Its dozen steps are too few for the losses of their batches to tell, which differ more from row to row."""
    files = [path for path in map(Path, read_json(run.folder / name / "manifest.json")["config"]["data"]) if path.parent.name != "texts"]
    assert len(files) == (1 if name == "v1" else 3)
    before, after = (nats_per_token(run.folder / model, files) for model in ("v0", name))
    assert after < before - 0.01


def nats_per_token(folder: Path, files: Iterable[Path]) -> float:
    """Of the trained tokens of dialogues, by a model."""
    model, tokenizer = load_model(folder)
    dialogues = [one for file in files for one in read_dialogues(file)]
    encoded = [(one.ids, one.mask) for one in (encode_dialogue(dialogue, tokenizer) for dialogue in dialogues)]
    total = trained = 0.0
    for start in range(0, len(encoded), 16):
        batch = TokenBatch.of(encoded[start : start + 16], model.device)
        with torch.inference_mode():
            total += float(language_loss(model.output(model.hidden(batch.tokens, batch.layout)[0]), batch.targets, batch.trained))
        trained += float(batch.trained.sum())
    return total / trained


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def said(row: Any) -> Iterator[str]:
    """All that users say in a row of any kind, and the text of a document."""
    yield from (message["content"] for message in row.get("messages", ()) if message["role"] == "user")
    yield from row.get("users", ())
    if "text" in row:
        yield row["text"]


def texts(files: Iterable[Path]) -> dict[str, str]:
    """Whatever is said in files, and in which one."""
    return {plain(text): str(file) for file in files for _, row in read_rows(file) for text in said(row)}


def test_nothing_of_the_tests_is_trained_on(run: Run) -> None:
    asked, people = run.folder / "prompts", run.folder / "comparisons"
    prompts = texts([*(asked / "test").glob("*.jsonl"), asked / "distil-test.jsonl"])
    comparisons = texts([people / f"{domain}-test.jsonl" for domain in ("helpfulness", "safety")])
    held_out = texts([run.folder / "texts" / "held-out.jsonl"])
    tested = {text: file for text, file in {**prompts, **comparisons, **held_out}.items() if len(text) >= TELLING_CHARACTERS}
    assert len(tested) > 60
    trained = texts([
        run.folder / "texts" / "documents.jsonl", run.folder / "texts" / "demonstrations.jsonl", run.folder / "corpus" / "documents.jsonl",
        *(people / f"{name}.jsonl" for name in ("helpfulness", "safety", "judge")),
        *(asked / f"{name}.jsonl" for name in ("rejection", "ppo", "held-out", "distil", "harmless", "ghost")),
        *(run.folder / name / "dialogues.jsonl" for name in ("v1-samples", "v2-samples", "ghost", "distilled")),
    ])  # fmt: skip
    assert not [(text, tested[text], trained[text]) for text in tested if text in trained]
    everything = "\n".join(trained)
    assert not [(text, file) for text, file in tested.items() if text in everything and text in prompts]


def first_messages(file: Path) -> set[str]:
    return {plain(row["messages"][0]["content"]) for _, row in read_rows(file)}


def test_no_two_parts_of_the_comparisons_share_a_first_message(run: Run) -> None:
    parts = {name: first_messages(run.folder / "comparisons" / f"{name}.jsonl") for name in (
        "helpfulness", "safety", "helpfulness-test", "safety-test", "judge",
    )}  # fmt: skip
    for name, messages in parts.items():
        assert messages
        assert not [other for other, theirs in parts.items() if other != name and messages & theirs]


def figures(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if {"value", "low", "high", "n"} <= value.keys():
            yield value
        for item in value.values():
            yield from figures(item)


def test_evaluations_wins_and_benchmarks_have_figures_with_intervals(run: Run) -> None:
    for name in ("v0", "v1", "v2-rejection", "v2"):
        assert set(read_json(run.folder / f"{name}-evaluation" / "evaluation.json")["tasks"]) >= {"helpfulness", "safety", "borderline"}
    for kind in ("evaluation", "rewards", "wins", "benchmarks"):
        for folder in run.folder.glob(f"*-{kind}"):
            found = list(figures(read_json(folder / "evaluation.json")["tasks"]))
            assert found, folder
            for figure in found:
                assert figure["value"] is None or figure["low"] <= figure["value"] <= figure["high"], (folder, figure)
    assert {folder.name for folder in run.folder.glob("*-wins")} == {"v1-wins", "v2-rejection-wins", "v2-wins"}


def test_the_page_names_every_effect_and_says_who_judged(run: Run) -> None:
    summary, page = read_json(run.folder / "summary.json"), html.unescape((run.folder / "report.html").read_text("utf-8"))
    assert [version["name"] for version in summary["versions"]] == ["v0", "v1", "v2"]
    assert summary["effects"]
    for effect in summary["effects"]:
        assert effect["shown"] in ("shown", "not shown", "undecided")
        assert effect["name"] in page
    assert "judge" in page
    assert not re.search(r'(src|href)="https?://', page)
    json.dumps(summary, allow_nan=False)
