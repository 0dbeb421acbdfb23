import math

import numpy as np
import pytest
import torch

from llamaherd.losses import language
from llamaherd.losses.language import language_loss, picked, token_log_probs


def test_hand_worked() -> None:
    # Odds 1:1:2 and 1:3:0 give probabilities 1/4, 1/4, 1/2 and 1/4, 3/4, 0.
    logits = torch.tensor([[0.0, 0.0, math.log(2)], [0.0, math.log(3), -math.inf]])
    assert token_log_probs(logits, torch.tensor([2, 1])).tolist() == pytest.approx([math.log(1 / 2), math.log(3 / 4)])
    assert language_loss(logits, torch.tensor([2, 0]), torch.tensor([1, 1])).item() == pytest.approx(math.log(2) + math.log(4))
    assert language_loss(logits, torch.tensor([2, 0]), torch.tensor([0, 1])).item() == pytest.approx(math.log(4))


def test_equals_numpy_also_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    logits, targets, mask = rng.normal(size=(13, 7)), rng.integers(0, 7, 13), rng.integers(0, 2, 13)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -(np.log(probabilities[np.arange(13), targets]) * mask).sum()
    arguments = torch.tensor(logits, dtype=torch.float32), torch.tensor(targets), torch.tensor(mask)
    assert language_loss(*arguments).item() == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(language, "BLOCK_ELEMENTS", 3 * 7)
    assert language_loss(*arguments).item() == pytest.approx(expected, rel=1e-6)


def test_gradient_is_probability_minus_target() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets, mask = torch.tensor([0, 4, 2, 2]), torch.tensor([1, 0, 1, 1])
    language_loss(logits, targets, mask).backward()
    expected = (logits.softmax(-1) - torch.eye(5)[targets]) * mask[:, None]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected.detach())


def test_huge_logits_and_low_precision() -> None:
    logits = torch.tensor([[1e4, 0.0], [-1e4, 1e4]], requires_grad=True)
    loss = language_loss(logits, torch.tensor([0, 0]), torch.tensor([1, 1]))
    assert loss.item() == pytest.approx(2e4)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0, 0], [-1, 1]]
    assert token_log_probs(torch.zeros(1, 1000, dtype=torch.bfloat16), torch.tensor([3])).item() == pytest.approx(-math.log(1000))


def test_nothing_trained_gives_zero() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = language_loss(logits, torch.tensor([0, 1, 2]), torch.zeros(3))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.abs().max().item() == 0.0
    assert language_loss(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0)).item() == 0.0


def test_picked_is_token_log_probs_to_the_bit_gradient_included() -> None:
    logits, targets = torch.randn(7, 50) * 5, torch.randint(0, 50, (7,))
    mine, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found, expected = picked(mine.log_softmax(-1), targets), token_log_probs(other, targets)
    found.sum().backward()
    expected.sum().backward()
    assert torch.equal(found, expected)
    assert mine.grad is not None
    assert other.grad is not None
    assert torch.equal(mine.grad, other.grad)
