"""From any format to any other, weight by weight: memory for the largest weight, not for all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from ..core.errors import UserError
from ..core.files import write_bytes
from .huggingface import write_hugging_face
from .llama2c import demand_llama2c, tokenizer_bin, write_llama2c
from .meta import demand_meta, write_meta
from .source import Source, cast, intact, verify

Format = Literal["hf", "meta", "llama2c", "gguf"]
Stored = Literal["float32", "bfloat16", "float16", "q8_0", "q4_0"]
FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def writer(source: Source, to: Format, stored: Stored | None, shards: int | None) -> Callable[[Path], None]:
    """What writes the model into a folder and reads it back. `stored`: how weights are held; None: as the source holds them.

    Raises UserError before any work for what the format cannot hold, and while writing for what is wrong with a weight.
    """
    if shards is not None and to not in ("hf", "meta"):
        raise UserError(f"--shards {shards}: a {to} model is one file; leave --shards out")
    if to == "gguf":
        return lambda folder: _gguf(source, folder, stored)
    if stored is not None and stored not in FLOATS:
        raise UserError(f"--dtype {stored}: {to} holds floats; give {', '.join(FLOATS)}, or --to gguf")
    if to == "llama2c":
        demand_llama2c(source)
        if stored not in (None, "float32") or (stored is None and source.dtype == torch.float64):
            raise UserError(f"{source.path}: llama2.c holds float32 and nothing else; give --dtype float32")
        return lambda folder: _llama2c(cast(source, torch.float32), folder)
    meant = cast(source, FLOATS[stored] if stored else source.dtype)
    if to == "meta":
        demand_meta(source, shards or 1)
        return lambda folder: _checked(meant, folder, lambda: write_meta(meant, folder, shards or 1))
    if shards is not None and shards > len(source.names):
        raise UserError(f"--shards {shards}: the model has {len(source.names)} weights; give at most so many")
    return lambda folder: _checked(meant, folder, lambda: write_hugging_face(meant, folder, shards))


def _checked(meant: Source, written: Path, write: Callable[[], None], tokenizer: Path | None = None) -> None:
    with intact(meant.path):
        write()
    verify(meant, written, tokenizer)


def _llama2c(meant: Source, folder: Path) -> None:
    file = folder / "model.bin"
    meant.tokenizer.save(folder)
    write_bytes(folder / "tokenizer.bin", tokenizer_bin(meant.tokenizer, meant.config.vocab_size))
    _checked(meant, file, lambda: write_llama2c(meant, file))


def _gguf(source: Source, folder: Path, stored: Stored | None) -> None:
    from .gguf import write_gguf

    usual = "float32" if source.dtype == torch.float64 else str(source.dtype).removeprefix("torch.")
    with intact(source.path):
        write_gguf(source, folder / "model.gguf", stored or usual)
