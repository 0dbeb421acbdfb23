"""Generalised advantage estimation (Schulman et al. 2016; the Llama 2 paper prints neither gamma nor lambda)."""

import torch
from torch import Tensor

from .sums import masked


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns, each [B, T], of answers of T tokens padded on the right.

        delta_t = r_t + gamma * v_{t+1} - v_t
        A_t     = delta_t + gamma * lam * A_{t+1}
        return  = A_t + v_t

    rewards, values [B, T]: value v_t is the critic's estimate before token t; mask [B, T]: 1 on the answer's tokens, which
    end the episode, so the value after the last one is 0. Both results are 0 on padding and carry no gradient.
    """
    rewards, values = masked(rewards, mask).detach(), masked(values, mask).detach()
    advantages = torch.zeros_like(values)
    following_value = following_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * following_value - values[:, t]
        # Padding has reward, value and following advantage 0, hence advantage 0: the recursion starts at each row's end.
        following_advantage = delta + gamma * lam * following_advantage
        following_value = values[:, t]
        advantages[:, t] = following_advantage
    return advantages, advantages + values
