"""The language-model loss of pretraining and supervised fine-tuning (sections 2 and 3). N rows of logits, V vocabulary."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .sums import masked_sum

BLOCK_ELEMENTS = 2**25
"""Logits turned into float32 at a time, which bounds the extra memory when no gradient is needed."""


def token_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """log p(target) of each row, in nats: logits [N, V] of any float type, targets [N] -> [N] in float32."""
    rows = max(1, BLOCK_ELEMENTS // logits.shape[-1])
    blocks = zip(torch.split(logits, rows), torch.split(targets, rows))
    return torch.cat([-F.cross_entropy(block.float(), wanted, reduction="none") for block, wanted in blocks])


def picked(log_probs: Tensor, targets: Tensor) -> Tensor:
    """[N] of log-probabilities [N, V] those of the targets [N], to the bit those of `token_log_probs`."""
    return -F.nll_loss(log_probs, targets, reduction="none")


def language_loss(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Sum over trained tokens of -log p(target), in nats: logits [N, V], targets [N], mask [N] (1 = trained) -> scalar.

    In fine-tuning the mask is 1 on answers only (section 3). Every target, masked or not, must be below V.
    """
    return -masked_sum(token_log_probs(logits, targets), mask)
