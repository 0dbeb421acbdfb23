"""Models made smaller."""

from pathlib import Path
from typing import Literal

from .common import built


def quantize(
    model: str,
    dst: Path,
    *,
    bits: Literal[8, 4],
    group: Literal[32, 64, 128] | None = None,
    text: list[Path] | None = None,
    tokens: int = 8192,
    window: int = 512,
    tokenizer: Path | None = None,
) -> None:
    """Write a model with weights of 8 or 4 bits, for inference, and say what that changes.

    Parameters
    ----------
    model
        A folder, a llama2.c .bin, RUN (its newest version) or RUN:VERSION.
    dst
        Folder to write; it must not exist yet.
    bits
        8: a scale for every row of a weight. 4: a scale and a zero for every group of a row.
    group
        Weights that share a scale in 4 bits (default: 64).
    text
        Text files (.txt, .txt.gz) to measure perplexity on, before and after; may be given several times. WikiText-2's test
        sample is measured too where LLAMAHERD_DATA names a folder that holds it.
    tokens
        How many of the first tokens of each text are read.
    window
        Tokens that see each other.
    tokenizer
        A SentencePiece model in place of the one beside the weights.
    """
    from ..core.device import set_threads
    from ..stages.quantize import QuantizeConfig, report
    from ..stages.quantize import run as run_quantize

    checked = built(
        QuantizeConfig, model=model, bits=bits, group=group, text=tuple(text or ()), tokens=tokens, window=window, tokenizer=tokenizer
    )
    set_threads()
    for line in report(run_quantize(checked, dst, 0)):
        print(line)
