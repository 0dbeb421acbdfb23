"""The reward model's losses (section 5): pairwise ranking with a margin by grade, and the auxiliary safety term. P pairs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .sums import masked_sum


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
