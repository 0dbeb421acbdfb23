"""The command: a folder, its figures, and what it refuses."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from llamaherd.checkpoints.huggingface import load_model, save_model
from llamaherd.checkpoints.quantized import layout, load_quantized
from llamaherd.cli import main
from llamaherd.core.artifacts import open_artifact
from llamaherd.core.errors import UserError
from llamaherd.evaluation.perplexity import perplexity
from llamaherd.model.quantized import Scheme
from llamaherd.model.transformer import Scorer
from llamaherd.stages.quantize import QuantizeConfig, report, run
from llamaherd.tokenizer.sentencepiece import Tokenizer

TEXT = "Anna lives in Paris. Ben lives in Rome.\n" * 20


@pytest.fixture
def base(tiny_folder: Path) -> Path:
    return tiny_folder / "v0"


@pytest.fixture(autouse=True)
def _no_public_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMAHERD_DATA", raising=False)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "towns.txt").write_text(TEXT)
    return tmp_path / "towns.txt"


@pytest.mark.parametrize("settings", [{"bits": 8}, {"bits": 4}, {"bits": 4, "group": 32}])
def test_a_folder_and_its_figures(base: Path, tmp_path: Path, text: Path, settings: dict[str, Any]) -> None:
    artifact = run(QuantizeConfig(model=base, text=(text,), window=40, tokens=300, **settings), tmp_path / "q", 0)
    model, tokenizer = load_quantized(tmp_path / "q")
    floats = load_model(base)[0]
    found = artifact.metrics["texts"]["towns"]
    assert found["perplexity_before"] == pytest.approx(perplexity(floats, tokenizer, TEXT, 40, 300).perplexity, rel=1e-4)
    assert found["perplexity_after"] == pytest.approx(perplexity(model, tokenizer, TEXT, 40, 300).perplexity, rel=1e-4)
    assert (found["tokens"], found["of_tokens"], found["window"]) == (300, len(tokenizer.encode(TEXT)), 40)
    assert artifact.metrics["bytes_before"] == floats.config.parameters * 4
    assert artifact.metrics["bytes_after"] == (tmp_path / "q" / "model.safetensors").stat().st_size
    scheme = Scheme(settings["bits"], settings.get("group", 64) if settings["bits"] == 4 else None)
    payload = sum(math.prod(shape) * dtype.itemsize for dtype, shape in layout(floats.config, scheme, torch.float32).values())
    assert payload < artifact.metrics["bytes_after"] < payload + 10_000, "and a header"
    said = "\n".join(report(artifact))
    assert "perplexity on towns" in said
    assert "first 300 of" in said
    assert "in windows of 40" in said
    card = (tmp_path / "q" / "README.md").read_text()
    assert "library_name: llamaherd" in card
    assert "perplexity on towns" in card
    names = {"config.json", "model.safetensors", "tokenizer.model", "tokenizer.json", "README.md"}
    assert names <= artifact.manifest["files"].keys()


def test_without_a_text_random_ids_are_compared(base: Path, tmp_path: Path) -> None:
    artifact = run(QuantizeConfig(model=base, bits=8), tmp_path / "q", 0)
    assert list(artifact.metrics["texts"]) == ["random ids"]
    said = "\n".join(report(artifact))
    assert "perplexity" not in said
    assert "log-probabilities off by" in said


def test_the_public_sample_is_measured_where_it_is(base: Path, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    (tmp_path / "data" / "pretrain").mkdir(parents=True)
    (tmp_path / "data" / "pretrain" / "wikitext2_test.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    monkeypatch.setenv("LLAMAHERD_DATA", str(tmp_path / "data"))
    artifact = run(QuantizeConfig(model=base, bits=8, text=(text,), tokens=50), tmp_path / "q", 0)
    assert list(artifact.metrics["texts"]) == ["towns", "wikitext2_test"]


def test_two_texts_of_one_name(base: Path, tmp_path: Path, text: Path) -> None:
    other = tmp_path / "other" / "towns.txt"
    other.parent.mkdir()
    other.write_text("Rome.")
    artifact = run(QuantizeConfig(model=base, bits=8, text=(text, other)), tmp_path / "q", 0)
    assert list(artifact.metrics["texts"]) == [str(text), str(other)]


def test_what_is_refused_leaves_nothing(base: Path, tiny_scorer: Scorer, tokenizer: Tokenizer, tmp_path: Path, text: Path) -> None:
    save_model(tiny_scorer, tokenizer, tmp_path / "scorer")
    run(QuantizeConfig(model=base, bits=4), tmp_path / "once", 0)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"model": tmp_path / "once", "bits": 8}, "give the model that they were made from"),
        ({"model": tmp_path / "scorer", "bits": 8}, "reward model"),
        ({"model": base, "bits": 8, "group": 64}, "--group is of 4 bits"),
        ({"model": base, "bits": 4, "text": (tmp_path / "none.txt",)}, "none.txt: no such file"),
        ({"model": tmp_path / "nowhere", "bits": 4}, "nowhere"),
    ]
    before = sorted(os.listdir(tmp_path))
    for settings, problem in refused:
        with pytest.raises(UserError, match=problem) as told:
            run(QuantizeConfig(**settings), tmp_path / "q", 0)
        assert "\n" not in str(told.value)
    assert sorted(os.listdir(tmp_path)) == before
    with pytest.raises(UserError, match="exists already"):
        run(QuantizeConfig(model=base, bits=4), tmp_path / "once", 0)


def test_a_flipped_bit_is_found(base: Path, tmp_path: Path) -> None:
    run(QuantizeConfig(model=base, bits=4), tmp_path / "q", 0)
    file = tmp_path / "q" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="its hash differs") as told:
        load_quantized(tmp_path / "q")
    assert str(file) in str(told.value)


def test_weights_that_are_not_finite(base: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = load_model(base)[0]
    with torch.no_grad():
        model.layers[0].feed_forward.w2.weight[3, 3] = float("nan")  # type: ignore[union-attr, index]
    save_model(model, tokenizer, tmp_path / "nan")
    with pytest.raises(UserError, match="not finite"):
        run(QuantizeConfig(model=tmp_path / "nan", bits=4), tmp_path / "q", 0)
    assert not (tmp_path / "q").exists()
    assert not (tmp_path / "q.partial").exists()


def test_on_the_command_line(base: Path, tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["quantize", str(base), str(tmp_path / "q"), "--bits", "4", "--group", "32", "--text", str(text)])
    assert "perplexity on towns" in capsys.readouterr().out
    assert json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"] == {
        "quant_method": "llamaherd",
        "bits": 4,
        "group": 32,
    }
    assert open_artifact(tmp_path / "q", "model").metrics["group"] == 32
    main(["generate", str(tmp_path / "q"), "--raw", "--prompt", "Anna", "--temperature", "0", "--max-new-tokens", "4"])
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ["sft", "--model", "{q}", "--data", "{inputs}/dialogues.jsonl", "--out", "{out}"],
        ["convert", "{q}", "{out}", "--to", "hf"],
        ["quantize", "{q}", "{out}", "--bits", "4"],
        ["reward", "--model", "{q}", "--data", "{inputs}/preferences.jsonl", "--domain", "safety", "--out", "{out}"],
        ["ppo", "--model={q}", "--helpfulness={q}", "--safety={q}", "--prompts={inputs}/prompts.jsonl", "--out", "{out}"],
    ],
    ids=lambda command: command[0],
)
def test_training_and_converting_refuse_it(
    base: Path, tiny_inputs: Path, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(QuantizeConfig(model=base, bits=4), tmp_path / "q", 0)
    places = {"q": tmp_path / "q", "inputs": tiny_inputs, "out": tmp_path / "out"}
    with pytest.raises(SystemExit) as ended:
        main([word.format(**places) for word in command])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "give the model that they were made from" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
