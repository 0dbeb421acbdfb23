import math

import pytest
import torch

from llamaherd.losses.sums import masked_count, masked_mean, masked_sum, masked_variance, whiten


def test_hand_worked() -> None:
    values, mask = torch.tensor([1.0, 3.0, 100.0]), torch.tensor([1, 1, 0])
    assert masked_sum(values, mask).item() == 4.0
    assert masked_mean(values, mask).item() == 2.0
    assert masked_variance(values, mask).item() == 1.0
    assert masked_count(values, mask).item() == 2.0
    assert masked_mean(values).item() == pytest.approx(104 / 3)


def test_what_the_mask_hides_does_not_matter() -> None:
    values = torch.tensor([2.0, math.nan, math.inf, 6.0], requires_grad=True)
    mask = torch.tensor([True, False, False, True])
    assert masked_mean(values, mask).item() == 4.0
    assert whiten(values, mask).tolist() == pytest.approx([-1, 0, 0, 1], abs=1e-6)
    masked_sum(values, mask).backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1, 0, 0, 1]


def test_empty_mask_gives_zero() -> None:
    values, mask = torch.randn(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    assert masked_sum(values, mask).item() == 0.0
    assert masked_mean(values, mask).item() == 0.0
    assert whiten(values, mask).abs().max().item() == 0.0
    assert masked_mean(torch.zeros(0)).item() == 0.0


def test_whiten() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    scale = math.sqrt(3.5)  # mean 3, squared deviations 4 + 1 + 0 + 9 = 14, over 4
    assert whiten(values).tolist() == pytest.approx([-2 / scale, -1 / scale, 0, 3 / scale], abs=1e-6)
    assert whiten(values, shift_mean=False).tolist() == pytest.approx([3 - 2 / scale, 3 - 1 / scale, 3, 3 + 3 / scale], abs=1e-6)
    assert whiten(torch.full((5,), 0.1)).abs().max().item() < 1e-3
    assert whiten(torch.tensor([7.0])).item() == 0.0
