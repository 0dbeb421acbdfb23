import math

import pytest
import torch

from llamaherd.losses.margins import MARGINS, margin_of
from llamaherd.losses.ranking import ranking_loss, safety_loss


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_margins_are_those_of_table_27() -> None:
    assert [MARGINS["small"][grade] for grade in ("significantly", "better", "slightly", "negligibly")] == [1, 2 / 3, 1 / 3, 0]
    assert margin_of("large", "significantly") == 3
    assert margin_of("large", "negligibly") == margin_of("none", "significantly") == margin_of("large", None) == 0
    with pytest.raises(KeyError):
        margin_of("large", "much better")


def test_ranking_hand_worked() -> None:
    loss = ranking_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0]), torch.tensor([0.0, 3.0]))
    assert loss.item() == pytest.approx(softplus(-1) + softplus(3))  # differences 1 and 0, margins 0 and 3
    assert ranking_loss(torch.zeros(4), torch.zeros(4), torch.zeros(4)).item() == pytest.approx(4 * math.log(2))


def test_ranking_gradient_and_overflow() -> None:
    chosen = torch.tensor([0.5, -1e4, 1e4], requires_grad=True)
    rejected = torch.tensor([0.0, 1e4, -1e4], requires_grad=True)
    loss = ranking_loss(chosen, rejected, torch.tensor([1.0, 0.0, 0.0]))
    assert loss.item() == pytest.approx(softplus(0.5) + 2e4)
    loss.backward()
    sigmoid = 1 / (1 + math.exp(-0.5))  # of the margin that is missing
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx([-sigmoid, -1, 0])
    assert rejected.grad.tolist() == pytest.approx([sigmoid, 1, 0])


def test_safety_hand_worked() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    labels = torch.tensor([[1.0, 0.0], [math.nan, -1.0]])
    assert safety_loss(logits, labels).item() == pytest.approx(softplus(-2) + softplus(-1))
    both_unsafe = torch.tensor([[0.0, 0.0], [-1.0, 0.0]])
    assert safety_loss(logits, both_unsafe).item() == pytest.approx(softplus(2) + softplus(-1) + softplus(3))


def test_safety_without_labels_and_overflow() -> None:
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = safety_loss(logits, torch.full((1, 2), math.nan))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0, 0]]
    assert safety_loss(logits, torch.tensor([[0.0, 1.0]])).item() == pytest.approx(2e4)
    assert safety_loss(logits, torch.tensor([[1, 0]])).item() == 0.0
