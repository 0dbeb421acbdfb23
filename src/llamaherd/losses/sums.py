"""Masked sums: losses are sums over what counts, divided once, by the global count, in the training loop.

Masks are bool or 0/1 and have the shape of the values; None counts everything. What a mask hides may be anything, NaN included.
"""

import torch
from torch import Tensor


def masked(values: Tensor, mask: Tensor | None) -> Tensor:
    """`values` with zero where `mask` is 0; `where`, since NaN times zero is NaN."""
    return values if mask is None else torch.where(mask.bool(), values, torch.zeros((), dtype=values.dtype, device=values.device))


def masked_count(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """How many of `values` count, as a scalar of their type."""
    return torch.ones_like(values).sum() if mask is None else mask.bool().expand_as(values).sum().to(values.dtype)


def masked_sum(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scalar sum of the values that count; an empty mask gives 0."""
    return masked(values, mask).sum()


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scalar mean of the values that count; an empty mask gives 0."""
    return masked_sum(values, mask) / masked_count(values, mask).clamp_min(1)


def masked_variance(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scalar population variance (divided by n, so that one value has variance 0) of the values that count."""
    return masked_mean((values - masked_mean(values, mask)).square(), mask)


def whiten(values: Tensor, mask: Tensor | None = None, shift_mean: bool = True, epsilon: float = 1e-8) -> Tensor:
    """Unit variance, and mean zero if `shift_mean`, over the values that count (section 6; its scope is ours to choose).

    Same shape as `values`, zero where the mask is 0. Equal values have no scale and whiten to zeros (plus their mean).
    """
    mean = masked_mean(values, mask)
    scaled = (values - mean) * torch.rsqrt(masked_variance(values, mask) + epsilon)
    return masked(scaled if shift_mean else scaled + mean, mask)
