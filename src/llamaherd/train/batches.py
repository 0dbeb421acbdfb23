"""Token batches: documents laid end to end with their targets and loss masks, and the language loss on them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..core.seeds import python_rng
from ..losses.language import language_loss
from ..model.layout import Layout
from ..model.transformer import Transformer
from .loop import LossSum

T = TypeVar("T")

Masked = tuple[Sequence[int], Sequence[int]]
"""Ids of one document and their loss mask (1: trained)."""


@dataclass(frozen=True)
class TokenBatch:
    """N input tokens of several documents, and for each the id that follows it and whether that one is trained."""

    tokens: Tensor
    """[1, N]"""
    targets: Tensor
    """[N]"""
    trained: Tensor
    """[N] bool"""
    layout: Layout

    @classmethod
    def of(cls, documents: Sequence[Masked], device: torch.device) -> "TokenBatch":
        """Documents of at least two tokens (the last one is a target only)."""
        inputs = [token for ids, _ in documents for token in ids[:-1]]
        targets = [token for ids, _ in documents for token in ids[1:]]
        trained = [flag for _, mask in documents for flag in mask[1:]]
        assert len(targets) == len(trained), "every id has its place in the mask"
        layout = Layout.of([len(ids) - 1 for ids, _ in documents], device)
        as_tensor = torch.tensor([inputs, targets, trained], device=device)
        return cls(as_tensor[:1], as_tensor[1], as_tensor[2].bool(), layout)

    @property
    def size(self) -> int:
        return self.tokens.shape[1]

    @property
    def wanted(self) -> Tensor:
        """Indices of the tokens after which a trained id stands."""
        return self.trained.nonzero()[:, 0]

    @property
    def mean_document(self) -> float:
        """Document length that a random token stands in, for counting attention."""
        return sum(length * length for length in self.layout.lengths) / float(self.size)


def next_token_loss(model: Transformer, batch: TokenBatch) -> LossSum:
    """Sum of -log p over trained tokens; the end of the last block and the vocabulary head run on those alone."""
    hidden = model.hidden(batch.tokens, batch.layout, batch.wanted)[0]
    targets = batch.targets[batch.trained]
    total = language_loss(model.output(hidden), targets, torch.ones_like(targets))
    flops = model.config.training_flops(batch.size, batch.mean_document, len(targets), model.config.vocab_size)
    shares = {"trained_share": (float(len(targets)), float(batch.size))}
    return LossSum(total, len(targets), batch.size, flops, shares)


def epochs(count: int, batch: int, seed: int, standing: Any) -> Iterator[tuple[list[int], dict[str, int]]]:
    """Endless batches of indices below `count`: every epoch is a fresh order in which each index stands once.

    Yields (indices, where it stands afterwards); the last batch of an epoch may be short. Resuming costs one shuffle.
    """
    assert count > 0, "an epoch of nothing would never yield"
    epoch, start = (standing["epoch"], standing["start"]) if standing else (0, 0)
    while True:
        order = list(range(count))
        python_rng(seed, "epoch", epoch).shuffle(order)
        while start < count:
            indices = order[start : start + batch]
            start += batch
            done = start >= count
            yield indices, {"epoch": epoch + 1, "start": 0} if done else {"epoch": epoch, "start": start}
        epoch, start = epoch + 1, 0


def steps_in(epoch_count: float, count: int, batch: int) -> int:
    """Steps of `epoch_count` epochs (a share of one is rounded up)."""
    per_epoch = -(-count // batch)
    return max(1, -(-int(epoch_count * per_epoch * 1000) // 1000))


def split(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Consecutive parts of at most `size`: the micro-batches of a step."""
    return [items[start : start + size] for start in range(0, len(items), size)]
