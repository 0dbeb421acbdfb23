"""GGUF files as the `gguf` library reads them; what llama.cpp makes of them is in `test_gguf_in_llama_cpp.py`."""

import io
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer
from torch import Tensor

from llamaherd.chat.template import CHAT_TEMPLATE
from llamaherd.checkpoints.gguf import TYPES, write_gguf
from llamaherd.checkpoints.huggingface import save_model
from llamaherd.checkpoints.source import Source
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer, scorer_from
from llamaherd.stages.convert import ConvertConfig, run
from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer

from .sources import matrix_types, random_model, read_back, source_of

VOCABULARY = 300
BASE = ModelConfig(dim=64, layers=2, heads=4, kv_heads=2, ffn=96, vocab_size=VOCABULARY, context=40, rope_theta=500.5, norm_eps=1e-6)
FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return train_tokenizer(["the quick brown fox jumps over the lazy dog " * 3], TokenizerConfig(vocab_size=VOCABULARY))


def spoiled(tokenizer: Tokenizer, **options: Any) -> Tokenizer:
    """A SentencePiece model with the sizes of `tokenizer`, trained with other options."""
    model = io.BytesIO()
    usual = {
        "model_type": "bpe", "vocab_size": tokenizer.vocab_size, "hard_vocab_limit": False, "byte_fallback": True,
        "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
    }  # fmt: skip
    lines = ["the quick brown fox jumps over the lazy dog", "a lazy llama jumps over the brown quick fox"]
    SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, minloglevel=2, **{**usual, **options})
    return Tokenizer(model.getvalue())


def field(path: Path, key: str) -> Any:
    return gguf.GGUFReader(path).fields[key].contents()


def blocks(weight: Tensor) -> Tensor:
    return weight.reshape(-1, 32)


