import math

import pytest
import torch

from llamaherd.losses.kl import k1, k2, k3

POLICY, REFERENCE = torch.tensor([0.9, 0.1], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)


def test_hand_worked() -> None:
    log_probs, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert k1(log_probs, reference).item() == pytest.approx(math.log(2))
    assert k2(log_probs, reference).item() == pytest.approx(math.log(2) ** 2 / 2)
    assert k3(log_probs, reference).item() == pytest.approx(math.log(2) - 0.5)
    assert k3(reference, log_probs).item() == pytest.approx(1 - math.log(2))


def test_bias_in_exact_expectation() -> None:
    exact = (POLICY * (POLICY / REFERENCE).log()).sum().item()
    expected = {estimate: (POLICY * estimate(POLICY.log(), REFERENCE.log())).sum().item() for estimate in (k1, k2, k3)}
    assert expected[k1] == pytest.approx(exact)
    assert expected[k3] == pytest.approx(exact)
    assert abs(expected[k2] - exact) > 0.1 * exact
    assert (k2(POLICY.log(), REFERENCE.log()) >= 0).all()
    assert (k3(POLICY.log(), REFERENCE.log()) >= 0).all()
    assert (k1(POLICY.log(), REFERENCE.log()) < 0).any()


def test_equal_policies_are_zero_nats_apart() -> None:
    log_probs = torch.tensor([-1e4, -3.0, 0.0])
    for estimate in (k1, k2, k3):
        assert estimate(log_probs, log_probs).tolist() == [0, 0, 0]
