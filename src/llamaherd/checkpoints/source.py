"""The one way in: a model on disk, whatever its format, as its shape at once and its weights one at a time.

What headers, sizes, shapes and configs show is refused before a weight is read, in time and memory that do not depend on
what they claim.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..core.artifacts import check_files
from ..core.config import ConfigError, build
from ..core.errors import UserError
from ..core.files import read_json
from ..model.config import ModelConfig
from ..tokenizer.sentencepiece import Tokenizer

ModelKind = Literal["model", "reward-model"]

MOST_JSON_BYTES = 1 << 20
MOST_NESTED = 16
MOST_SIZE, MOST_MULTIPLIER = 1 << 31, 1000.0
MOST_CONTEXT = 1 << 20
"""Tokens: no file shows whether a context is true, and one of billions would take all memory for its rotary table."""
MOST_UNUSED = 1024
"""Rows that a vocabulary may have beyond its tokenizer's pieces, to be a multiple of something or for added tokens."""
MOST_TOKENIZER_BYTES, MOST_PIECE_BYTES = 1 << 20, 96
"""What a SentencePiece model may take besides its pieces, and for each of them."""
DESCRIPTIONS = ("config.json", "params.json", "model.safetensors.index.json")
"""What is read of a model besides its weights and tokenizer."""
PAYLOAD = (".safetensors", ".pth", ".bin")


@dataclass(frozen=True)
class Source:
    """A model on disk, whatever its format: its shape at once, its weights one at a time."""

    path: Path
    kind: ModelKind
    config: ModelConfig
    names: tuple[str, ...]
    """Our names (Meta's, as in Transformer.named_parameters), in model order; tied: no output.weight."""
    dtype: torch.dtype
    """As stored; of mixed types the one that holds them all."""
    tokenizer: Tokenizer
    read: Callable[[str], Tensor]
    """One weight by our name, in our layout (q and k rotate by halves), as stored. Raises UserError that names the file for damage and
    for values that are not finite."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight, by our names in model order."""
        return weight_shapes(self.config, self.kind)


def open_source(path: Path, tokenizer: Path | None = None) -> Source:
    """A Hugging Face folder, a folder of Meta's, a llama2.c `.bin` (or a folder that holds one), or an adapter that names its base.

    `tokenizer`: a SentencePiece model to take in place of the one beside the weights. Raises UserError in one line for what is
    none of these, is damaged as far as headers show, or does not belong together.
    """
    from .adapted import open_adapter
    from .huggingface import open_hugging_face
    from .llama2c import bare_weights, open_llama2c
    from .meta import PARAMS, open_meta
    from .peft import is_adapter

    if path.is_file():
        return open_llama2c(path, tokenizer)
    if is_adapter(path):
        return open_adapter(path)
    check_files(path, lambda name: name in DESCRIPTIONS or name.endswith(".model"))
    if (path / PARAMS).is_file() and not (path / "config.json").is_file():
        return open_meta(path, tokenizer)
    found = [] if (path / "config.json").is_file() else bare_weights(path)
    return open_llama2c(found[0], tokenizer) if len(found) == 1 else open_hugging_face(path, tokenizer)


def weight_shapes(config: ModelConfig, kind: ModelKind = "model") -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a model, by our names in model order; tied: no output.weight. `score.weight` heads a reward model."""
    width, heads, kv = config.dim, config.heads * config.head_size, config.kv * config.head_size
    block = {
        "attention_norm": (width,), "attention.wq": (heads, width), "attention.wk": (kv, width), "attention.wv": (kv, width),
        "attention.wo": (width, heads), "ffn_norm": (width,), "feed_forward.w1": (config.ffn_width, width),
        "feed_forward.w2": (width, config.ffn_width), "feed_forward.w3": (config.ffn_width, width),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"tok_embeddings.weight": (config.vocab_size, width)}
    for layer in range(config.layers):
        shapes |= {f"layers.{layer}.{part}.weight": shape for part, shape in block.items()}
    shapes["norm.weight"] = (width,)
    if kind == "reward-model":
        shapes["score.weight"] = (1, width)
    elif not config.tied:
        shapes["output.weight"] = (config.vocab_size, width)
    return shapes


def small_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file that describes a model. Raises UserError that names it for anything else, or one of many megabytes."""
    if file.is_file() and (size := file.stat().st_size) > MOST_JSON_BYTES:
        raise UserError(f"{file}: has {size:,} bytes; expected at most {MOST_JSON_BYTES:,} of what describes a model; get it again")
    value = read_json(file)
    if not isinstance(value, dict):
        raise UserError(f"{file}: holds a {type(value).__name__}; expected the object that describes a Llama model")
    level: list[Any] = [value]
    for _ in range(MOST_NESTED):
        inner = [child for child in level if isinstance(child, (dict, list))]
        level = [item for child in inner for item in (child.values() if isinstance(child, dict) else child)]
    if level:
        raise UserError(f"{file}: is nested more than {MOST_NESTED} deep; expected what describes a Llama model, get it again")
    return value


