"""llama2.c's first format (`run.c` reads it): seven integers, then float32 weights by kind and layer, and its own tokenizer file.

It says nothing of the norm's epsilon (1e-5), the rotary base (10,000) and the size of a head (D / H): they are built into
llama2.c, so a model that has others cannot be written.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import UserError
from ..model.config import ModelConfig
from ..tokenizer.sentencepiece import SPACE, Tokenizer
from .pairs import heads_of, to_halves, to_neighbours
from .source import Source, demand_finite, find_tokenizer, load_tokenizer, shape_of, weight_shapes
from .tensors import fill, write_parts

HEADER = struct.Struct("<7i")
"""D, inner width, layers, H, K, V (negative: the head is not tied), context."""
NORM_EPS, ROPE_THETA = 1e-5, 10000.0
BY_LAYER = (
    "attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo",
    "ffn_norm", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3",
)  # fmt: skip
"""The order in which the file holds them, each of all layers."""
NEWER = 0x616B3432
"""What the later versions of the format begin with."""
IN_FOLDERS = (".safetensors", ".json", ".model", ".pth")
NEVER = -1e10
"""The score at and below which `run.c` joins no pieces."""


def open_llama2c(file: Path, tokenizer: Path | None = None) -> Source:
    """The model in a `.bin` file with the one SentencePiece model in its folder. Raises UserError for anything else."""
    config = _read_header(file)
    shapes = weight_shapes(config)
    places = dict(_places(config))
    heads = {name: heads_of(name, config) for name in shapes}

    def read(name: str) -> Tensor:
        value = torch.empty(shapes[name], dtype=torch.float32)
        with file.open("rb", buffering=0) as content:
            content.seek(places[name])
            fill(value, content, file)
        demand_finite(value, f"{file}: {name}")
        return to_halves(value, turned) if (turned := heads[name]) else value

    pieces = load_tokenizer(find_tokenizer(file.parent, tokenizer), config, file)
    return Source(file, "model", config, tuple(shapes), torch.float32, pieces, read)


def bare_weights(folder: Path) -> list[Path]:
    """The files of a folder that are of this format."""
    found = []
    for file in sorted(file for file in folder.glob("*.bin") if file.is_file()):
        try:
            _read_header(file)
        except UserError:
            continue
        found.append(file)
    return found


def _read_header(file: Path) -> ModelConfig:
    """The shape in a file whose size is what that shape takes. Raises UserError that says what the file is instead."""
    with file.open("rb") as content:
        head = content.read(HEADER.size)
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        raise UserError(
            f"{file}: is a pickle (PyTorch's), which could run code and is not read; save the model as safetensors, "
            "or give Meta's folder with its params.json"
        )
    if head[:4] == b"GGUF" or file.suffix in IN_FOLDERS:
        what = "GGUF, which is written here and not read" if head[:4] == b"GGUF" else "a part of a model"
        raise UserError(f"{file}: is {what}; give the folder of the model in Hugging Face's or Meta's format")
    advice = "expected a model folder or a llama2.c .bin of version 0"
    if len(head) < HEADER.size:
        raise UserError(f"{file}: has {len(head)} bytes and no header; {advice}")
    if struct.unpack("<I", head[:4])[0] == NEWER:
        raise UserError(f"{file}: is a llama2.c file of version {struct.unpack('<i', head[4:8])[0]}; export it with --version 0")
    dim, ffn, layers, heads, kv_heads, vocab, context = HEADER.unpack(head)
    counts = (dim, ffn, layers, heads, kv_heads, abs(vocab), context)
    if min(counts) < 1 or dim % heads or heads % kv_heads or dim // heads % 2:
        raise UserError(f"{file}: is not a llama2.c model (its header says {HEADER.unpack(head)}); {advice}")
    expected, size = _file_bytes(dim, ffn, layers, heads, kv_heads, vocab, context), file.stat().st_size
    if size != expected:
        raise UserError(
            f"{file}: has {size:,} bytes, and a llama2.c model of its header {HEADER.unpack(head)} has {expected:,}; "
            f"it is cut short or another file: get it again, or give {advice.removeprefix('expected ')}"
        )
    values = {
        "dim": dim, "ffn": ffn, "layers": layers, "heads": heads, "kv_heads": kv_heads, "vocab_size": abs(vocab),
        "context": context, "tied": vocab > 0, "norm_eps": NORM_EPS, "rope_theta": ROPE_THETA,
    }  # fmt: skip
    return shape_of(values, str(file))


def _file_bytes(dim: int, ffn: int, layers: int, heads: int, kv_heads: int, vocab: int, context: int) -> int:
    head_size = dim // heads
    block = 2 * dim + 2 * dim * dim + 2 * dim * kv_heads * head_size + 3 * dim * ffn
    return HEADER.size + 4 * (abs(vocab) * dim * (1 if vocab > 0 else 2) + layers * block + dim + context * head_size)


def _places(config: ModelConfig) -> Iterator[tuple[str, int]]:
    """(our name, first byte) of every weight, in the file's order."""
    shapes, place = weight_shapes(config), HEADER.size
    for name in _order(config):
        yield name, place
        place += 4 * math.prod(shapes[name])
        if name == "norm.weight":
            place += 4 * config.context * config.head_size  # two rotary tables, which llama2.c skips too


