from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llamaherd.checkpoints.huggingface import load_model
from llamaherd.core.artifacts import Artifact, open_artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.metrics import read_metrics
from llamaherd.data.packing import PretrainRows
from llamaherd.data.shards import TokenShards
from llamaherd.stages import pretrain
from llamaherd.tokenizer.sentencepiece import Tokenizer

SHAPE = {"dim": 16, "layers": 1, "heads": 2, "kv_heads": 1, "ffn": 24, "vocab_size": 340, "context": 128}


def run(inputs: Path, out: Path, **values: Any) -> Artifact:
    given = {
        "shards": str(inputs / "shards"), "model": SHAPE, "row_tokens": 32, "batch_rows": 4, "micro_rows": 4, "steps": 12,
        "optimizer": {"lr": 1e-2, "warmup_steps": 0},
    }  # fmt: skip
    return pretrain.run(build(pretrain.PretrainConfig, given | values), out, 0)


def test_a_base_model_from_nothing(tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_inputs, tmp_path / "base")
    assert done.kind == "model"
    rows = read_metrics(done.path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert all(row["trained_share"] == 1.0 for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    model, _ = load_model(done.path)
    assert done.metrics["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert done.metrics["epochs"] == pytest.approx(12 * 4 * 32 / TokenShards(tiny_inputs / "shards").tokens)
    assert pretrain.headline(done).startswith(f"{done.metrics['parameters']:,} parameters, loss {done.metrics['loss']:.3f} after 12 steps")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(done.path, dtype=torch.float32)
    tokens = torch.arange(3, 60)[None]
    assert torch.allclose(model(tokens), theirs(tokens).logits, atol=1e-5)
    assert "base model" in (done.path / "README.md").read_text()


def test_every_prediction_of_an_epoch_once(tiny_inputs: Path, tmp_path: Path) -> None:
    """Steps over one epoch predict each token but the BOS ones; a piece's first token is never a target."""
    stream = TokenShards(tiny_inputs / "shards")
    rows = PretrainRows(stream, 32, 0).rows_per_epoch
    done = run(tiny_inputs, tmp_path / "base", batch_rows=rows, micro_rows=5, steps=1)
    [row] = read_metrics(done.path / "metrics.jsonl")
    documents = open_artifact(tiny_inputs / "shards").metrics["documents"]
    assert row["trained"] == row["tokens"] == stream.tokens - documents


def test_how_a_step_is_cut_does_not_matter(tiny_inputs: Path, tmp_path: Path) -> None:
    one, other = (load_model(run(tiny_inputs, tmp_path / str(size), micro_rows=size, steps=3).path)[0] for size in (1, 4))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    again = run(tiny_inputs, tmp_path / "again", micro_rows=4, steps=3)
    assert again.manifest["files"]["model.safetensors"] == open_artifact(tmp_path / "4").manifest["files"]["model.safetensors"]


def test_a_preset_takes_the_tokenizers_vocabulary(tiny_inputs: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    done = run(tiny_inputs, tmp_path / "base", model="tiny", steps=1)
    assert load_model(done.path)[0].config.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": SHAPE | {"vocab_size": 500}}, "model.vocab_size is 500 and the tokenizer has 340 pieces; make them equal"),
        ({"row_tokens": 256}, "row_tokens is 256 and the model's context 128; rows must fit the context"),
        ({"model": "huge"}, "no model preset 'huge'"),
        ({"shards": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_trained(tiny_inputs: Path, tmp_path: Path, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(tiny_inputs, tmp_path / "base", **values)
    assert list(tmp_path.iterdir()) == []


def test_a_warm_up_that_never_ends_is_refused(tiny_inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="optimizer.warmup_steps: given 12, expected fewer than steps, 12"):
        run(tiny_inputs, tmp_path / "base", optimizer={"warmup_steps": 12})
