import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from llamaherd.checkpoints.huggingface import (
    HuggingFaceFiles,
    load_model,
    load_scorer,
    load_weights,
    save_model,
    verify_folder,
)
from llamaherd.checkpoints.names import to_hugging_face
from llamaherd.core.errors import UserError
from llamaherd.core.seeds import torch_rng
from llamaherd.model.config import ModelConfig
from llamaherd.model.layout import Layout
from llamaherd.model.transformer import Scorer, Transformer, Trunk
from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer

BASE = ModelConfig(dim=32, layers=2, heads=4, ffn=56, vocab_size=300, context=40)
SHAPES = {
    "plain": BASE,
    "grouped queries": BASE.model_copy(update={"kv_heads": 2}),
    "tied": BASE.model_copy(update={"tied": True}),
    "odd ones": BASE.model_copy(update={"rope_theta": 500.5, "norm_eps": 1e-6, "head_dim": 10, "kv_heads": 1}),
}
TOKENS = torch.randint(3, 300, (2, 25), generator=torch_rng(0, "tokens"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the quick brown fox jumps over the lazy dog " * 3], TokenizerConfig(vocab_size=295))


def randomised(model: Trunk) -> Any:
    for weight in model.parameters():
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.2, generator=torch_rng(0, "weights"))
    return model


@pytest.fixture(scope="module")
def saved(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_model(randomised(Transformer(SHAPES["grouped queries"])), tokenizer, folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A whole model that a test may spoil."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path


def refused(folder: Path, load: Callable[[Path], object] = load_model) -> str:
    with pytest.raises(UserError) as found:
        load(folder)
    assert str(folder) in str(found.value)
    assert "\n" not in str(found.value)
    return str(found.value).replace(str(folder), "FOLDER")


def change(folder: Path, name: str = "config.json", **values: Any) -> None:
    content = json.loads((folder / name).read_text()) | values
    (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value != "absent"}))


def change_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.allclose(ours, theirs, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_what_we_save_transformers_loads(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = randomised(Transformer(config))
    save_model(model, tokenizer, tmp_path)
    verify_folder(model, tokenizer, tmp_path)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs) is transformers.LlamaForCausalLM
    assert not any(report.values())
    assert same(model(TOKENS), theirs(TOKENS).logits)
    assert theirs.config.max_position_embeddings == config.context
    assert (theirs.generation_config.bos_token_id, theirs.generation_config.eos_token_id) == (1, 2)
    again, same_tokenizer = load_model(tmp_path)
    assert again(TOKENS).equal(model(TOKENS))
    assert same_tokenizer.hash == tokenizer.hash
    assert not again.training


@pytest.mark.parametrize("shard", ["whole", "sharded"])
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_what_transformers_saves_we_load(config: ModelConfig, shard: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=config.dim,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv,
            head_dim=config.head_size,
            intermediate_size=config.ffn_width,
            vocab_size=config.vocab_size,
            rms_norm_eps=config.norm_eps,
            max_position_embeddings=config.context,
            tie_word_embeddings=config.tied,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            initializer_range=0.2,
        )
    ).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB" if shard == "sharded" else "1GB")
    tokenizer.save(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1 or shard == "sharded"
    ours, _ = load_model(tmp_path)
    assert same(ours(TOKENS), theirs(TOKENS).logits)
    assert ours.config.ffn_width == config.ffn_width
    assert (ours.config.rope_theta, ours.config.norm_eps, ours.config.tied) == (config.rope_theta, config.norm_eps, config.tied)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_loaded_as_float32(dtype: torch.dtype, folder: Path) -> None:
    model, tokenizer = load_model(folder)
    save_model(model.to(dtype), tokenizer, folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert theirs.dtype == dtype
    again, _ = load_model(folder)
    assert again.dtype == torch.float32
    assert all(weight.equal(model.get_parameter(name).float()) for name, weight in again.named_parameters())


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_reward_models_cross_over(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    scorer = randomised(Scorer(config))
    save_model(scorer, tokenizer, tmp_path)
    theirs, report = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    layout = Layout.of([25, 10])
    padded = TOKENS.clone()
    padded[1, 10:] = 0
    scores = theirs(padded, attention_mask=(padded != 0).long()).logits[:, 0]
    assert same(scorer(torch.cat([TOKENS[0], TOKENS[1, :10]])[None], layout)[layout.ends], scores)
    again, _ = load_scorer(tmp_path)
    assert all(weight.equal(scorer.get_parameter(name)) for name, weight in again.named_parameters())


def test_a_scorer_is_no_language_model_and_the_other_way_round(folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert "expected LlamaForSequenceClassification (a reward model)" in refused(folder, load_scorer)
    save_model(randomised(Scorer(BASE)), tokenizer, tmp_path / "scorer")
    assert "expected LlamaForCausalLM (a language model)" in refused(tmp_path / "scorer")
    change(tmp_path / "scorer", num_labels=3)
    assert "3 labels" in refused(tmp_path / "scorer", load_scorer)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "mistral"}, "model_type 'mistral', expected 'llama'"),
        ({"model_type": "qwen2"}, "model_type 'qwen2'"),
        ({"model_type": "gemma"}, "model_type 'gemma'"),
        ({"model_type": "absent"}, "model_type None"),
        ({"architectures": ["MistralForCausalLM"]}, "architecture MistralForCausalLM"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "scaled rotary embedding"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "scaled rotary embedding"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}}, "scaled rotary embedding"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
            "partial_rotary_factor 0.5",
        ),
        ({"rope_scaling": {"factor": 8.0}}, "scaled rotary embedding [{'factor': 8.0}]"),
        ({"rope_scaling": {"rope_type": "default", "type": "linear"}}, "scaled rotary embedding"),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear"}}}, "scaled rotary embedding [{'rope_type': 'linear'}]"),
        ({"rope_parameters": {"full_attention": {"factor": 2}}}, "scaled rotary embedding"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rotary embeddings by kind of layer"),
        ({"residual_multiplier": 0.22}, "residual_multiplier 0.22 (Llama has none)"),
        ({"embedding_multiplier": 12}, "embedding_multiplier 12"),
        ({"logits_scaling": 8.0}, "logits_scaling 8.0"),
        ({"attention_multiplier": 0.0078}, "attention_multiplier 0.0078"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0"),
        ({"attn_logit_softcapping": 1.0}, "attn_logit_softcapping 1.0"),
        ({"sliding_window": 4096}, "sliding_window 4096"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu', expected 'silu'"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised weights"),
        ({"hidden_size": "absent"}, "hidden_size"),
        ({"intermediate_size": None}, "intermediate_size"),
    ],
)
def test_another_architecture_is_refused_by_its_difference(folder: Path, values: dict[str, Any], said: str) -> None:
    change(folder, **values)
    assert said in refused(folder)


def test_what_makes_no_difference_is_taken(folder: Path) -> None:
    change(
        folder,
        **dict.fromkeys(["residual_multiplier", "embedding_multiplier", "attention_multiplier", "logits_scaling"], 1.0),
        **dict.fromkeys(["final_logit_softcapping", "attn_logit_softcapping", "sliding_window"]),
        rope_scaling={"type": None, "factor": 1.0},
    )
    load_model(folder)


def test_old_and_new_names_of_the_rotary_base(folder: Path) -> None:
    change(folder, rope_parameters="absent", rope_theta=123.0)
    assert load_model(folder)[0].config.rope_theta == 123.0
    change(folder, rope_theta="absent")
    assert load_model(folder)[0].config.rope_theta == 10000.0
    change(folder, rope_parameters={"rope_type": "default", "rope_theta": 77.0})
    assert load_model(folder)[0].config.rope_theta == 77.0
    change(folder, rope_scaling={"rope_type": "default"})
    assert load_model(folder)[0].config.rope_theta == 77.0


def test_what_a_config_leaves_out_means_what_it_means_to_transformers(folder: Path) -> None:
    change(
        folder,
        **dict.fromkeys(["rms_norm_eps", "hidden_act", "tie_word_embeddings", "head_dim", "rope_theta", "rope_parameters"], "absent"),
    )
    ours, theirs = load_model(folder)[0], transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert ours.config.norm_eps == theirs.config.rms_norm_eps
    assert same(ours(TOKENS), theirs(TOKENS).logits)


@pytest.mark.parametrize("content", ["[1, 2]", '{"model_type": "llama"', "", "\x00\x01"])
def test_a_config_that_is_none(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert "FOLDER/config.json" in refused(folder)


def test_no_folder_no_config_no_weights_no_tokenizer(folder: Path, tmp_path: Path) -> None:
    assert "holds no config.json" in refused(tmp_path / "nowhere")
    (folder / "tokenizer.model").rename(folder / "elsewhere")
    assert "SentencePiece" in refused(folder)
    (folder / "elsewhere").rename(folder / "tokenizer.model")
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors" in refused(folder)
    (folder / "config.json").unlink()
    assert "FOLDER: holds no config.json; expected a Hugging Face Llama folder" in refused(folder)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth"])
def test_pickles_are_never_read(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Malicious()))
    assert f"found {name}, which are pickles and are not read" in refused(folder)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"),
            "lacks model.layers.1.mlp.up_proj.weight (1 missing, 0 unexpected",
        ),
        (lambda tensors: tensors.update(extra=torch.ones(1)), "holds extra, which the model in config.json does not have"),
        (lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}), "q_proj.bias"),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}),
            "model.norm.weight has shape [31]; config.json says [32]",
        ),
        (lambda tensors: tensors["lm_head.weight"][7].fill_(torch.nan), "lm_head.weight holds values that are not finite"),
        (
            lambda tensors: tensors["model.norm.weight"][0].fill_(-torch.inf),
            "model.norm.weight holds values that are not finite",
        ),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)}),
            "model.norm.weight is of type I8",
        ),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.ones(32).to(torch.float8_e4m3fn)}),
            "is of type F8_E4M3",
        ),
    ],
    ids=["missing", "unexpected", "bias", "shape", "nan", "inf", "int8", "float8"],
)
def test_weights_that_are_not_the_models(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object], said: str) -> None:
    change_weights(folder, edit)
    assert said in refused(folder)


