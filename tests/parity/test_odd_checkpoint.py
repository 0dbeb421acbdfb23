"""A checkpoint as others make it, of odd sizes: transformers' own files, tied, sharded, in bfloat16, the released tokenizer, and an
adapter by peft. Whatever our commands make of it gives the logits that transformers and peft give.
"""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor

from llamaherd.assistant.local import Assistant
from llamaherd.chat.dialogue import Message, checked
from llamaherd.chat.template import encode_prompt
from llamaherd.checkpoints.huggingface import load_model
from llamaherd.checkpoints.quantized import load_for_inference
from llamaherd.cli import main
from llamaherd.tokenizer.sentencepiece import Tokenizer

IDS = torch.randint(3, 32_000, (2, 40), generator=torch.Generator().manual_seed(1))
CPU = torch.device("cpu")
DIALOGUES = [
    [("user", "  two spaces before, one after ")],
    [("system", "You are  a pirate. "), ("user", "hé😀\n")],
    [("system", "S"), ("user", "a"), ("assistant", " b "), ("user", "c\n\n"), ("assistant", "日本"), ("user", " e")],
]


@pytest.fixture(scope="module")
def made(llama2: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, and `adapter` upon it."""
    place = tmp_path_factory.mktemp("odd")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=96, intermediate_size=260, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, vocab_size=32_000,
        max_position_embeddings=256, rms_norm_eps=3e-6, rope_theta=12345.0, tie_word_embeddings=True, initializer_range=0.08,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data += 0.2 * torch.randn_like(weight)
    model.to(torch.bfloat16).save_pretrained(place / "base", max_shard_size="2MB")
    assert len(list((place / "base").glob("*.safetensors"))) > 1
    llama2.save(place / "base")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "o_proj", "up_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data = 0.05 * torch.randn_like(weight)
    adapted.save_pretrained(place / "adapter")
    return place


def theirs(folder: Path) -> Any:
    return transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def logits(model: Any) -> Tensor:
    out = model(IDS)
    return (out if isinstance(out, Tensor) else out.logits).float()


def error(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).square().mean().sqrt() / expected.std())


@pytest.mark.parametrize("chain", [[("meta", "--shards", "2"), ("hf",)], [("hf", "--shards", "3")], [("hf", "--dtype", "float32")]])
def test_formats(made: Path, tmp_path: Path, chain: list[tuple[str, ...]]) -> None:
    expected, place = logits(theirs(made / "base")), made / "base"
    for step, (to, *more) in enumerate(chain):
        main(["convert", str(place), str(place := tmp_path / str(step)), "--to", to, *more])
        assert error(logits(load_model(place, CPU)[0]), expected) < 1e-6
    assert error(logits(theirs(place)), expected) < 1e-6
    assert theirs(place).config.tie_word_embeddings


def test_the_chat_template(made: Path, tmp_path: Path, llama2: Tokenizer) -> None:
    main(["convert", str(made / "base"), str(tmp_path / "hf"), "--to", "hf"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    for dialogue in DIALOGUES:
        rows = [{"role": role, "content": text} for role, text in dialogue]
        ids = tokenizer.apply_chat_template(rows, tokenize=True, add_generation_prompt=True, return_dict=False)
        assert ids == encode_prompt(checked([Message(role, text) for role, text in dialogue]), llama2)  # type: ignore[arg-type]


def test_an_adapter_beside_its_base_and_merged(made: Path, tmp_path: Path) -> None:
    expected = logits(peft.PeftModel.from_pretrained(theirs(made / "base"), made / "adapter"))
    beside = Assistant.load(made / "base", adapters={"a": made / "adapter"})
    assert error(logits(beside.model), expected) < 1e-6
    main(["merge", str(made / "base"), str(made / "adapter"), str(tmp_path / "merged")])
    assert error(logits(theirs(tmp_path / "merged")), expected) < 0.01  # the merged weights are rounded to bfloat16
    beside.use(None)
    assert error(logits(beside.model), logits(theirs(made / "base"))) < 1e-6


@pytest.mark.parametrize(("bits", "most"), [(("8",), 0.03), (("4", "--group", "32"), 0.35)])
def test_fewer_bits(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: tuple[str, ...], most: float) -> None:
    monkeypatch.delenv("LLAMAHERD_DATA", raising=False)
    main(["quantize", str(made / "base"), str(tmp_path / "few"), "--bits", *bits])
    expected = logits(theirs(made / "base"))
    few = error(logits(load_for_inference(tmp_path / "few", CPU)[0]), expected)
    assert few < most
    assert few > error(logits(load_model(made / "base", CPU)[0]), expected)


def test_what_a_format_cannot_hold(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", str(made / "base"), str(tmp_path / "c"), "--to", "llama2c", "--dtype", "float32"])
    assert "cannot hold norm_eps 3e-06 (it has 1e-05), rotary base 12345.0" in capsys.readouterr().err
    main(["convert", str(made / "base"), str(tmp_path / "q8.gguf"), "--to", "gguf", "--dtype", "q8_0"])
    assert "2 weights stay float16, since their rows are no whole number of blocks of 32 values" in capsys.readouterr().err
