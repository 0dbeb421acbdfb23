import math

import numpy as np
import pytest
import torch

from llamaherd.losses.ppo import entropy, explained_variance, policy_loss, value_loss

CLIP = 0.2


def numpy_policy_loss(log_probs: np.ndarray, old: np.ndarray, advantages: np.ndarray, mask: np.ndarray, clip: float) -> float:
    """The textbook form."""
    ratio = np.exp(log_probs - old)
    return -float((np.minimum(ratio * advantages, np.clip(ratio, 1 - clip, 1 + clip) * advantages) * mask).sum())


def test_policy_hand_worked() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1, 9.0])
    advantages, mask = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0, 1.0]), torch.tensor([1, 1, 1, 1, 1, 0])
    loss = policy_loss(ratio.log(), torch.zeros(6), advantages, mask, CLIP)
    # min(1.5, 1.2) + min(-1.5, -1.2) + min(.5, .8) + min(-.5, -.8) + 2.2 = 1.2 - 1.5 + .5 - .8 + 2.2
    assert loss.total.item() == pytest.approx(-1.6)
    assert loss.clipped.item() == 4
    expected = sum(r - 1 - math.log(r) for r in (1.5, 1.5, 0.5, 0.5, 1.1))
    assert loss.kl.item() == pytest.approx(expected, rel=1e-5)


def test_policy_equals_the_textbook_form_and_finite_differences() -> None:
    rng = np.random.default_rng(2)
    log_probs, old, advantages = rng.normal(size=(4, 5)), rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    mask = rng.integers(0, 2, (4, 5))
    tensor = torch.tensor(log_probs, requires_grad=True)
    total = policy_loss(tensor, torch.tensor(old), torch.tensor(advantages), torch.tensor(mask), CLIP).total
    assert total.item() == pytest.approx(numpy_policy_loss(log_probs, old, advantages, mask, CLIP))
    total.backward()
    assert tensor.grad is not None
    for place in np.ndindex(4, 5):
        step = np.zeros((4, 5))
        step[place] = 1e-6
        ends = [numpy_policy_loss(log_probs + sign * step, old, advantages, mask, CLIP) for sign in (1, -1)]
        assert tensor.grad[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-6)


def test_policy_overflow_is_cut_where_the_objective_is() -> None:
    log_probs = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = policy_loss(log_probs, torch.zeros(2), torch.tensor([1.0, -1.0]), torch.ones(2), CLIP)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(-1.2 + 0.8)
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [0, 0]


def test_first_step_is_the_policy_gradient() -> None:
    log_probs = torch.tensor([-1.0, -2.0], requires_grad=True)
    policy_loss(log_probs, log_probs.detach(), torch.tensor([3.0, -4.0]), torch.ones(2), CLIP).total.backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [-3, 4]


def test_value_hand_worked() -> None:
    values, old, returns = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0.0, 2.0, 0.0]), torch.tensor([2.0, 1.0, 0.0])
    mask = torch.tensor([1, 1, 0])
    assert value_loss(values, old, returns, mask, None).item() == 1.0  # (1 + 1) / 2
    # Clipped around the old: 0.2 and 2, squared errors 3.24 and 1.
    assert value_loss(values, old, returns, mask, CLIP).item() == pytest.approx((3.24 + 1) / 2)


def test_value_gradient_stops_when_clipped() -> None:
    values = torch.tensor([1.0, 1.0], requires_grad=True)
    value_loss(values, torch.tensor([0.0, 0.9]), torch.tensor([2.0, 2.0]), torch.ones(2), CLIP).backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, -1]


def test_explained_variance() -> None:
    returns, mask = torch.tensor([1.0, 2.0, 3.0, 99.0]), torch.tensor([1, 1, 1, 0])
    assert explained_variance(returns, returns, mask).item() == 1.0
    assert explained_variance(torch.full((4,), 5.0), returns, mask).item() == pytest.approx(0.0)
    assert explained_variance(returns / 2, returns, mask).item() == pytest.approx(0.75)
    assert math.isnan(explained_variance(returns, torch.ones(4), mask).item())


def test_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, 0.0], [0.0, 0.0, -math.inf, -math.inf]], requires_grad=True)
    result = entropy(logits.log_softmax(-1))
    assert result.tolist() == pytest.approx([math.log(4), 0, math.log(2)])
    result.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_empty_masks_give_zero() -> None:
    noise, mask = torch.randn(2, 3), torch.zeros(2, 3)
    loss = policy_loss(noise, noise + 1, noise, mask, CLIP)
    assert [part.item() for part in loss] == [0, 0, 0]
    assert value_loss(noise, noise, noise + 1, mask, CLIP).item() == 0
