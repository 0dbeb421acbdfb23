"""The reward model's losses (section 5): pairwise ranking with a margin by grade, and the auxiliary safety term. P pairs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .sums import masked_sum

MARGINS: dict[str, dict[str, float]] = {
    "none": {"significantly": 0.0, "better": 0.0, "slightly": 0.0, "negligibly": 0.0},
    "small": {"significantly": 1.0, "better": 2 / 3, "slightly": 1 / 3, "negligibly": 0.0},
    "large": {"significantly": 3.0, "better": 2.0, "slightly": 1.0, "negligibly": 0.0},
}
"""m(grade) by kind (table 27), in logits."""


def margin_of(kind: str, grade: str | None) -> float:
    """The margin of a grade; a pair without a grade (foreign data) has none. KeyError for an unknown kind or grade."""
    return 0.0 if grade is None else MARGINS[kind][grade]


def ranking_loss(chosen: Tensor, rejected: Tensor, margins: Tensor) -> Tensor:
    """Sum over pairs of -log sigmoid(r_chosen - r_rejected - m): logits [P], [P], margins [P] -> scalar."""
    return -F.logsigmoid(chosen.float() - rejected.float() - margins).sum()


def safety_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of binary cross-entropies of sigmoid(r) against "this answer is safe", over the answers that have a label.

    logits [P, 2] (chosen, rejected), labels [P, 2]: 1 safe, 0 unsafe, NaN or negative without label -> scalar.
    Our reading: the paper prints neither formula nor weight, but reports the recall of unsafe answers at sigmoid(r) < 0.5
    (table 29), which this loss fits. Each answer has its own term, also where both are safe or both are unsafe.
    """
    labelled = labels >= 0
    targets = torch.where(labelled, labels, torch.zeros_like(labels)).float()
    return masked_sum(F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none"), labelled)
