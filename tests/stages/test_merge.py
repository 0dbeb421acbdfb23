"""Adapters folded into their bases: the same answers as before, drift that is measured, and what is refused."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from llamaherd.checkpoints.huggingface import load_model, save_model
from llamaherd.checkpoints.source import open_source
from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.seeds import torch_rng
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer
from llamaherd.stages import merge, sft
from llamaherd.tokenizer.sentencepiece import Tokenizer


@pytest.fixture(scope="module")
def made(tokenizer: Tokenizer, tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in bfloat16 and float32, and adapters to the first that were trained on it in 32 and in 4 bits."""
    folder = tmp_path_factory.mktemp("merge")
    model = Transformer(ModelConfig(dim=64, layers=2, heads=4, kv_heads=2, ffn=128, vocab_size=tokenizer.vocab_size, context=128))
    for name, weight in model.named_parameters():
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.15, generator=torch_rng(0, name))
    save_model(model.bfloat16(), tokenizer, folder / "base")
    save_model(model.float(), tokenizer, folder / "wide")
    for bits in (32, 4):
        for base in ("base", "wide"):
            settings = {
                "model": str(folder / base), "data": str(tiny_inputs / "dialogues.jsonl"), "steps": 8, "batch_rows": 4,
                "lora": {"r": 4, "alpha": 8}, "base": {"bits": bits}, "optimizer": {"lr": 5e-3},
            }  # fmt: skip
            sft.run(build(sft.SftConfig, settings), folder / f"{base}-{bits}", 0)
    return folder


def run(made: Path, base: str, adapter: str, out: Path, **values: Any) -> Artifact:
    return merge.run(build(merge.MergeConfig, {"model": str(made / base), "adapter": str(made / adapter), **values}), out, 0)


def tokens() -> torch.Tensor:
    return torch.arange(3, 90)[None]


@pytest.mark.parametrize("bits", [32, 4])
def test_a_float32_base_gives_what_base_and_adapter_gave(made: Path, tmp_path: Path, bits: int) -> None:
    done = run(made, "wide", f"wide-{bits}", tmp_path / "out")
    assert done.kind == "model"
    assert done.metrics["into"] == {32: "base", 4: "dequantised"}[bits]
    assert 0 < done.metrics["drift_max_nats"] < 1e-3
    assert done.metrics["same_likeliest"] == 1
    before, after = load_model(made / f"wide-{bits}")[0](tokens()), load_model(done.path)[0](tokens())
    assert torch.allclose(before, after, atol=1e-4)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(done.path)(tokens()).logits
    assert torch.allclose(theirs, after, atol=1e-4)


def test_it_is_what_peft_merges(made: Path, tmp_path: Path) -> None:
    done = run(made, "wide", "wide-32", tmp_path / "out")
    theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(made / "wide"), made / "wide-32")
    expected = theirs.merge_and_unload().state_dict()
    for name, value in load_file(done.path / "model.safetensors").items():
        assert torch.allclose(value, expected[name], atol=1e-6), name


def test_a_sixteen_bit_base_stays_in_its_type_and_drifts_a_little(made: Path, tmp_path: Path) -> None:
    done = run(made, "base", "base-32", tmp_path / "out")
    assert open_source(done.path).dtype == torch.bfloat16
    assert 1e-5 < done.metrics["drift_mean_nats"] < 0.03
    assert done.metrics["drift_max_nats"] > done.metrics["drift_mean_nats"]
    assert set(done.manifest["parents"]) == {"base", "adapter"}
    card = (done.path / "README.md").read_text()
    assert "base with base-32 merged in" in card
    assert "drift mean nats" in card
    headline = merge.headline(done)
    assert headline.startswith("merged into the base; log-probabilities drift by 0.0")
    assert (done.path / "tokenizer.json").is_file()


def test_what_the_adapter_was_not_trained_on_drifts_further(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"drifts by .* nats on average .*merge --into dequantised, or raise --max-drift") as found:
        run(made, "base", "base-4", tmp_path / "out", into="base")
    assert "\n" not in str(found.value)
    assert not list(tmp_path.iterdir()), "something was left behind"
    far = run(made, "base", "base-4", tmp_path / "far", into="base", max_drift=10)
    near = run(made, "base", "base-4", tmp_path / "near")
    assert near.metrics["into"] == "dequantised"
    assert far.metrics["drift_mean_nats"] > 5 * near.metrics["drift_mean_nats"]
    with pytest.raises(UserError, match="merge --into base, or raise"):
        run(made, "base", "base-32", tmp_path / "out", into="dequantised")


def test_other_texts(made: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("Ada lives in Lima.")
    short = run(made, "base", "base-32", tmp_path / "short", text=str(tmp_path / "text"))
    (tmp_path / "text").write_text("Ada lives in Lima. " * 100)
    long = run(made, "base", "base-32", tmp_path / "long", text=str(tmp_path / "text"))
    assert short.metrics["measured_tokens"] < long.metrics["measured_tokens"] == 128
    (tmp_path / "text").write_text(" ")
    with pytest.raises(UserError, match="holds no text to measure on"):
        run(made, "base", "base-32", tmp_path / "out", text=str(tmp_path / "text"))
    with pytest.raises(UserError, match="absent: no such file; expected a text"):
        run(made, "base", "base-32", tmp_path / "out", text=str(tmp_path / "absent"))


def test_what_does_not_belong_together(made: Path, tiny_folder: Path, tmp_path: Path) -> None:
    for base, adapter, expected in (
        (made / "wide", made / "base-32", r"base-32: was trained on .*base \(.*\), and .*wide is another model"),
        (made / "base-32", made / "base-4", r"base-32: is an adapter; expected its base, such as .*base"),
        (made / "base", made / "wide", "wide: holds no adapter_config.json"),
        (tiny_folder / "v0", made / "base-32", "is another model; give that base"),
        (tmp_path / "absent", made / "base-32", "no such folder"),
    ):
        with pytest.raises(UserError, match=expected) as found:
            merge.run(merge.MergeConfig(model=base, adapter=adapter), tmp_path / "out", 0)
        assert "\n" not in str(found.value)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        run(made, "base", "base-32", tmp_path / "out")