def _order(config: ModelConfig) -> list[str]:
    layers = [f"layers.{layer}.{part}.weight" for part in BY_LAYER for layer in range(config.layers)]
    return ["tok_embeddings.weight", *layers, "norm.weight", *([] if config.tied else ["output.weight"])]


def demand_llama2c(source: Source) -> None:
    """Raises UserError that names what of a model the format cannot say."""
    config = source.config
    differences = {
        "a reward model": source.kind != "model",
        f"norm_eps {config.norm_eps} (it has {NORM_EPS})": config.norm_eps != NORM_EPS,
        f"rotary base {config.rope_theta} (it has {ROPE_THETA})": config.rope_theta != ROPE_THETA,
        f"heads of {config.head_size} in a width of {config.dim} (it has D / H)": config.head_size * config.heads != config.dim,
    }
    found = [what for what, differs in differences.items() if differs]
    if found:
        raise UserError(f"{source.path}: llama2.c cannot hold {', '.join(found)}; convert to hf, or to gguf for other programs")


def write_llama2c(source: Source, file: Path) -> None:
    """Writes a float32 model, one weight at a time. Raises OSError that names the file."""
    assert source.dtype == torch.float32, "the format has no other type"
    config = source.config
    vocab = config.vocab_size if config.tied else -config.vocab_size
    head = HEADER.pack(config.dim, config.ffn_width, config.layers, config.heads, config.kv, vocab, config.context)
    write_parts(file, [head], _stream(source))


def _stream(source: Source) -> Iterator[Tensor]:
    for name in _order(source.config):
        yield _turned(source, name)
        if name == "norm.weight":
            yield from rotary_tables(source.config)


def _turned(source: Source, name: str) -> Tensor:
    value, heads = source.read(name), heads_of(name, source.config)
    return to_neighbours(value, heads) if heads else value


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines [context, d / 2], as llama2.c's exporter makes them."""
    frequencies = 1.0 / (config.rope_theta ** (torch.arange(0, config.head_size, 2).float() / config.head_size))
    angles = torch.outer(torch.arange(config.context), frequencies).float()
    return angles.cos(), angles.sin()


def tokenizer_bin(tokenizer: Tokenizer, rows: int) -> bytes:
    """The tokenizer as `run.c` reads it: the longest piece's bytes, then of each piece its score, bytes and text.

    `rows` of the model beyond the tokenizer's pieces get names that no text is joined into.
    """
    marked = {tokenizer.bos_id: "\n<s>\n", tokenizer.eos_id: "\n</s>\n"}
    texts = [marked.get(id, tokenizer.piece(id)).replace(SPACE, " ") for id in range(tokenizer.vocab_size)]
    pieces = [(tokenizer.score(id), text.encode()) for id, text in enumerate(texts)]
    pieces += [(NEVER, f"<unused {id}>".encode()) for id in range(tokenizer.vocab_size, rows)]
    parts = [struct.pack("<I", max(len(piece) for _, piece in pieces))]
    parts += [struct.pack("<fI", score, len(piece)) + piece for score, piece in pieces]
    return b"".join(parts)
