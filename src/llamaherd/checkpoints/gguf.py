"""Models as GGUF files, for llama.cpp and what is built on it: weights, tokenizer and chat template in one file, written only.

GGUF's Llama turns neighbouring pairs of q and k, as Meta's files do, so their rows are put in that order here.
"""

import errno
import hashlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..chat.template import CHAT_TEMPLATE
from ..core.errors import UserError, did_you_mean
from ..core.files import replacing
from ..model.config import ModelConfig
from ..tokenizer.sentencepiece import Tokenizer
from .pairs import heads_of, to_neighbours

if TYPE_CHECKING:
    from .source import Source

TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
"""GGUF's name of the type of the matrices, by the name that it has here."""
FILE_TYPES = {"float32": "ALL_F32", **{name: f"MOSTLY_{kind}" for name, kind in TYPES.items() if kind != "F32"}}
"""What llama.cpp calls a file after the type of its matrices."""
LARGEST = {"F32": 3.4028e38, "BF16": 3.3895e38, "F16": 65504.0, "Q8_0": 127 * 65504.0, "Q4_0": 8 * 65504.0}
"""Values beyond these become infinite, or the float16 scale of their block does."""
BLOCK = 32
"""Values of a row that share a scale in Q8_0 and Q4_0."""
PIECE_BYTES = 1 << 24
"""How much of a weight is in memory as float32 at a time."""
QUANTIZATION_VERSION = 2
"""Of GGML's blocks: that of Q8_0 and Q4_0 with float16 scales."""
PADDING_SCORE = -1e4
PROBE = "  ﬁ  ①  "
"""A text that comes back only from a tokenizer that cuts it as it is."""

_BLOCK = {
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "ffn_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}
_OUTER = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}


def to_gguf(name: str) -> str:
    """`layers.0.attention.wq.weight` -> `blk.0.attn_q.weight`."""
    stem, _, kind = name.rpartition(".")
    if stem in _OUTER:
        return f"{_OUTER[stem]}.{kind}"
    _, layer, part = stem.split(".", 2)
    return f"blk.{layer}.{_BLOCK[part]}.{kind}"


def write_gguf(source: "Source", path: Path, dtype: str) -> None:
    """Writes a language model as one GGUF file, matrices as `dtype` (a key of TYPES) and norms as float32.

    Weights are read one at a time, and what was written is read back and compared. Under q4_0 the head (tied: the
    embedding) is Q8_0. Matrices whose rows are no whole number of blocks stay float16, which standard error says, as it
    says when llama.cpp will not cut every text as the tokenizer does. Raises UserError for what GGUF or llama.cpp cannot
    take, OSError when the disk does not; `path` is then as it was.
    """
    gguf = _library()
    _check(source, path, dtype)
    shapes = source.shapes
    types = _types(source, shapes, dtype)
    for remark in _remarks(types, shapes, dtype, source.tokenizer):
        print(f"{source.path}: {remark}", file=sys.stderr)
    with replacing(path) as beside:
        with closing(gguf.GGUFWriter(beside, "llama")) as writer:
            _add_model(writer, source, gguf.LlamaFileType[FILE_TYPES[dtype]])
            _add_tokenizer(writer, source.tokenizer, source.config.vocab_size, gguf.TokenType)
            for name, kind in types.items():
                encoding = gguf.GGMLQuantizationType[kind]
                length_bytes = math.prod(gguf.quant_shape_to_byte_shape(shapes[name], encoding))
                writer.add_tensor_info(to_gguf(name), shapes[name], np.float32, length_bytes, encoding)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        _append(beside, _encoded(source, types), writer.data_alignment)


def _library() -> Any:
    try:
        import gguf
    except ImportError:
        raise UserError('writing GGUF needs the package gguf, which is not installed; pip install "llamaherd[gguf]"') from None
    return gguf


def _check(source: "Source", path: Path, dtype: str) -> None:
    """Raises UserError for what no GGUF file of Llama's kind can hold."""
    if dtype not in TYPES:
        raise UserError(f"no GGUF type {dtype!r}{did_you_mean(dtype, TYPES)}; there are {', '.join(TYPES)}")
    if source.kind == "reward-model":
        raise UserError(f"{source.path}: is a reward model, and llama.cpp has none of this kind; convert it to Hugging Face's format")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; GGUF is one file, so name it, such as {path / 'model.gguf'}")
    tokenizer, most = source.tokenizer, source.config.vocab_size
    if tokenizer.vocab_size > most:
        raise UserError(f"{source.path}: tokenizer has {tokenizer.vocab_size} pieces, the model {most}; they do not belong together")
    ids = range(tokenizer.vocab_size)
    if any(not tokenizer.score(id).is_integer() for id in ids):
        raise UserError(f"{source.path}: its SentencePiece model is not of type BPE, and llama.cpp would cut texts otherwise")
    if set(range(256)) - {tokenizer.byte(id) for id in ids}:
        raise UserError(
            f"{source.path}: its tokenizer has no pieces for bytes; without them llama.cpp ends at a character it does not know"
        )


