"""From logits to one token per row: repetition penalty, temperature, top-k, top-p, min-p, in this order."""

import torch
from torch import Tensor

SORTED_SHARE = 64
"""At first one token in so many is sorted: for so few torch takes a heap, 20 times as fast as sorting all."""


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits [B, V] in which tokens that were `seen` [B, V] (bool) are less likely for a penalty above 1 (CTRL, Keskar et al. 2019)."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def choose(logits: Tensor, temperature: float, top_p: float, uniform: Tensor, top_k: int = 0, min_p: float = 0.0) -> Tensor:
    """One token id per row. logits [B, V] float32; `uniform` [B] in [0, 1) decides, so a row's choice is its own.

    Temperature 0 is greedy. `top_k` tokens stay, and those that equal the last of them; 0 keeps all. The nucleus keeps tokens of
    these while (cumulative - own probability) <= top_p, as the reference code does (section 14); at top_p 1 nothing is sorted.
    Of these again, those with at least `min_p` times the probability of the likeliest stay.
    """
    if temperature == 0:
        return logits.argmax(-1)
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], float("-inf"))
    # Without the subtraction a tiny temperature overflows to infinity, and the softmax to NaN.
    probabilities = torch.softmax((logits - logits.amax(-1, keepdim=True)) / temperature, dim=-1)
    least = probabilities.amax(-1, keepdim=True) * min_p if min_p else None
    if top_p >= 1:
        return _inverse_cumulative(_without(probabilities, least), uniform)
    return _from_nucleus(probabilities, top_p, uniform, logits.shape[-1] // SORTED_SHARE, least)


def _without(probabilities: Tensor, least: Tensor | None) -> Tensor:
    return probabilities if least is None else probabilities.masked_fill(probabilities < least, 0.0)


def _from_nucleus(probabilities: Tensor, top_p: float, uniform: Tensor, likeliest: int, least: Tensor | None) -> Tensor:
    """Sorts as many of the likeliest tokens; rows whose nucleus may go beyond them are sorted further."""
    everything = likeliest * 8 >= probabilities.shape[-1] or likeliest < 1
    if everything:
        ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    else:
        # topk leaves the order of equals open; here they stand by id, as in the full sort.
        ids = probabilities.topk(likeliest, dim=-1, sorted=False).indices.sort(dim=-1).values
        ordered, order = probabilities.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
        ids = ids.gather(-1, order)
    outside = ordered.cumsum(-1) - ordered > top_p
    chosen = ids.gather(-1, _inverse_cumulative(_without(ordered.masked_fill(outside, 0.0), least), uniform)[:, None])[:, 0]
    if not everything:
        # The nucleus is whole if a token stands outside, and none inside equals the last one, whose equals may be missing.
        whole = outside[:, -1] & (ordered.masked_fill(outside, 1.0).amin(-1) > ordered[:, -1])
        rest = (~whole).nonzero()[:, 0]
        if len(rest):
            further = None if least is None else least[rest]
            chosen[rest] = _from_nucleus(probabilities[rest], top_p, uniform[rest], likeliest * 8, further)
    return chosen


def _inverse_cumulative(weights: Tensor, uniform: Tensor) -> Tensor:
    cumulative = weights.cumsum(-1)
    total = cumulative[:, -1:].contiguous()
    found = torch.searchsorted(cumulative, uniform[:, None] * total, right=True)
    # Rounding can put the target on the total, past the last token with weight: take that one. Of no numbers, any.
    return torch.minimum(found, torch.searchsorted(cumulative, total)).clamp_(max=weights.shape[-1] - 1)[:, 0]


def nucleus_mass(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """[B] the probability, at this temperature, of the nucleus that `choose` draws from: logits [B, V]. A token inside is drawn with
    its probability over this mass.
    """
    ordered = torch.softmax(logits.float() / temperature, dim=-1).sort(dim=-1, descending=True, stable=True).values
    return ordered.masked_fill(ordered.cumsum(-1) - ordered > top_p, 0.0).sum(-1)
