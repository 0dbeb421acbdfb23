"""Estimates of KL(policy || reference), in nats, from tokens that the policy sampled (section 6 names none).

With d = log policy(token) - log reference(token), same shapes in and out. Sum a row for the KL of whole answers.
The expectation of d over the policy's tokens is the KL itself.

What is unbiased as a figure need not be so as a reward, where it is a constant and only the policy's log-probability has a gradient:
E[k1 grad log policy] is the gradient of KL(policy || reference). E[k2 grad log policy] and E[k3 grad log policy] are of second order in
d, the latter being the gradient of KL(policy || reference) less that of KL(reference || policy): near the reference they do not pull.
"""

import torch
from torch import Tensor


def k1(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """d: unbiased, high variance, negative for single tokens."""
    return log_probs - reference_log_probs


def k2(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """d^2 / 2: never negative, low variance, biased (its expectation equals the KL to second order in d only)."""
    return (log_probs - reference_log_probs).square() / 2


def k3(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """exp(-d) - 1 + d: unbiased and never negative. Infinite where the reference is e^88 times likelier than the policy."""
    difference = log_probs - reference_log_probs
    return torch.expm1(-difference) + difference


ESTIMATES = {"k1": k1, "k2": k2, "k3": k3}
"""By name."""
