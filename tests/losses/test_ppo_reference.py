"""PPO's formulas beside an independent implementation: TRL's own functions, and the loops of its trainer written out plainly."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llamaherd.losses.gae import gae
from llamaherd.losses.kl import ESTIMATES, k1, k3
from llamaherd.losses.ppo import entropy, policy_loss, value_loss
from llamaherd.losses.sums import whiten
from llamaherd.reward.combine import GATE, gated
from llamaherd.rlhf.config import SignalConfig
from llamaherd.rlhf.signal import Running, scores_of, token_rewards

LENGTHS = [5, 3, 1, 4]
MASK = torch.arange(5)[None] < torch.tensor(LENGTHS)[:, None]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def trl() -> Any:
    return pytest.importorskip("trl.experimental.ppo.ppo_trainer")


def test_whitening_is_trls_but_for_its_count() -> None:
    """TRL divides by n - 1, we by n, so that one value has variance 0."""
    values, count = normal(0, 4, 5), sum(LENGTHS)
    theirs = trl().masked_whiten(values, MASK)
    mine = whiten(values, MASK) * math.sqrt((count - 1) / count)
    assert torch.allclose(mine[MASK], theirs[MASK], atol=1e-6)
    shifted = trl().masked_whiten(values, MASK, shift_mean=False)
    mean = values[MASK].mean()
    assert torch.allclose(
        ((whiten(values, MASK, shift_mean=False) - mean) * math.sqrt((count - 1) / count) + mean)[MASK], shifted[MASK], atol=1e-6
    )


def test_rewards_advantages_and_returns_as_in_trls_loop() -> None:
    """Its own lines, from `logr` on: padding, positions of the score and the loop over tokens."""
    policy, reference, values, scores = normal(1, 4, 5), normal(2, 4, 5), normal(3, 4, 5), normal(4, 4)
    beta, gamma, lam = 0.3, 0.97, 0.9
    for estimator in ("k1", "k3"):
        logr = reference - policy
        kl = -logr if estimator == "k1" else (logr.exp() - 1) - logr
        rewards = (-beta * kl).masked_fill(~MASK, 0)
        rewards[range(4), [length - 1 for length in LENGTHS]] += scores
        padded = values.masked_fill(~MASK, 0)
        last, reversed_ = torch.zeros(4, dtype=torch.float64), []
        for t in reversed(range(5)):
            following = padded[:, t + 1] if t < 4 else 0.0
            delta = rewards[:, t] + gamma * following - padded[:, t]
            last = delta + gamma * lam * last
            reversed_.append(last)
        expected = torch.stack(reversed_[::-1], dim=1)
        rows = [ESTIMATES[estimator](mine[:n], theirs[:n]) for mine, theirs, n in zip(policy, reference, LENGTHS, strict=True)]
        mine = torch.nn.utils.rnn.pad_sequence(token_rewards(scores, rows, beta), batch_first=True)
        assert torch.allclose(mine, rewards)
        advantages, returns = gae(mine, values, MASK, gamma, lam)
        assert torch.allclose(advantages, expected.masked_fill(~MASK, 0))
        assert torch.allclose(returns[MASK], (expected + padded)[MASK])


@pytest.mark.parametrize("value_clip", [0.2, 1e9])
def test_losses_and_their_gradients_as_in_trls_update(value_clip: float) -> None:
    masked_mean = trl().masked_mean
    advantages, returns, old, old_values = (normal(seed, 4, 5) for seed in (5, 6, 7, 8))
    mine = [(old + 0.3 * normal(9, 4, 5)).requires_grad_(), (old_values + 0.3 * normal(10, 4, 5)).requires_grad_()]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in mine]
    ratio = (theirs[0] - old).exp()
    surrogate = masked_mean(torch.max(-advantages * ratio, -advantages * torch.clamp(ratio, 0.8, 1.2)), MASK)
    near = torch.clamp(theirs[1], old_values - value_clip, old_values + value_clip)
    squared = 0.5 * masked_mean(torch.max((theirs[1] - returns).square(), (near - returns).square()), MASK)
    expected = surrogate + 0.1 * squared
    found = policy_loss(mine[0], old, advantages, MASK, 0.2)
    value = value_loss(mine[1], old_values, returns, MASK, value_clip if value_clip < 1 else None)
    total = (found.total + 0.1 * value) / MASK.sum()
    assert total.item() == pytest.approx(expected.item(), rel=1e-9)
    total.backward()
    expected.backward()
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-12)
    clipped = ((ratio - 1).abs() > 0.2)[MASK].sum()
    assert 0 < int(clipped) == int(found.clipped) < int(MASK.sum())


def test_entropy_and_its_gradient_are_torchs() -> None:
    mine, theirs = (normal(11, 6, 9).float().requires_grad_() for _ in range(2))
    found, expected = entropy(mine.log_softmax(-1)), torch.distributions.Categorical(logits=theirs).entropy()
    assert torch.allclose(found, expected, atol=1e-6)
    found.sum().backward()
    expected.sum().backward()
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-6)


def test_estimates_are_means_of_the_divergence() -> None:
    """A million draws: k1 and k3 come near the KL that torch computes, k2 does not where the two are far apart."""
    policy, reference = normal(12, 5).softmax(-1), normal(13, 5).softmax(-1)
    exact = float(torch.distributions.kl_divergence(torch.distributions.Categorical(policy), torch.distributions.Categorical(reference)))
    drawn = torch.multinomial(policy, 1_000_000, replacement=True, generator=torch.Generator().manual_seed(0))
    values = {name: float(estimate(policy.log()[drawn], reference.log()[drawn]).mean()) for name, estimate in ESTIMATES.items()}
    assert values["k1"] == pytest.approx(exact, rel=0.01)
    assert values["k3"] == pytest.approx(exact, rel=0.01)
    assert abs(values["k2"] / exact - 1) > 0.05
    assert float(k1(policy.log()[drawn], reference.log()[drawn]).var()) > float(k3(policy.log()[drawn], reference.log()[drawn]).var())


def test_the_combined_reward_from_probabilities_to_whitened_logits() -> None:
    """As the paper writes it: Rc of sigmoids, its logit, whitened; written out with the sigmoids that we leave out."""
    helpful, safe = normal(14, 40) * 2, normal(15, 40) * 2
    tagged = [index % 3 == 0 for index in range(40)]
    rc = [rs if tag or rs < 0.15 else rh for rh, rs, tag in zip(torch.sigmoid(helpful), torch.sigmoid(safe), tagged, strict=True)]
    logits = torch.stack([(value / (1 - value)).log() for value in rc])
    expected = (logits - logits.mean()) / logits.std(correction=0)
    mine = [gated(float(h), float(s), tag) for h, s, tag in zip(helpful, safe, tagged, strict=True)]
    fired = sum(value == float(s) and not tag for value, s, tag in zip(mine, safe, tagged, strict=True))
    assert 0 < fired < 20, "the gate fires on some prompts that are not tagged"
    assert GATE == 0.15
    assert scores_of(mine, SignalConfig(), Running()).tolist() == pytest.approx(expected.tolist(), abs=1e-4)
