"""Proximal policy optimisation (section 6; Schulman et al. 2017): clipped policy and value losses, and what to watch.

All tensors have one shape, [B, T] or [N]; masks are 1 on sampled tokens; losses are sums over them, metrics carry no gradient.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .kl import k3
from .sums import masked, masked_sum, masked_variance


class PolicyLoss(NamedTuple):
    """Three scalars, each a sum over the tokens of the mask."""

    total: Tensor
    """The loss."""
    clipped: Tensor
    """Tokens whose ratio lies outside 1 - clip .. 1 + clip."""
    kl: Tensor
    """Nats from the policy that sampled to the present one (k3)."""


def policy_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> PolicyLoss:
    """Sum over tokens of -min(ratio * A, clamp(ratio, 1 - clip, 1 + clip) * A), ratio = exp(log_probs - old_log_probs).

    `old_log_probs` and `advantages` belong to the policy that sampled the tokens. Needs 0 < clip < 1.
    """
    advantages = masked(advantages, mask).detach()
    log_ratio = masked(log_probs - old_log_probs.detach(), mask)
    over, under = log_ratio > math.log1p(clip), log_ratio < math.log1p(-clip)
    cut = torch.where(advantages > 0, over, under)
    # A cut token is constant: its ratio is never computed, since an overflow would turn its zero gradient into NaN.
    ratio = torch.where(cut, torch.zeros_like(log_ratio), log_ratio).exp()
    bound = 1 + clip * advantages.sign()
    total = -masked_sum(advantages * torch.where(cut, bound, ratio), mask)
    kl = masked_sum(k3(torch.zeros_like(log_ratio), log_ratio.detach()), mask)
    return PolicyLoss(total, masked_sum((over | under).to(log_ratio.dtype), mask), kl)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float | None) -> Tensor:
    """Sum over tokens of half the squared error; with `clip`, the larger of it and the error of the value clipped around the old.

    The paper prints no value loss; None leaves the values unclipped.
    """
    error = (values - returns.detach()).square()
    if clip is not None:
        near = old_values.detach() + (values - old_values.detach()).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns.detach()).square())
    return masked_sum(error, mask) / 2


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect critic, 0 for a constant one; NaN where returns do not vary."""
    values, returns = values.detach(), returns.detach()
    spread = masked_variance(returns, mask)
    explained = 1 - masked_variance(returns - values, mask) / spread
    return torch.where(spread > 0, explained, torch.full_like(explained, math.nan))


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats of each row's distribution: log-probabilities [..., V] in float32 -> [...]; -inf is probability 0."""
    log_probs = log_probs.clamp_min(torch.finfo(torch.float32).min)
    return -(log_probs.exp() * log_probs).sum(dim=-1)
