"""From logits to one token per row."""

import torch
from torch import Tensor


def choose(logits: Tensor, temperature: float, top_p: float, uniform: Tensor) -> Tensor:
    """One token id per row. logits [B, V] float32; `uniform` [B] in [0, 1) decides, so a row's choice is its own.

    Temperature 0 is greedy. The nucleus keeps tokens while (cumulative - own probability) <= top_p, as the reference
    code does (section 14); at top_p 1 nothing is sorted.
    """
    if temperature == 0:
        return logits.argmax(-1)
    # Without the subtraction a tiny temperature overflows to infinity, and the softmax to NaN.
    probabilities = torch.softmax((logits - logits.amax(-1, keepdim=True)) / temperature, dim=-1)
    if top_p >= 1:
        return _inverse_cumulative(probabilities, uniform)
    ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    chosen = _inverse_cumulative(ordered.masked_fill(before > top_p, 0.0), uniform)
    return ids.gather(-1, chosen[:, None])[:, 0]


def _inverse_cumulative(weights: Tensor, uniform: Tensor) -> Tensor:
    cumulative = weights.cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, target, right=True)[:, 0]
    # Rounding can put the target past the last token with weight: take that one.
    last = weights.shape[-1] - 1 - (weights > 0).flip(-1).int().argmax(-1)
    return torch.minimum(found, last)
