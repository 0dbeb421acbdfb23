import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llamaherd.checkpoints.huggingface import load_model
from llamaherd.checkpoints.meta import params_of, write_meta
from llamaherd.checkpoints.source import Source, open_source
from llamaherd.model.config import PRESETS, ModelConfig
from llamaherd.model.transformer import Transformer
from llamaherd.tokenizer.sentencepiece import Tokenizer

from .conftest import BASE, FORMS, randomised, refused, same_weights
from .test_pth import Evil

COLUMNS, ROWS = ("wq", "wk", "wv", "w1", "w3", "output"), ("wo", "w2", "tok_embeddings")
WIDE = BASE.model_copy(update={"kv_heads": 8, "layers": 2})


def turned(weight: Tensor, heads: int) -> Tensor:
    """Rows in Meta's order, as the inverse of what transformers' own converter does to them."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).transpose(1, 2).reshape(rows, width)


def meta_folder(model: Transformer, tokenizer: Tokenizer, folder: Path, count: int, **params: Any) -> Path:
    """A folder as Meta's training code leaves it, made with torch.save."""
    config = model.config
    shards: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, weight in model.state_dict().items():
        part = name.split(".")[-2]
        value = turned(weight, config.heads if part == "wq" else config.kv) if part in ("wq", "wk") else weight
        for shard, piece in zip(shards, value.chunk(count, 0 if part in COLUMNS else 1) if part in COLUMNS + ROWS else [value] * count):
            shard[name] = piece.clone()
    folder.mkdir()
    for number, shard in enumerate(shards):
        torch.save(shard | {"rope.freqs": torch.ones(2)}, folder / f"consolidated.{number:02d}.pth")
    written = {"dim": config.dim, "n_layers": config.layers, "n_heads": config.heads, "norm_eps": config.norm_eps, "vocab_size": -1}
    written |= {"multiple_of": 1, "ffn_dim_multiplier": (config.ffn_width + 0.5) / int(8 * config.dim / 3)}
    written |= {"n_kv_heads": config.kv} if config.kv != config.heads else {}
    (folder / "params.json").write_text(json.dumps(written | params))
    tokenizer.save(folder)
    return folder


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    return meta_folder(randomised(WIDE), tokenizer, tmp_path / "meta", 2, vocab_size=344)


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("kv_heads", [8, None])
def test_shards_are_joined_by_the_right_axes(count: int, kv_heads: int | None, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = randomised(WIDE.model_copy(update={"kv_heads": kv_heads, "norm_eps": 3e-6}))
    folder = meta_folder(model, tokenizer, tmp_path / "meta", count, vocab_size=344)
    assert same_weights(folder, model)
    loaded, _ = load_model(folder)
    tokens = torch.arange(3, 30)[None]
    assert loaded(tokens).equal(model(tokens))
    assert (loaded.config.norm_eps, loaded.config.context, loaded.config.kv) == (3e-6, 4096, 8)


@pytest.mark.parametrize("count", [1, 2])
def test_grouped_keys_are_turned_by_their_own_heads(count: int, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = randomised(FORMS["grouped"])
    assert same_weights(meta_folder(model, tokenizer, tmp_path / "meta", count, vocab_size=344), model)


def test_a_vocabulary_that_is_left_to_the_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = randomised(BASE.model_copy(update={"vocab_size": tokenizer.vocab_size}))
    folder = meta_folder(model, tokenizer, tmp_path / "meta", 1)
    assert open_source(folder).config.vocab_size == tokenizer.vocab_size
    padded = meta_folder(randomised(BASE), tokenizer, tmp_path / "padded", 1)
    assert "leaves the vocabulary to the tokenizer, which has 340 pieces; the weights have 344" in refused(padded)


def test_the_tokenizer_may_lie_one_folder_up(folder: Path) -> None:
    shutil.move(folder / "tokenizer.model", folder.parent / "tokenizer.model")
    assert same_weights(folder, randomised(WIDE))
    (folder.parent / "tokenizer.model").unlink()
    assert "expected exactly one SentencePiece *.model, found none" in refused(folder)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_what_is_written_reads_as_metas_own(count: int, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = randomised(WIDE)
    theirs = meta_folder(model, tokenizer, tmp_path / "theirs", count, vocab_size=344)
    source = open_source(theirs)
    (tmp_path / "ours").mkdir()
    write_meta(source, tmp_path / "ours", count)
    for number in range(count):
        one, other = (torch.load(tmp_path / who / f"consolidated.{number:02d}.pth") for who in ("ours", "theirs"))
        assert one.keys() == other.keys() - {"rope.freqs"}
        assert all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize("config", [*FORMS.values(), *PRESETS.values()], ids=[*FORMS, *PRESETS])
def test_the_rule_for_the_inner_width_gives_the_models(config: ModelConfig) -> None:
    explicit = config.model_copy(update={"ffn": config.ffn_width})
    for given in (config, explicit):
        params = params_of(given)
        # Meta's code, model.py
        hidden = int(2 * (4 * params["dim"]) / 3)
        if params.get("ffn_dim_multiplier") is not None:
            hidden = int(params["ffn_dim_multiplier"] * hidden)
        hidden = params["multiple_of"] * ((hidden + params["multiple_of"] - 1) // params["multiple_of"])
        assert hidden == config.ffn_width
        assert set(params) <= {"dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier", "norm_eps"}


def test_params_of_the_released_models() -> None:
    assert params_of(PRESETS["llama2-70b"]) == {
        "dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64, "n_kv_heads": 8, "n_layers": 80,
        "norm_eps": 1e-5, "vocab_size": 32000,
    }  # fmt: skip


def edit(folder: Path, number: int = 1, **changes: Any) -> None:
    file = folder / f"consolidated.{number:02d}.pth"
    shard = {name.replace(".", "_"): name for name in torch.load(file)}
    content = torch.load(file)
    for name, change in changes.items():
        content[shard.get(name, name)] = change(content.get(shard.get(name, name)))
    torch.save({name: value for name, value in content.items() if value is not None}, file)


def test_shards_that_are_missing_or_of_another_model(folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    shutil.move(folder / "consolidated.01.pth", tmp_path / "kept")
    assert "it is one of 2 shards, get the others" in refused(folder)
    shutil.move(tmp_path / "kept", folder / "consolidated.02.pth")
    assert "HERE/consolidated.01.pth: is missing (found consolidated.00.pth, consolidated.02.pth)" in refused(folder)
    for file in folder.glob("*.pth"):
        file.unlink()
    assert "HERE/consolidated.00.pth: is missing (found no shard)" in refused(folder)


def test_norms_that_differ_between_shards(folder: Path) -> None:
    edit(folder, norm_weight=lambda value: value * 1.001)
    assert "HERE/consolidated.01.pth: norm.weight differs from consolidated.00.pth's" in refused(folder, load_model)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"norm_weight": lambda value: None}, "consolidated.01.pth: lacks norm.weight (1 missing"),
        ({"extra": lambda value: torch.ones(2)}, "consolidated.01.pth: holds extra, which"),
        ({"norm_weight": lambda value: torch.ones(31)}, "norm.weight has shape [31]"),
        ({"output_weight": lambda value: torch.ones(3, 32)}, "output.weight has shape [3, 32]"),
        ({"norm_weight": lambda value: value.to(torch.int8)}, "norm.weight is not a plain float tensor"),
        ({"norm_weight": lambda value: torch.ones(1).expand(32)}, "norm.weight is not a plain float tensor"),
    ],
)
def test_weights_that_are_not_the_models(changes: dict[str, Any], said: str, folder: Path) -> None:
    edit(folder, **changes)
    assert said in refused(folder)


def test_nan_is_named_with_its_shard(folder: Path) -> None:
    edit(folder, output_weight=lambda value: value.fill_(torch.nan))
    assert "HERE/consolidated.01.pth: output.weight holds values that are not finite" in refused(folder, load_model)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"n_layers": 10**9}, "1,000,000,000 layers, and the weights hold"),
        ({"n_layers": 3}, "lacks layers.2."),
        ({"dim": 10**12}, "dim is far too large"),
        ({"dim": None}, "has no dim"),
        ({"n_heads": 7}, "not the shape of a model"),
        ({"ffn_dim_multiplier": 1e300}, "ffn_multiplier is far too large"),
        ({"vocab_size": 10**12}, "vocab_size is far too large"),
        ({"norm_eps": "small"}, "not the shape of a model"),
        ({"use_scaled_rope": True}, "not a Llama 2 architecture: use_scaled_rope True"),
        ({"moe": {"num_experts": 8}}, "not a Llama 2 architecture: moe"),
        ({"vocab_size": 400}, "has shape"),
    ],
)
def test_params_that_lie(values: dict[str, Any], said: str, folder: Path) -> None:
    params = json.loads((folder / "params.json").read_text()) | values
    (folder / "params.json").write_text(json.dumps(params))
    assert said in refused(folder)


def test_a_rotary_base_and_a_context_that_the_file_gives(folder: Path) -> None:
    params = json.loads((folder / "params.json").read_text()) | {"rope_theta": 1e6, "max_seq_len": 64, "max_batch_size": 4}
    (folder / "params.json").write_text(json.dumps(params))
    config = open_source(folder).config
    assert (config.rope_theta, config.context) == (1e6, 64)
    assert params_of(config)["rope_theta"] == 1e6


def test_a_shard_that_would_run_code(folder: Path, tmp_path: Path) -> None:
    torch.save({"norm.weight": Evil(tmp_path / "ran")}, folder / "consolidated.01.pth")
    assert "HERE/consolidated.01.pth: is not only weights: it asks for posix.mkdir" in refused(folder)
    assert not (tmp_path / "ran").exists()


def test_weights_are_read_again_and_again(folder: Path) -> None:
    source: Source = open_source(folder)
    model = randomised(WIDE)
    for _ in range(2):
        assert all(source.read(name).equal(model.get_parameter(name)) for name in reversed(source.names))
