"""Adapters as a stage makes them: what is in the folder, that they learn, and that interruption changes nothing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from llamaherd.assistant.local import Assistant
from llamaherd.checkpoints.huggingface import load_model
from llamaherd.core.artifacts import Artifact, open_artifact
from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_rows
from llamaherd.core.metrics import read_metrics
from llamaherd.stages import sft
from llamaherd.train import loop

LORA = {"r": 4, "alpha": 8}


def run(folder: Path, data: Path, out: Path, **values: Any) -> Artifact:
    given = {
        "model": str(folder / "v0"), "data": str(data), "epochs": 2, "batch_rows": 2, "micro_rows": 1, "optimizer": {"lr": 1e-2},
        "lora": LORA,
    }  # fmt: skip
    return sft.run(build(sft.SftConfig, given | values), out, 0)


def values_of(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("bits", [32, 4])
def test_it_learns_and_leaves_a_folder_that_peft_loads(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, bits: int) -> None:
    done = run(tiny_folder, tiny_inputs / "dialogues.jsonl", tmp_path / "out", epochs=6, base={"bits": bits})
    assert done.kind == "adapter"
    rows = read_metrics(done.path / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    base = done.manifest["parents"]["base"]
    assert base["path"] == str(tiny_folder / "v0")
    assert len(base["hash"]) == 64
    assert done.manifest["config"]["base"]["bits"] == bits
    card = (done.path / "README.md").read_text()
    assert "library_name: peft" in card
    assert f"Base: {tiny_folder / 'v0'}" in card
    if bits == 32:
        theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(tiny_folder / "v0"), done.path).eval()
        tokens = torch.arange(3, 60)[None]
        expected = theirs(tokens).logits
        assert (load_model(done.path)[0](tokens) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_no_base_is_saved_and_none_of_its_weights_change(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        stopping(3, tiny_folder, tiny_inputs, out, optimizer={"lr": 1e-2, "checkpoint_every_s": 0})
    [*_, state] = sorted((tmp_path / "out.partial" / "state").glob("step-*"))
    assert sorted(path.name for path in (state / "model").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    shape = load_model(tiny_folder / "v0")[0].config
    bytes_of_base = shape.parameters * 4
    assert (state / "optimizer.safetensors").stat().st_size < bytes_of_base, "moments of the base were saved"


def stopping(batches: int, folder: Path, inputs: Path, out: Path, **values: Any) -> None:
    """A run that is interrupted as it takes up a later batch."""
    real = sft._batches

    def some(*arguments: Any) -> Any:
        source = real(*arguments)

        def until(standing: Any) -> Any:
            for number, batch in enumerate(source(standing)):
                if number == batches:
                    raise KeyboardInterrupt
                yield batch

        return until

    sft._batches = some  # type: ignore[assignment]
    try:
        run(folder, inputs / "dialogues.jsonl", out, **values)
    finally:
        sft._batches = real


CASES: Sequence[dict[str, Any]] = (
    {"lora": {**LORA, "dropout": 0.3}},
    {"base": {"bits": 4}, "lora": {**LORA, "dropout": 0.1}, "checkpointing": True},
    {"optimizer": {"lr": 1e-2, "checkpoint_every_s": 0, "kind": "adamw-8bit"}, "lora": {"r": 256, "alpha": 256}},
)


@pytest.mark.parametrize("case", CASES, ids=["dropout", "four bits", "eight-bit optimizer"])
def test_an_interrupted_run_ends_as_one_that_was_not(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, case: dict[str, Any]) -> None:
    if "kind" in case.get("optimizer", {}):
        pytest.importorskip("bitsandbytes")
    settings = {"optimizer": {"lr": 1e-2, "checkpoint_every_s": 0}, **case}
    whole = run(tiny_folder, tiny_inputs / "dialogues.jsonl", tmp_path / "whole", **settings)
    for batches in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            stopping(batches, tiny_folder, tiny_inputs, tmp_path / "cut", **settings)
        torch.rand(7)  # whatever else drew random numbers meanwhile
    cut = run(tiny_folder, tiny_inputs / "dialogues.jsonl", tmp_path / "cut", **settings)
    assert whole.metrics["steps"] > 5
    assert values_of(cut.path) == values_of(whole.path)
    assert [row["loss"] for row in read_metrics(cut.path / "metrics.jsonl")] == [
        row["loss"] for row in read_metrics(whole.path / "metrics.jsonl")
    ]


def test_checkpointing_changes_nothing_but_the_memory(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    results = []
    for checkpointing in (False, True):
        done = run(
            tiny_folder, tiny_inputs / "dialogues.jsonl", tmp_path / str(checkpointing), checkpointing=checkpointing,
            lora={**LORA, "dropout": 0.2},
        )  # fmt: skip
        results.append(values_of(done.path))
    assert results[0] == results[1]


def test_an_adapter_is_a_model_wherever_one_is_asked_for(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs / "dialogues.jsonl", tmp_path / "out")
    beside = Assistant.load(tiny_folder / "v0", adapters={"mine": done.path})
    alone = Assistant.load(done.path)
    tokens = torch.arange(3, 60)[None]
    with torch.no_grad():
        assert torch.allclose(beside.model(tokens), alone.model(tokens), atol=1e-4)
        beside.use(None)
        assert torch.allclose(beside.model(tokens), load_model(tiny_folder / "v0")[0](tokens), atol=1e-5)
    tuned = sft.run(
        build(sft.SftConfig, {"model": str(done.path), "data": str(tiny_inputs / "dialogues.jsonl"), "steps": 1}), tmp_path / "tuned", 0
    )
    assert tuned.manifest["parents"]["out"]["hash"] == open_artifact(done.path).hash
    with pytest.raises(UserError, match="out: is an adapter; merge it into its base first"):
        run(tmp_path, tiny_inputs / "dialogues.jsonl", tmp_path / "second", model=str(done.path))


def test_an_adapter_on_another_model_is_refused(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs / "dialogues.jsonl", tmp_path / "out", steps=1)
    with pytest.raises(UserError, match=r"out: was trained on .*v0 \(.{12}\), and .*v0-early is another model; give that base") as found:
        Assistant.load(tiny_folder / "v0-early", adapters={"mine": done.path})
    assert "\n" not in str(found.value)
    content = bytearray(values_of(done.path))
    content[-1] ^= 1
    (done.path / "adapter_model.safetensors").write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"adapter_model.safetensors: its content is not what was written"):
        load_model(done.path)


def test_bad_rows_are_left_out_only_when_asked(tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, [{"text": "### Human: Hi### Assistant: Yes"}, {"text": "### Human: Hi"}, {"instruction": "Hi", "output": "Yes"}])
    with pytest.raises(UserError, match="rows.jsonl line 2: message 1"):
        run(tiny_folder, file, tmp_path / "out")
    done = run(tiny_folder, file, tmp_path / "out", bad_rows="leave out")
    assert (done.metrics["dialogues"], done.metrics["left_out_rows"]) == (2, 1)
    assert "1 bad rows left out" in sft.headline(done)


def test_settings_that_do_not_go_together(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    data = tiny_inputs / "dialogues.jsonl"
    with pytest.raises(ConfigError, match="base.bits 4 is for a frozen base under an adapter; add --lora.r=16"):
        run(tiny_folder, data, tmp_path / "out", lora=None, base={"bits": 4})
    with pytest.raises(ConfigError, match="base.bits: given 3"):
        run(tiny_folder, data, tmp_path / "out", base={"bits": 3})
    for kind in ("paged-adamw", "paged-adamw-8bit"):
        with pytest.raises(UserError, match=f"optimizer.kind {kind} moves memory between a GPU and its host; without a GPU give"):
            run(tiny_folder, data, tmp_path / "out", optimizer={"kind": kind})
    assert not list(tmp_path.iterdir())


def test_the_loop_is_the_one_loop(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    real = loop.train
    monkeypatch.setattr(loop, "train", lambda *given, **named: called.append(named["label"]) or real(*given, **named))
    run(tiny_folder, tiny_inputs / "dialogues.jsonl", tmp_path / "out", steps=1)
    assert called == ["tune"]
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_folder / "v0")