def test_old_rotary_buffers_are_no_surprise(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    load_model(folder)


@pytest.mark.parametrize("size", [0, 4, 8, 100, 2000, -1])
def test_truncated_weights(folder: Path, size: int) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:size])
    assert "FOLDER/model.safetensors: damaged or not safetensors" in refused(folder)


def test_a_changed_byte_in_the_header_is_found_or_harmless(folder: Path) -> None:
    model, _ = load_model(folder)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    found = 0
    for place in range(0, 8 + int.from_bytes(content[:8], "little"), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 7]) + content[place + 1 :])
        other = Transformer(model.config)
        try:
            load_weights(other, folder)
        except UserError:
            found += 1
        else:
            assert all(weight.equal(model.get_parameter(name)) for name, weight in other.named_parameters())
    assert found > 100


@pytest.fixture
def sharded(folder: Path) -> Path:
    model, _ = load_model(folder)
    (folder / "model.safetensors").unlink()
    tensors = {to_hugging_face(name): weight.detach() for name, weight in model.named_parameters()}
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards_that_are_missing_wrong_or_elsewhere(sharded: Path) -> None:
    load_model(sharded)
    index = (sharded / "model.safetensors.index.json").read_text()
    first = sorted(json.loads(index)["weight_map"])[0]
    (sharded / "b.safetensors").rename(sharded / "c.safetensors")
    assert "FOLDER/b.safetensors: is named in model.safetensors.index.json and is missing" in refused(sharded)
    (sharded / "c.safetensors").rename(sharded / "b.safetensors")
    save_file(
        {name: value for name, value in load_file(sharded / "a.safetensors").items() if name != first},
        sharded / "a.safetensors",
    )
    assert f"FOLDER/a.safetensors: lacks {first}" in refused(sharded)
    for wrong in ('{"metadata": {}}', '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}'):
        (sharded / "model.safetensors.index.json").write_text(wrong)
        assert "has no weight_map" in refused(sharded)
    (sharded / "model.safetensors.index.json").write_text(index.replace("a.safetensors", "../a.safetensors"))
    assert "names a file outside its folder" in refused(sharded)


def test_a_tokenizer_with_more_pieces_than_the_model(folder: Path) -> None:
    larger = train_tokenizer(["".join(map(chr, range(0x4E00, 0x4E29))) * 3], TokenizerConfig(vocab_size=301, character_coverage=1.0))
    larger.save(folder)
    assert "tokenizer has 301 pieces, the model 300" in refused(folder)


def test_what_was_written_wrongly_is_found(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = randomised(Transformer(BASE))
    files = HuggingFaceFiles(model, tokenizer)
    files.save(tmp_path)
    change_weights(tmp_path, lambda tensors: tensors["model.norm.weight"][3].mul_(1.0001))
    with pytest.raises(OSError, match=r"norm\.weight was not written as it was meant"):
        verify_folder(model, tokenizer, tmp_path)
    files.load(tmp_path)
    verify_folder(model, tokenizer, tmp_path)
    change(tmp_path, rope_theta=10001.0)
    with pytest.raises(OSError, match=r"config\.json: was not written"):
        verify_folder(model, tokenizer, tmp_path)
    files.save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(OSError, match=r"model\.safetensors: damaged .*cannot be read back"):
        verify_folder(model, tokenizer, tmp_path)
