"""Models in other forms."""

from pathlib import Path
from typing import Literal

from .common import built


def convert(
    src: str,
    dst: Path,
    *,
    to: Literal["hf", "meta", "llama2c", "gguf"],
    dtype: Literal["float32", "bfloat16", "float16", "q8_0", "q4_0"] | None = None,
    tokenizer: Path | None = None,
    shards: int | None = None,
) -> None:
    """Write a model in another format or other numbers, weight by weight, and read it back.

    Parameters
    ----------
    src
        A folder (Hugging Face's or Meta's), a llama2.c .bin, RUN (its newest version) or RUN:VERSION.
    dst
        Folder to write; with llama2c and gguf also a file that ends in .bin or .gguf. It must not exist yet.
    to
        The format to write.
    dtype
        How weights are held (default: as in SRC). q8_0 and q4_0 are GGUF's alone; llama2c has float32 alone.
    tokenizer
        A SentencePiece model in place of the one beside the weights.
    shards
        Files of weights (hf), or model-parallel shards (meta).
    """
    from ..core.device import set_threads
    from ..stages.convert import ConvertConfig, headline
    from ..stages.convert import run as run_convert

    checked = built(ConvertConfig, model=src, to=to, dtype=dtype, tokenizer=tokenizer, shards=shards)
    set_threads()
    artifact = run_convert(checked, dst)
    print(f"{dst}: {headline(artifact) if artifact else 'written and read back'}")
