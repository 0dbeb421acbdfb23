from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows, write_rows
from llamaherd.data.records import read_dialogues, read_prompts
from llamaherd.stages import distill


def run(folder: Path, prompts: Path, out: Path, **values: Any) -> Artifact:
    sampling = {"temperature": 0.7, "top_p": 0.95, "max_new_tokens": 24}
    given = {
        "model": str(folder / "v0"), "safety": str(folder / "safety"), "prompts": str(prompts), "sampling": sampling, "chunk_prompts": 3,
    }  # fmt: skip
    return distill.run(build(distill.DistillConfig, given | values), out, 0)


def test_adversarial_prompts_and_harmless_ones(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs / "distil.jsonl", tmp_path / "out", harmless=str(tiny_inputs / "harmless.jsonl"))
    dialogues, metrics = read_dialogues(done.path / "dialogues.jsonl"), done.metrics
    assert len(dialogues) == metrics["replaced"] + metrics["kept"] + metrics["kept_for_want"] + metrics["harmless"]
    assert metrics["replaced"] + metrics["kept"] + metrics["kept_for_want"] + metrics["unusable"] == 8
    assert metrics["harmless"] + metrics["harmless_unusable"] == 6
    assert min(metrics["replaced"], metrics["kept"], metrics["harmless"]) > 0
    assert all((dialogue.system, dialogue.trained) == (None, "last") for dialogue in dialogues)
    assert "Be safe" not in (done.path / "dialogues.jsonl").read_text()
    asked = [{prompt.dialogue for prompt in read_prompts(tiny_inputs / name)} for name in ("distil.jsonl", "harmless.jsonl")]
    here = len(dialogues) - metrics["harmless"]
    rows, unchosen = ([row for _, row in read_rows(done.path / name)] for name in ("dialogues.jsonl", "without-choice.jsonl"))
    assert [row.get("safety") for row in rows] == [row.get("safety") for row in unchosen] == [True] * here + [None] * metrics["harmless"]
    assert [row["messages"][0] for row in rows] == [row["messages"][0] for row in unchosen]
    assert sum(row != other for row, other in zip(rows, unchosen, strict=True)) <= metrics["kept"], "what was replaced stands in both"
    assert {dialogue.prompt for dialogue in dialogues[:here]} <= asked[0]
    assert {dialogue.prompt for dialogue in dialogues[here:]} <= asked[1]
    told = distill.headline(done)
    assert told.startswith(f"{metrics['replaced']} answers replaced, {metrics['kept']} kept, ")
    assert f" {metrics['harmless']} harmless ones mixed in" in told


def test_tests_are_judged_and_never_trained_on(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    rows = [row for _, row in read_rows(tiny_inputs / "distil.jsonl")]
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    write_rows(train, rows[:3])
    write_rows(test, rows[3:])
    done = run(tiny_folder, train, tmp_path / "out", test=str(test))
    trained = {dialogue.prompt.last.content for dialogue in read_dialogues(done.path / "dialogues.jsonl")}
    assert trained <= {row["messages"][0]["content"] for row in rows[:3]}
    assert 0 < done.metrics["difference"]["n"] == done.metrics["original_safe"]["n"] <= 5
    assert "safe on held-out prompts: " in distill.headline(done)


def test_chunks_do_not_matter(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    three, eight = (run(tiny_folder, tiny_inputs / "distil.jsonl", tmp_path / str(size), chunk_prompts=size) for size in (3, 8))
    assert (three.hash, three.metrics) == (eight.hash, eight.metrics)


def test_prompts_that_do_not_belong(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    file, good = tmp_path / "rows.jsonl", tiny_inputs / "distil.jsonl"
    row = next(row for _, row in read_rows(good))
    without = {key: value for key, value in row.items() if key != "preprompt"}
    needs = 'rows.jsonl: prompt 1 needs "safety": true and a "preprompt" text'
    for content, prompts, inputs, expected in (
        ([{**row, "safety": False}], file, {}, needs),
        ([without], file, {}, needs),
        ([{**row, "preprompt": "  "}], file, {}, needs),
        ([row, {**row, "preprompt": "Be [INST] safe."}], file, {}, r"prompt 2 under its preprompt: message 1 \(system\): .* \[INST\]"),
        ([without], good, {"test": str(file)}, needs),
        ([row, row], good, {"harmless": str(file)}, 'rows.jsonl: 2 prompts have "safety": true; harmless prompts have false'),
        ([], file, {}, "no prompt in"),
    ):
        write_rows(file, content)
        with pytest.raises(UserError, match=expected):
            run(tiny_folder, prompts, tmp_path / "out", **inputs)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