def near(weight: Tensor, value: Tensor, kind: str) -> bool:
    """Whether the values are the weight's as far as the type can say: a float's own rounding, half a step of a block's scale.

    A step is a 127th of the largest value of 32, or an 8th; the last step of Q4_0 on the side away from that value is missing.
    """
    if kind in ("F32", "F16", "BF16"):
        return value.equal(weight.to(FLOATS[{"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[kind]]).float())
    largest = blocks(weight.float()).abs().amax(1, keepdim=True)
    step = largest * {"Q8_0": 0.5 / 127, "Q4_0": 1 / 8}[kind]
    return bool(((blocks(weight.float()) - blocks(value)).abs() <= step * 1.001 + largest * 0.001).all())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("stored", FLOATS.values(), ids=FLOATS)
def test_every_weight_comes_back(dtype: str, stored: torch.dtype, small: Tokenizer, tmp_path: Path) -> None:
    source = source_of(random_model(BASE), small, stored)
    write_gguf(source, tmp_path / "model.gguf", dtype)
    types, values = matrix_types(tmp_path / "model.gguf"), read_back(tmp_path / "model.gguf", BASE)
    assert set(values) == set(source.names)
    for name in source.names:
        head = "Q8_0" if dtype == "q4_0" and name == "output.weight" else TYPES[dtype]
        assert types[name] == ("F32" if name.endswith("norm.weight") else head)
        assert near(source.read(name), values[name], types[name]), name


@settings(max_examples=25)
@given(
    heads=st.sampled_from([(1, 1), (4, 1), (6, 2), (3, 3)]),
    half=st.integers(1, 12),
    dim=st.integers(1, 70),
    ffn=st.integers(1, 70),
    padding=st.integers(0, 3),
    tied=st.booleans(),
    dtype=st.sampled_from(list(TYPES)),
)
def test_any_shape_comes_back(
    small: Tokenizer, tmp_path_factory: pytest.TempPathFactory,
    heads: tuple[int, int], half: int, dim: int, ffn: int, padding: int, tied: bool, dtype: str,
) -> None:  # fmt: skip
    config = ModelConfig(
        dim=dim, layers=1, heads=heads[0], kv_heads=heads[1], head_dim=2 * half, ffn=ffn, vocab_size=VOCABULARY + padding, tied=tied
    )
    path, source = tmp_path_factory.mktemp("any") / "model.gguf", source_of(random_model(config), small)
    if dtype.startswith("q") and all(source.read(name).shape[-1] % 32 for name in source.names if not name.endswith("norm.weight")):
        with pytest.raises(UserError, match=f"so none can be {dtype}; choose float16"):
            write_gguf(source, path, dtype)
        return
    write_gguf(source, path, dtype)
    types, values = matrix_types(path), read_back(path, config)
    assert list(values) == list(source.names)
    for name, value in values.items():
        weight = source.read(name)
        assert near(weight, value, types[name]), name
        whole = weight.ndim == 1 or not dtype.startswith("q") or weight.shape[1] % 32 == 0
        assert (types[name] == "F16") == ((dtype == "float16" and weight.ndim == 2) or not whole)


def test_rows_of_keys_are_put_in_pairs_by_key_heads(small: Tokenizer, tmp_path: Path) -> None:
    config = ModelConfig(dim=8, layers=1, heads=4, kv_heads=2, head_dim=4, ffn=8, vocab_size=VOCABULARY)
    model = Transformer(config)
    for name in ("wq", "wk", "wv"):
        weight = model.get_parameter(f"layers.0.attention.{name}.weight")
        weight.data = torch.arange(len(weight)).float()[:, None].repeat(1, 8)
    write_gguf(source_of(model, small), tmp_path / "model.gguf", "float32")
    rows = {tensor.name: tensor.data[:, 0].tolist() for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors if tensor.data.ndim == 2}
    assert rows["blk.0.attn_k.weight"] == [0, 2, 1, 3, 4, 6, 5, 7]
    assert rows["blk.0.attn_q.weight"] == [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15]
    assert rows["blk.0.attn_v.weight"] == list(range(8))


def test_a_block_of_each_kind_by_hand(small: Tokenizer, tmp_path: Path) -> None:
    model = random_model(BASE)
    row = torch.zeros(64)
    row[:4] = torch.tensor([-2.0, 1.0, 0.49, 2.0])
    model.layers[0].feed_forward.w1.weight.data[0] = row
    scales = {}
    for dtype in ("q8_0", "q4_0"):
        write_gguf(source_of(model, small), tmp_path / dtype, dtype)
        data = next(tensor.data[0] for tensor in gguf.GGUFReader(tmp_path / dtype).tensors if tensor.name == "blk.0.ffn_gate.weight")
        scales[dtype] = data[:2].view(np.float16)[0]
        if dtype == "q8_0":  # scale 2/127, one byte a value; two blocks of 34 bytes
            assert data[2:6].view(np.int8).tolist() == [-127, 64, 31, 127]
            assert data.tolist()[34:] == [0] * 34
        else:  # scale -2/-8, value plus 8; the low half-bytes are the first 16 values; +2 would be 16 and is cut to 15
            assert [byte & 15 for byte in data[2:6].tolist()] == [0, 12, 10, 15]
            assert [byte >> 4 for byte in data[2:18].tolist()] == [8] * 16
            assert len(data) == 36
    assert scales == {"q8_0": np.float16(2 / 127), "q4_0": np.float16(0.25)}


@pytest.mark.parametrize(("dtype", "number"), [("float32", 0), ("float16", 1), ("q4_0", 2), ("q8_0", 7), ("bfloat16", 32)])
def test_the_description(dtype: str, number: int, small: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(source_of(random_model(BASE), small, path=tmp_path / "v1.5"), path, dtype)
    expected = {
        "general.architecture": "llama", "general.name": "v1.5", "general.type": "model", "general.file_type": number,
        "general.quantization_version": 2, "llama.context_length": 40, "llama.embedding_length": 64, "llama.block_count": 2,
        "llama.feed_forward_length": 96, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 16, "llama.attention.value_length": 16, "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 500.5, "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-6), "llama.vocab_size": VOCABULARY,
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": True, "tokenizer.chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    assert {key: field(path, key) for key in expected} == expected


def test_a_file_is_named_without_its_ending(small: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "stories.v2.bin").touch()
    write_gguf(source_of(random_model(BASE), small, path=tmp_path / "stories.v2.bin"), tmp_path / "model.gguf", "float16")
    assert field(tmp_path / "model.gguf", "general.name") == "stories.v2"


def test_pieces_and_unused_ones_up_to_the_vocabulary(small: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(source_of(random_model(BASE.model_copy(update={"vocab_size": VOCABULARY + 2})), small), path, "float16")
    pieces, scores, kinds = (field(path, f"tokenizer.ggml.{key}") for key in ("tokens", "scores", "token_type"))
    assert pieces == [*map(small.piece, range(VOCABULARY)), "[PAD300]", "[PAD301]"]
    assert scores[:VOCABULARY] == [small.score(id) for id in range(VOCABULARY)]
    assert kinds == [2, 3, 3, *[6] * 256, *[1] * (VOCABULARY - 259), 5, 5]
    assert pieces[13] == "<0x0A>"
    assert any(piece.startswith("\u2581") for piece in pieces)


def test_without_a_space_before_the_text(small: Tokenizer, tmp_path: Path) -> None:
    source = source_of(random_model(BASE), spoiled(small, add_dummy_prefix=False))
    write_gguf(source, tmp_path / "model.gguf", "float16")
    assert field(tmp_path / "model.gguf", "tokenizer.ggml.add_space_prefix") is False


def test_what_stays_float16_is_said(small: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(source_of(random_model(BASE.model_copy(update={"ffn": 44})), small), tmp_path / "model.gguf", "q4_0")
    assert capsys.readouterr().err == (
        "models/herd: 2 weights stay float16, since their rows are no whole number of blocks of 32 values: "
        "layers.0.feed_forward.w2.weight (64, 44) ...\n"
    )
    types = matrix_types(tmp_path / "model.gguf")
    assert [name for name, kind in types.items() if kind == "F16"] == ["layers.0.feed_forward.w2.weight", "layers.1.feed_forward.w2.weight"]
    write_gguf(source_of(random_model(BASE), small), tmp_path / "model.gguf", "q4_0")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"remove_extra_whitespaces": True}, "changes it first ('  ﬁ  ①  ' to 'ﬁ ①')"),
        ({"normalization_rule_name": "nmt_nfkc"}, "to '  fi  1  ')"),
        ({"user_defined_symbols": ["@@@@"]}, "'@@@@' is no join of two"),
    ],
)
def test_texts_that_llama_cpp_cuts_otherwise_are_said(
    options: dict[str, Any], said: str, small: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(source_of(random_model(BASE), spoiled(small, **options)), tmp_path / "model.gguf", "float16")
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@dataclass(frozen=True)
class Wrong:
    """Something that cannot be exported."""

    said: str
    dtype: str = "float16"
    tokenizer: dict[str, Any] | None = None
    vocab_size: int = VOCABULARY


WRONG = {
    "type": Wrong("no GGUF type 'q4_k' (did you mean 'q4_0'?); there are float32, bfloat16, float16, q8_0, q4_0", dtype="q4_k"),
    "unigram": Wrong("is not of type BPE", tokenizer={"model_type": "unigram"}),
    "no bytes": Wrong("has no pieces for bytes", tokenizer={"byte_fallback": False, "vocab_size": 60}),
    "other tokenizer": Wrong(f"tokenizer has {VOCABULARY} pieces, the model 290; they do not belong together", vocab_size=290),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_cannot_be_exported_is_refused_in_one_line(wrong: Wrong, small: Tokenizer, tmp_path: Path) -> None:
    tokenizer = small if wrong.tokenizer is None else spoiled(small, **wrong.tokenizer)
    model = Transformer(BASE.model_copy(update={"vocab_size": wrong.vocab_size}))
    refused(source_of(model, tokenizer), tmp_path / "model.gguf", wrong.said, wrong.dtype)


def refused(source: Source, path: Path, said: str, dtype: str = "float16") -> None:
    before = sorted(path.parent.iterdir())
    with pytest.raises(UserError) as found:
        write_gguf(source, path, dtype)
    assert said in str(found.value)
    assert "\n" not in str(found.value)
    assert sorted(path.parent.iterdir()) == before


def test_a_reward_model_is_refused(small: Tokenizer, tmp_path: Path) -> None:
    refused(source_of(scorer_from(random_model(BASE)), small), tmp_path / "model.gguf", "is a reward model, and llama.cpp has none")


def test_a_folder_is_refused(small: Tokenizer, tmp_path: Path) -> None:
    refused(source_of(random_model(BASE), small), tmp_path, f"name it, such as {tmp_path / 'model.gguf'}")


def test_without_the_library(small: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    refused(source_of(random_model(BASE), small), tmp_path / "model.gguf", 'not installed; pip install "llamaherd[gguf]"')


@pytest.mark.parametrize(
    ("dtype", "value", "said"),
    [
        ("float16", 7e4, "holds 70000, and F16 ends at 65504; choose float32"),
        ("q4_0", -6e5, "holds 600000, and Q4_0 ends at 524032"),
        ("float32", float("nan"), "holds nan"),
    ],
)
def test_a_value_that_the_type_cannot_say(dtype: str, value: float, said: str, small: Tokenizer, tmp_path: Path) -> None:
    model = random_model(BASE)
    model.layers[1].feed_forward.w3.weight.data[5, 7] = value
    refused(source_of(model, small), tmp_path / "model.gguf", f"layers.1.feed_forward.w3.weight {said}", dtype)


def test_a_source_that_fails_leaves_the_old_file(small: Tokenizer, tmp_path: Path) -> None:
    path, source = tmp_path / "model.gguf", source_of(random_model(BASE), small)
    path.write_bytes(b"old")

    def read(name: str) -> Tensor:
        if name.startswith("layers.1"):
            raise UserError(f"{name} is damaged")
        return source.read(name)

    refused(replace(source, read=read), path, "layers.1.attention_norm.weight is damaged")
    assert path.read_bytes() == b"old"


def test_a_full_disk_leaves_nothing(small: Tokenizer, tmp_path: Path, small_files: Callable[[int], AbstractContextManager[None]]) -> None:
    path = tmp_path / "model.gguf"
    with small_files(50_000), pytest.raises(OSError) as found:
        write_gguf(source_of(random_model(BASE), small), path, "float32")
    assert found.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_come_back_as_written_is_refused(small: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def failing(path: Path, mode: str = "r", *args: Any) -> Any:
        if mode == "rb":
            with opened(path, "rb+") as file:
                file.seek(-1000, 2)
                file.write(b"\xff")
        return opened(path, mode, *args)

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(OSError, match="the disk may be failing") as found:
        write_gguf(source_of(random_model(BASE), small), tmp_path / "model.gguf", "q8_0")
    assert found.value.filename == str(tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("stored", "dtype", "kind"), [("bfloat16", None, "BF16"), ("float32", None, "F32"), ("float16", "q8_0", "Q8_0")])
def test_a_folder_is_converted(stored: str, dtype: str | None, kind: str, small: Tokenizer, tmp_path: Path) -> None:
    model = random_model(BASE).to(FLOATS[stored])
    save_model(model, small, tmp_path / "hf")
    asked = build(ConvertConfig, {"model": str(tmp_path / "hf"), "to": "gguf", "dtype": dtype})
    run(asked, tmp_path / "herd.gguf")
    run(asked, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "herd.gguf", "hf"]
    assert (tmp_path / "folder/model.gguf").read_bytes() == (tmp_path / "herd.gguf").read_bytes()
    values = read_back(tmp_path / "herd.gguf", BASE)
    assert matrix_types(tmp_path / "herd.gguf")["output.weight"] == kind
    assert field(tmp_path / "herd.gguf", "general.name") == "hf"
    assert all(near(weight, values[name], "F32" if weight.ndim == 1 else kind) for name, weight in model.named_parameters())


MEASURED = """
import resource, sys
from pathlib import Path
import torch
from llamaherd.checkpoints.gguf import write_gguf
from llamaherd.checkpoints.source import Source, weight_shapes
from llamaherd.model.config import ModelConfig
from llamaherd.tokenizer.sentencepiece import Tokenizer

tokenizer = Tokenizer.load(Path(sys.argv[1]))
for layers in (1, 8):
    config = ModelConfig(dim=512, layers=layers, heads=8, kv_heads=2, ffn=2048, vocab_size=tokenizer.vocab_size)
    shapes = weight_shapes(config)
    read = lambda name: torch.full(shapes[name], 0.5)
    write_gguf(Source(Path("m"), "model", config, tuple(shapes), torch.float32, tokenizer, read), Path(sys.argv[2]), "q8_0")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_model(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "tokenizer.model"), str(tmp_path / "model.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    one_layer, eight_layers = map(int, done.stdout.split())
    layer = 4 * (2 * 512 * 512 + 2 * 128 * 512 + 3 * 2048 * 512)
    assert (eight_layers - one_layer) * (1024 if sys.platform == "linux" else 1) < layer