def shape_of(values: Mapping[str, Any], where: str) -> ModelConfig:
    """The shape that a file gives. Raises UserError in one line for values that no model has."""
    large = [name for name, value in values.items() if _number(value) > MOST_SIZE]
    if large or _number(values.get("ffn_multiplier")) > MOST_MULTIPLIER:
        raise UserError(f"{where}: not the shape of a model: {large[0] if large else 'ffn_multiplier'} is far too large")
    try:
        config = build(ModelConfig, values, where)
    except ConfigError as error:
        problems = [problem.removeprefix(f"{where}: ")[:300] for problem in error.problems]
        raise UserError(f"{where}: not the shape of a model: {'; '.join(problems)}") from None
    if config.context > MOST_CONTEXT:
        raise UserError(f"{where}: a context of {config.context:,} tokens; expected at most {MOST_CONTEXT:,}")
    return config


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else 0


def demand_layers(config: ModelConfig, tensors: int, where: str) -> None:
    """Raises UserError when there are fewer tensors than layers: before names are made of what a config claims."""
    if config.layers > tensors:
        raise UserError(f"{where}: {config.layers:,} layers, and the weights hold {tensors:,} tensors; they do not belong together")


def find_tokenizer(folder: Path, given: Path | None, *others: Path) -> Path:
    """The SentencePiece model to use: the one given, else the only one in the folder, else in the first of `others` that has one.

    Raises UserError when there is none or several, which says so and how to name one.
    """
    if given is not None:
        if not given.is_file():
            raise UserError(f"{given}: no such file; --tokenizer takes a SentencePiece model, such as tokenizer.model")
        return given
    for place in (folder, *others):
        found = sorted(file for file in place.glob("*.model") if file.is_file())
        if len(found) == 1:
            return found[0]
        if found:
            break
    there = ", ".join(file.name for file in found) if found else "none"
    raise UserError(
        f"{folder}: expected exactly one SentencePiece *.model, found {there}; keep one there, or convert with --tokenizer FILE to name it"
    )


def load_tokenizer(file: Path, config: ModelConfig, where: Path) -> Tokenizer:
    """The tokenizer in a file, for a model of this shape. Raises UserError when it is not one, or not the model's."""
    most = MOST_TOKENIZER_BYTES + MOST_PIECE_BYTES * config.vocab_size
    if file.stat().st_size > most:
        raise UserError(
            f"{file}: has {file.stat().st_size:,} bytes; a tokenizer of {config.vocab_size:,} pieces takes at most {most:,}; it is not the model's"
        )
    tokenizer = Tokenizer.load(file)
    pieces, rows = tokenizer.vocab_size, config.vocab_size
    if not pieces <= rows <= pieces + MOST_UNUSED:
        raise UserError(
            f"{file}: tokenizer has {pieces:,} pieces, the model {rows:,} ({where}); they do not belong together, give the model's own"
        )
    return tokenizer


def finite(value: Tensor) -> bool:
    """Whether a weight holds neither NaN nor infinity; fifty times as fast as isfinite of each, and without its copies."""
    return bool(torch.isfinite(torch.stack(torch.aminmax(value))).all())  # NaN goes through both


def demand_finite(value: Tensor, name: str) -> Tensor:
    """The weight itself. Raises UserError when it holds NaN or infinity."""
    if not finite(value):
        raise UserError(f"{name} holds values that are not finite; the checkpoint is damaged, get it again")
    return value


@contextmanager
def intact(path: Path) -> Iterator[None]:
    """While weights are read, compares their files with the hashes in the folder's manifest, if it has one.

    Both readers share the system's cache, so a disk is read once. Raises UserError that names the file, at the end.
    """
    folder = path.parent if path.is_file() else path
    with ThreadPoolExecutor(1, "hash") as worker:
        done = worker.submit(check_files, folder, lambda name: Path(name).suffix in PAYLOAD)
        try:
            yield
        except UserError:
            done.result()  # where a file is not what was written, that is what to say
            raise
        done.result()


def cast(source: Source, dtype: torch.dtype) -> Source:
    """The same model in another type; its `read` raises UserError for a value that the type cannot hold."""

    def read(name: str) -> Tensor:
        value = source.read(name).to(dtype)
        if not finite(value):
            kind = str(dtype).removeprefix("torch.")
            raise UserError(f"{source.path}: {name} holds values too large for {kind}; convert to bfloat16 or float32")
        return value

    return replace(source, dtype=dtype, read=read)


def verify(meant: Source, path: Path, tokenizer: Path | None = None) -> None:
    """Reads a written model back, weight by weight: the same to the bit. Raises OSError that names what is not."""
    try:
        back = open_source(path, tokenizer)
        same = back.tokenizer.hash == meant.tokenizer.hash and back.config.parameters >= meant.config.parameters
        wrong = [] if same else ["tokenizer or shape"]
        wrong += [name for name in meant.names if not _same_bits(meant.read(name), back.read(name))]
    except UserError as error:
        raise OSError(f"{error} (it was written a moment ago: cannot be read back, the disk may be failing)") from None
    if wrong:
        raise OSError(f"{path}: {wrong[0]} was not written as it was meant; the disk may be failing")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))
    )