def _types(source: "Source", shapes: Mapping[str, Sequence[int]], dtype: str) -> dict[str, str]:
    """GGUF's type of every weight. Raises UserError when no row can be cut into blocks."""
    head = "tok_embeddings.weight" if source.config.tied else "output.weight"

    def of(name: str) -> str:
        if len(shapes[name]) == 1:
            return "F32"
        kind = TYPES[dtype]
        if kind.startswith("Q") and shapes[name][-1] % BLOCK:
            return "F16"
        return "Q8_0" if kind == "Q4_0" and name == head else kind

    types = {name: of(name) for name in source.names}
    if dtype.startswith("q") and not any(kind.startswith("Q") for kind in types.values()):
        raise UserError(f"{source.path}: no weight has rows of whole blocks of {BLOCK} values, so none can be {dtype}; choose float16")
    return types


def _remarks(types: Mapping[str, str], shapes: Mapping[str, Sequence[int]], dtype: str, tokenizer: Tokenizer) -> Iterator[str]:
    """What is not as the user might think, a line each."""
    kept = [name for name, kind in types.items() if dtype.startswith("q") and kind == "F16"]
    if kept:
        yield f"{len(kept)} weights stay float16, since their rows are no whole number of blocks of {BLOCK} values: {kept[0]} {shapes[kept[0]]} ..."
    back = tokenizer.decode(tokenizer.encode(PROBE))
    if back != PROBE:
        yield f"llama.cpp cuts text as it is, while this tokenizer changes it first ({PROBE!r} to {back!r}); ids of such texts will differ"
    plain = {tokenizer.piece(id) for id in range(tokenizer.vocab_size) if _is_plain(tokenizer, id)}
    whole = [
        piece
        for piece in plain
        if len(piece) > 1 and not any(piece[:cut] in plain and piece[cut:] in plain for cut in range(1, len(piece)))
    ]
    if whole:
        yield f"llama.cpp reaches pieces by joining shorter ones, and {min(whole)!r} is no join of two; ids of texts that hold it will differ"


def _is_plain(tokenizer: Tokenizer, id: int) -> bool:
    return id != tokenizer.unk_id and not tokenizer.is_control(id) and tokenizer.byte(id) is None


def _add_model(writer: Any, source: "Source", file_type: int) -> None:
    """Name, type of the weights, and shape."""
    place = source.path.resolve()
    writer.add_type("model")
    writer.add_name(place.stem if place.is_file() else place.name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(QUANTIZATION_VERSION)
    add_shape(writer, source.config)


def add_shape(writer: Any, config: ModelConfig) -> None:
    """A model's sizes under the keys of GGUF's architecture `llama`."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn_width)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)


def _add_tokenizer(writer: Any, tokenizer: Tokenizer, vocab_size: int, kinds: Any) -> None:
    """Pieces with score and kind, the control ids and the chat template; unused pieces up to the model's vocabulary."""

    def kind(id: int) -> int:
        if id == tokenizer.unk_id:
            return int(kinds.UNKNOWN)
        if tokenizer.is_control(id):
            return int(kinds.CONTROL)
        return int(kinds.NORMAL if tokenizer.byte(id) is None else kinds.BYTE)

    ids, padding = range(tokenizer.vocab_size), range(tokenizer.vocab_size, vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*map(tokenizer.piece, ids), *(f"[PAD{id}]" for id in padding)])
    writer.add_token_scores([*map(tokenizer.score, ids), *(PADDING_SCORE for _ in padding)])
    writer.add_token_types([*map(kind, ids), *(int(kinds.UNUSED) for _ in padding)])
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_unk_token_id(tokenizer.unk_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(tokenizer.prefixes_space)
    writer.add_remove_extra_whitespaces(tokenizer.joins_spaces)
    writer.add_chat_template(CHAT_TEMPLATE)


def _encoded(source: "Source", types: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
    """The bytes of every weight, in pieces."""
    for name, kind in types.items():
        weight, heads = source.read(name), heads_of(name, source.config)
        yield _blocks(to_neighbours(weight, heads) if heads else weight, kind, f"{source.path}: {name}")


def _blocks(weight: Tensor, kind: str, name: str) -> Iterator[bytes]:
    """A weight in GGUF's encoding, some rows at a time. Raises UserError for a value that the type cannot say."""
    gguf = _library()
    rows = weight.reshape(-1, weight.shape[-1])
    for part in torch.split(rows, max(1, PIECE_BYTES // (4 * rows.shape[1]))):
        largest = part.abs().max().item()
        if not largest <= LARGEST[kind]:
            raise UserError(f"{name} holds {largest:.6g}, and {kind} ends at {LARGEST[kind]:.6g}; choose float32")
        yield gguf.quantize(part.float().numpy(), gguf.GGMLQuantizationType[kind]).tobytes()


def _append(path: Path, weights: Iterator[Iterator[bytes]], alignment: int) -> None:
    """Puts the weights behind the header, each to a multiple of `alignment`. Raises OSError when they do not come back as written."""
    digest = hashlib.sha256()
    with path.open("ab") as file:

        def put(piece: bytes) -> None:
            file.write(piece)
            digest.update(piece)

        header_bytes = file.tell()
        for weight in weights:
            put(bytes(-file.tell() % alignment))
            for piece in weight:
                put(piece)
        put(bytes(-file.tell() % alignment))
    with path.open("rb") as written:
        written.seek(header_bytes)
        if hashlib.file_digest(written, "sha256").digest() != digest.digest():
            raise OSError(errno.EIO, "was not written as it is in memory; the disk may be failing")
