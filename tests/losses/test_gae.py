import math

import numpy as np
import pytest
import torch

from llamaherd.losses.gae import gae


def test_hand_worked() -> None:
    rewards = torch.tensor([[0.0, 1.0, 7.0], [2.0, 0.0, 0.0]])
    values = torch.tensor([[1.0, 2.0, 9.0], [0.5, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    advantages, returns = gae(rewards, values, mask, gamma=0.5, lam=0.5)
    # Row 0: deltas 0 + .5 * 2 - 1 = 0 and 1 + 0 - 2 = -1; advantages 0 + .25 * -1 and -1. Row 1: 2 - .5.
    assert advantages.tolist() == [[-0.25, -1, 0], [1.5, 0, 0]]
    assert returns.tolist() == [[0.75, 1, 0], [2, 0, 0]]


def test_equals_the_definition() -> None:
    """A_t = sum over k of (gamma lam)^k delta_{t+k}, term by term."""
    rng = np.random.default_rng(1)
    rewards, values, gamma, lam = rng.normal(size=(3, 6)), rng.normal(size=(3, 6)), 0.9, 0.8
    lengths = [6, 3, 1]
    expected = np.zeros((3, 6))
    for row, length in enumerate(lengths):
        after = np.append(values[row, 1:length], 0)
        deltas = rewards[row, :length] + gamma * after - values[row, :length]
        for t in range(length):
            expected[row, t] = sum((gamma * lam) ** k * deltas[t + k] for k in range(length - t))
    mask = np.arange(6)[None] < np.array(lengths)[:, None]
    advantages, returns = gae(torch.tensor(rewards), torch.tensor(values), torch.tensor(mask), gamma, lam)
    np.testing.assert_allclose(advantages.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(returns.numpy(), (expected + values) * mask, atol=1e-12)


def test_lambda_one_is_reward_to_go_and_lambda_zero_the_temporal_difference() -> None:
    rewards, values, mask = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.1, 0.2, 0.3]]), torch.ones(1, 3)
    assert gae(rewards, values, mask, 1.0, 1.0)[1].tolist()[0] == pytest.approx([6, 5, 3])
    assert gae(rewards, values, mask, 1.0, 0.0)[0].tolist()[0] == pytest.approx([1.1, 2.1, 2.7])


def test_padding_and_empty_rows() -> None:
    rewards, values = torch.full((2, 2), math.nan), torch.full((2, 2), math.nan)
    rewards[0, 0], values[0, 0] = 1.0, 0.25
    advantages, returns = gae(rewards, values.requires_grad_(), torch.tensor([[1, 0], [0, 0]]), 0.99, 0.95)
    assert advantages.tolist() == [[0.75, 0], [0, 0]]
    assert returns.tolist() == [[1, 0], [0, 0]]
    assert not advantages.requires_grad
