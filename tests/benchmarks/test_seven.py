"""The benchmark of the packaged 7B recipes: its tables, what it refuses, and (slow) two recipes through it."""

import json
from pathlib import Path

import pytest
from benchmarks.seven.__main__ import main
from benchmarks.seven.inputs import shape_of, write_base
from benchmarks.seven.recipes import RECIPES, verb, with_inputs

from llamaherd.checkpoints.huggingface import load_model
from llamaherd.cli import STAGES
from llamaherd.commands.common import SETTINGS
from llamaherd.model.config import PRESETS
from llamaherd.tokenizer.sentencepiece import Tokenizer


def test_every_packaged_recipe_is_run() -> None:
    assert set(RECIPES) == {file.stem for file in SETTINGS.glob("*/llama2-7b-*.yaml")}
    made: set[str] = set()
    for name, recipe in RECIPES.items():
        assert verb(name) in STAGES
        assert {place for place in recipe.inputs.values() if place in RECIPES} <= made, "it reads what comes later"
        made.add(name)


def test_shapes() -> None:
    assert shape_of(4096, 32000) == PRESETS["llama2-7b"]
    small = shape_of(64, 340)
    assert (small.layers, small.dim, small.heads, small.ffn_width, small.context) == (32, 64, 8, 256, 4096)


def test_the_base_ends_its_answers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    import torch

    write_base(tmp_path / "base", shape_of(32, tokenizer.vocab_size), tokenizer, answer_tokens=10)
    model, _ = load_model(tmp_path / "base")
    with torch.inference_mode():
        ends = model(torch.tensor([[1, *range(260, 330)]])).softmax(-1)[0, :, tokenizer.eos_id]
    assert 0.03 < float(ends.mean()) < 0.3


def test_what_others_read_comes_along() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    assert with_inputs(["ppo", "llama2-7b-sft"], parser) == [
        "llama2-7b-sft", "llama2-7b-helpfulness", "llama2-7b-safety", "llama2-7b-ppo"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"), [(["--only", "dpo"], "expected some of llama2-7b-pretrain"), (["--device", "tpu"], "invalid choice")]
)
def test_bad_words(words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*words, "--out", str(tmp_path / "out")])
    assert told in capsys.readouterr().err


def test_nothing_is_overwritten_and_a_tokenizer_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="exists already; give another folder"):
        main(["--out", str(tmp_path)])
    monkeypatch.delenv("LLAMAHERD_DATA", raising=False)
    with pytest.raises(SystemExit, match="give --tokenizer FOLDER, or set LLAMAHERD_DATA"):
        main(["--out", str(tmp_path / "out")])


@pytest.mark.slow
def test_two_recipes(tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    page = tmp_path / "page.md"
    page.write_text("<!-- seven -->\n<!-- end -->\n<!-- seven-plan -->\n<!-- end -->\n", "utf-8")
    out = tmp_path / "out"
    words = ["--width", "32", "--only", "qlora,reject", "--tokenizer", str(tmp_path / "tokenizer"), "--out", str(out), "--write", str(page)]
    main(words)
    assert "transformers: " in capsys.readouterr().out
    found = json.loads((out / "results.json").read_text("utf-8"))["recipes"]
    assert list(found) == ["llama2-7b-qlora", "llama2-7b-helpfulness", "llama2-7b-safety", "llama2-7b-reject"]
    for name, row in found.items():
        assert row["same"]
        assert row["killed_after"] >= 1
        assert row["peak_bytes"] > 1e8
        assert f"`{name}`" in page.read_text("utf-8")
        if "apart" in row["exported"]:
            assert float(row["exported"].split("transformers: ")[1].split()[0]) < 1e-3
    first, last = map(float, found["llama2-7b-qlora"]["moved"].split(" in ")[0].split(" to "))
    assert last < first - 0.1
    assert found["llama2-7b-reject"]["exported"].endswith("dialogues that sft reads")
