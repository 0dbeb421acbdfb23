"""The two orders of a head's rows: Meta's code, llama2.c and GGUF turn neighbours (2i, 2i + 1), we turn halves (i, i + d/2).

Queries have H heads and keys K of them; the same rows in another order, so nothing is lost either way.
"""

from torch import Tensor

from ..model.config import ModelConfig


def heads_of(name: str, config: ModelConfig) -> int | None:
    """How many heads a weight's rows belong to, if they are turned: H of `wq`, K of `wk`, None of all others."""
    kinds = {".wq.weight": config.heads, ".wk.weight": config.kv}
    return next((heads for end, heads in kinds.items() if name.endswith(end)), None)


def to_halves(weight: Tensor, heads: int) -> Tensor:
    """Rows [heads * d, D] with neighbours paired -> the same rows with halves paired."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def to_neighbours(weight: Tensor, heads: int) -> Tensor:
    """The way back: rows [heads * d, D] with halves paired -> with neighbours paired."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
