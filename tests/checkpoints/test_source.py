import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llamaherd.checkpoints.huggingface import load_model, load_scorer, save_model
from llamaherd.checkpoints.source import cast, open_source, verify, weight_shapes
from llamaherd.core.artifacts import MANIFEST, building
from llamaherd.core.config import Config
from llamaherd.core.errors import UserError
from llamaherd.model.transformer import Scorer, on_meta
from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer

from .conftest import BASE, FORMS, randomised, refused, same_weights

Folder = Callable[[str], Path]


@pytest.fixture
def folder(form_folder: Folder, tmp_path: Path) -> Path:
    """A whole model that a test may spoil."""
    shutil.copytree(form_folder("grouped"), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def hashed(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A model with the hashes of its files."""
    with building(tmp_path / "hashed", kind="model", stage="test", config=Config(), parents={}, seed=0) as place:
        save_model(randomised(BASE), tokenizer, place.folder)
    return tmp_path / "hashed"


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("form", FORMS)
def test_shapes_are_those_of_the_model_in_its_order(form: str) -> None:
    expected = {name: tuple(weight.shape) for name, weight in on_meta(FORMS[form]).named_parameters()}
    assert list(weight_shapes(FORMS[form]).items()) == list(expected.items())
    with torch.device("meta"):
        scorer = Scorer(FORMS[form])
    assert list(weight_shapes(FORMS[form], "reward-model")) == [name for name, _ in scorer.named_parameters()]


@pytest.mark.parametrize("form", FORMS)
def test_a_source_has_the_model_weight_by_weight(form: str, form_folder: Folder) -> None:
    source = open_source(form_folder(form))
    assert (source.kind, source.dtype) == ("model", torch.float32)
    assert source.config.ffn_width == FORMS[form].ffn_width
    assert same_weights(form_folder(form), randomised(FORMS[form]))


def test_mixed_types_have_the_type_that_holds_them_all(folder: Path) -> None:
    tensors = {name: value if "norm" in name else value.bfloat16() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    source = open_source(folder)
    assert (source.dtype, source.read("output.weight").dtype, source.read("norm.weight").dtype) == (
        torch.float32,
        torch.bfloat16,
        torch.float32,
    )


def test_a_model_is_loaded_in_the_type_that_is_asked_for(folder: Path) -> None:
    model, _ = load_model(folder, dtype=torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.norm.weight.equal(load_model(folder)[0].norm.weight.bfloat16())


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "model.safetensors"])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_a_flipped_bit_is_found_by_its_hash(name: str, place: float, hashed: Path) -> None:
    load_model(hashed)
    content = bytearray((hashed / name).read_bytes())
    content[int(place * len(content))] ^= 1
    (hashed / name).write_bytes(content)
    assert refused(hashed, load_model).startswith(f"HERE/{name}: its content is not what was written")


def test_what_loading_does_not_read_may_change(hashed: Path) -> None:
    (hashed / "generation_config.json").write_text("{}")
    (hashed / "tokenizer_config.json").unlink()
    (hashed / "README.md").write_text("mine")
    load_model(hashed)


def test_a_changed_manifest_is_found(hashed: Path) -> None:
    manifest = json.loads((hashed / MANIFEST).read_text())
    manifest["files"]["config.json"] = "0" * 64
    (hashed / MANIFEST).write_text(json.dumps(manifest))
    assert "manifest.json: is damaged: its hashes do not add up" in refused(hashed)


def test_a_file_that_was_removed_is_named(hashed: Path) -> None:
    (hashed / "tokenizer.model").unlink()
    assert "HERE/tokenizer.model: is missing; manifest.json names it" in refused(hashed)


HOSTILE = {
    "layers": {"num_hidden_layers": 10**9},
    "width": {"hidden_size": 10**12},
    "vocabulary": {"vocab_size": 10**12},
    "context": {"max_position_embeddings": 10**12},
    "heads": {"num_attention_heads": 10**15, "num_key_value_heads": 1, "head_dim": 2},
    "inner width": {"intermediate_size": 10**30},
    "huge number": {"hidden_size": 10**4000},
    "negative": {"num_hidden_layers": -1},
    "text": {"hidden_size": "4096"},
    "true": {"num_hidden_layers": True},
    "zero epsilon": {"rms_norm_eps": 0.0, "rope_theta": -1},
    "no number": {"rms_norm_eps": float("nan")},
    "long text": {"model_type": "x" * 100_000},
    "list": {"architectures": ["x" * 100_000]},
    "no list": {"architectures": 3},
    "labels": {"architectures": ["LlamaForSequenceClassification"], "num_labels": 10**9},
    "rope": {"rope_scaling": {"type": ["x"] * 10_000}},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_config_of_lies_is_refused_at_once(what: str, folder: Path) -> None:
    change(folder, **HOSTILE[what])
    refused(folder)
    refused(folder, load_model)


@pytest.mark.parametrize("depth", [17, 900, 100_000])
def test_nested_json_is_refused_at_once(depth: int, folder: Path) -> None:
    text = (folder / "config.json").read_text().rstrip().removesuffix("}")
    for nested in ('"hidden_size"', '"other"'):
        (folder / "config.json").write_text(f"{text}, {nested}: {'[' * depth}{']' * depth}}}")
        assert "HERE/config.json: " in refused(folder)


def test_a_config_of_megabytes_is_not_read(folder: Path) -> None:
    (folder / "config.json").write_text('{"a": "' + "x" * (1 << 20) + '"}')
    assert "HERE/config.json: has 1,048,585 bytes; expected at most" in refused(folder)


def test_code_that_a_config_names_is_never_imported(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('imported')")
    change(folder, auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, trust_remote_code=True)
    load_model(folder)


def test_nan_and_infinity_are_named(folder: Path) -> None:
    for bad in (torch.nan, torch.inf, -torch.inf):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            tensors = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()}
            tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = bad
            save_file(tensors, folder / "model.safetensors")
            said = "HERE/model.safetensors: model.layers.1.mlp.up_proj.weight holds values that are not finite"
            assert said in refused(folder, load_model)
            for name in tensors:
                tensors[name].nan_to_num_(0.0, 0.0, 0.0)
            save_file(tensors, folder / "model.safetensors")


def test_shards_that_overlap(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[:12]}, folder / "a.safetensors")
    save_file({name: tensors[name] for name in names[10:]}, folder / "b.safetensors")
    index = {"weight_map": {name: "a.safetensors" if name in names[:12] else "b.safetensors" for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert f"HERE/b.safetensors: holds {names[10]}, which model.safetensors.index.json says is in a.safetensors" in refused(folder)
    save_file({name: tensors[name] for name in names[12:]}, folder / "b.safetensors")
    assert same_weights(folder, randomised(FORMS["grouped"]))
    save_file(tensors, folder / "model.safetensors")
    assert "holds both model.safetensors and model.safetensors.index.json" in refused(folder)


@pytest.fixture(scope="module")
def other() -> Tokenizer:
    return train_tokenizer(["a tokenizer of another model, altogether"] * 3, TokenizerConfig(vocab_size=280))


def test_a_tokenizer_that_is_not_the_models(folder: Path, tokenizer: Tokenizer, data: Path) -> None:
    shutil.copyfile(data / "tokenizer/llama2/tokenizer.model", folder / "tokenizer.model")
    assert "HERE/tokenizer.model: tokenizer has 32,000 pieces, the model 344" in refused(folder)
    (folder / "tokenizer.model").write_bytes(tokenizer.model + bytes(5 << 20))
    assert "it is not the model's" in refused(folder)
    tokenizer.save(folder)
    change(folder, eos_token_id=7)
    assert "eos_token_id is 7 and the tokenizer's 2" in refused(folder)
    change(folder, eos_token_id=[2, 7], bos_token_id=0)
    assert "bos_token_id is 0 and the tokenizer's 1" in refused(folder)
    change(folder, bos_token_id=None, eos_token_id=900)  # one that was added to the vocabulary later
    open_source(folder)


def test_a_small_tokenizer_for_a_large_vocabulary(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_model(randomised(BASE.model_copy(update={"vocab_size": 340 + 1024})), tokenizer, tmp_path / "padded")
    open_source(tmp_path / "padded")
    save_model(randomised(BASE.model_copy(update={"vocab_size": 340 + 1025})), tokenizer, tmp_path / "other")
    assert "tokenizer has 340 pieces, the model 1,365" in refused(tmp_path / "other")
    with pytest.raises(OSError, match="it was written a moment ago"):
        verify(open_source(tmp_path / "padded"), tmp_path / "other")


def test_a_tokenizer_can_be_named(folder: Path, tokenizer: Tokenizer, other: Tokenizer, tmp_path: Path) -> None:
    (folder / "second.model").write_bytes(other.model)
    assert "expected exactly one SentencePiece *.model, found second.model, tokenizer.model" in refused(folder)
    assert open_source(folder, folder / "tokenizer.model").tokenizer.hash == tokenizer.hash
    assert open_source(folder, folder / "second.model").tokenizer.hash == other.hash
    with pytest.raises(UserError, match="no such file; --tokenizer takes"):
        open_source(folder, tmp_path / "none")


def test_reward_models_are_sources_too(tiny_folder: Path) -> None:
    source = open_source(tiny_folder / "helpfulness")
    assert source.kind == "reward-model"
    assert source.names[-1] == "score.weight"
    assert same_weights(tiny_folder / "helpfulness", load_scorer(tiny_folder / "helpfulness")[0])


def test_a_type_too_small_for_a_weight_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = 1e5
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"norm\.weight holds values too large for float16; convert to bfloat16"):
        cast(open_source(folder), torch.float16).read("norm.weight")
    assert cast(open_source(folder), torch.bfloat16).read("norm.weight")[0] == torch.tensor(1e5).bfloat16()
