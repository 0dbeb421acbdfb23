"""Folders of 8 and 4 bits: what was quantised in memory comes back, and what is damaged does not."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llamaherd.assistant.open import open_assistant
from llamaherd.checkpoints.huggingface import load_model
from llamaherd.checkpoints.quantized import is_quantized, load_for_inference, load_quantized, write_quantized
from llamaherd.checkpoints.source import open_source
from llamaherd.core.errors import UserError
from llamaherd.generate.config import SamplingConfig
from llamaherd.model.quantized import Linear4, Linear8, Scheme, quantize_model

SCHEMES = [Scheme(8), Scheme(4, 32), Scheme(4, 128)]
by_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


@pytest.fixture
def base(tiny_folder: Path) -> Path:
    return tiny_folder / "v0"


@pytest.fixture
def quantised(base: Path, tmp_path: Path) -> Path:
    """A 4-bit folder to damage."""
    write_quantized(open_source(base), Scheme(4, 32), tmp_path / "q")
    return tmp_path / "q"


@by_scheme
def test_what_is_loaded_is_what_was_quantised(base: Path, tmp_path: Path, scheme: Scheme) -> None:
    write_quantized(open_source(base), scheme, tmp_path / "q")
    assert is_quantized(tmp_path / "q")
    assert not is_quantized(base)
    loaded, tokenizer = load_for_inference(tmp_path / "q")
    memory = quantize_model(load_model(base)[0], scheme)
    there, here = loaded.state_dict(), memory.state_dict()
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in there)
    tokens = torch.randint(0, tokenizer.vocab_size, (2, 20))
    assert torch.equal(loaded(tokens), memory(tokens))


@pytest.mark.parametrize("bits", [torch.bfloat16, torch.float16])
def test_a_tied_model_of_16_bits(tmp_path: Path, make_tied: Callable[[Path, torch.dtype], Path], bits: torch.dtype) -> None:
    """The embedding stays as it was, the head becomes a matrix of its own."""
    folder = make_tied(tmp_path / "tied", bits)
    write_quantized(open_source(folder), Scheme(8), tmp_path / "q")
    kept = load_file(tmp_path / "q" / "model.safetensors")
    assert kept["model.embed_tokens.weight"].dtype == bits
    loaded = load_quantized(tmp_path / "q")[0]
    memory = quantize_model(load_model(folder)[0], Scheme(8))
    assert loaded.config.tied
    assert loaded.dtype == torch.float32
    tokens = torch.randint(0, 100, (1, 20))
    assert torch.equal(loaded(tokens), memory(tokens))


@pytest.fixture
def make_tied(base: Path) -> Callable[[Path, torch.dtype], Path]:
    def make(folder: Path, dtype: torch.dtype) -> Path:
        shutil.copytree(base, folder)
        (folder / "manifest.json").unlink(missing_ok=True)
        weights = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items() if name != "lm_head.weight"}
        save_file(weights, folder / "model.safetensors")
        change(folder, tie_word_embeddings=True)
        return folder

    return make


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_its_weights_stay_in_the_file(quantised: Path) -> None:
    """Loading copies none of them: neighbours in the file are neighbours in memory."""
    block: Any = load_quantized(quantised)[0].layers[0]
    one, other = block.attention.wq.packed, block.attention.wk.packed
    offsets = json.loads((quantised / "model.safetensors").read_bytes()[8:].split(b"}}")[0] + b"}}")
    names = [f"model.layers.0.self_attn.{name}_proj.packed" for name in "qk"]
    apart = offsets[names[1]]["data_offsets"][0] - offsets[names[0]]["data_offsets"][0]
    assert other.data_ptr() - one.data_ptr() == apart


@by_scheme
def test_it_answers(base: Path, tmp_path: Path, scheme: Scheme) -> None:
    write_quantized(open_source(base), scheme, tmp_path / "q")
    assistant: Any = open_assistant(str(tmp_path / "q"))
    assert isinstance(assistant.model.output, Linear8 if scheme.bits == 8 else Linear4)
    config = SamplingConfig(temperature=0, max_new_tokens=8)
    assert "".join(assistant.continuation("Anna", config, 0)) == "".join(assistant.continuation("Anna", config, 1))


def test_others_refuse_it_and_say_what_to_give(quantised: Path) -> None:
    for load in (load_model, open_source):
        with pytest.raises(UserError, match="give the model that they were made from"):
            load(quantised)


@pytest.mark.parametrize(
    "scheme",
    [{"bits": 3}, {"bits": 4}, {"bits": 4, "group": 48}, {"bits": 8, "group": 64}, {"bits": 4, "group": 64, "double": True}, {"bits": "4"}, {"bits": True}],
)  # fmt: skip
def test_an_unknown_scheme(quantised: Path, scheme: dict[str, Any]) -> None:
    change(quantised, quantization_config={"quant_method": "llamaherd", **scheme})
    with pytest.raises(UserError, match="scheme that this version does not know"):
        load_for_inference(quantised)


def test_a_scheme_of_others(quantised: Path) -> None:
    change(quantised, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UserError, match="gptq"):
        load_for_inference(quantised)


def test_another_group_than_the_files(quantised: Path) -> None:
    change(quantised, quantization_config={"quant_method": "llamaherd", "bits": 4, "group": 64})
    with pytest.raises(UserError, match=r"packed is U8 .*config.json says"):
        load_for_inference(quantised)


Damage = Callable[[dict[str, torch.Tensor]], None]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda weights: weights.pop("lm_head.packed"), "lacks lm_head.packed"),
        (lambda weights: weights.update(lm_head=torch.zeros(2)), "holds lm_head"),
        (lambda weights: weights["model.norm.weight"].fill_(float("nan")), "model.norm.weight holds values that are not finite"),
        (lambda weights: weights["lm_head.scale_zero"].fill_(float("inf")), "lm_head.scale_zero holds values that are not finite"),
        (lambda weights: weights.update({"lm_head.packed": weights["lm_head.packed"].short()}), "lm_head.packed is I16"),
        (lambda weights: weights.update({"lm_head.packed": weights["lm_head.packed"][:64]}), "lm_head.packed is U8"),
        (lambda weights: weights.update({"model.embed_tokens.weight": torch.zeros(4, dtype=torch.int8)}), "no embedding"),
    ],
)
def test_damaged_weights(quantised: Path, damage: Damage, problem: str) -> None:
    weights = load_file(quantised / "model.safetensors")
    damage(weights)
    (quantised / "model.safetensors").unlink()
    save_file(weights, quantised / "model.safetensors")
    with pytest.raises(UserError, match=problem) as told:
        load_for_inference(quantised)
    assert str(quantised / "model.safetensors") in str(told.value)


def test_a_file_cut_short_or_missing(quantised: Path) -> None:
    file = quantised / "model.safetensors"
    content = file.read_bytes()
    for part in (content[:-10], content[:100], (2**63).to_bytes(8, "little") + content[8:]):
        file.write_bytes(part)
        started = time.perf_counter()
        with pytest.raises(UserError, match="damaged or not safetensors"):
            load_for_inference(quantised)
        assert time.perf_counter() - started < 1
    file.unlink()
    with pytest.raises(UserError, match="quantise the model again"):
        load_for_inference(quantised)
