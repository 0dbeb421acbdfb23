"""Documents laid end to end: who may attend to whom, and where each one ends.

A batch is one flat run of N tokens, so no linear layer ever multiplies padding. Attention alone needs rectangles:
documents of similar length are gathered into right-padded ones, where the causal mask already hides the padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Layout:
    """`lengths` of documents that stand back to back in one flat run of N = sum(lengths) tokens."""

    lengths: tuple[int, ...]
    device: torch.device

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> "Layout":
        assert min(lengths, default=0) > 0, "a layout needs documents, and none of them empty"
        return cls(tuple(lengths), torch.device(device))

    @cached_property
    def ends(self) -> Tensor:
        """[documents] index of each document's last token."""
        return torch.tensor(self.lengths, device=self.device).cumsum(0) - 1

    @cached_property
    def positions(self) -> Tensor:
        """[N] position of each token inside its document."""
        lengths = torch.tensor(self.lengths, device=self.device)
        starts = lengths.cumsum(0) - lengths
        return torch.arange(sum(self.lengths), device=self.device) - starts.repeat_interleave(lengths)

    @cached_property
    def _rectangles(self) -> tuple[list[Tensor], Tensor]:
        """Index rectangles [documents, longest] into the flat run, and for each token its place among their cells."""
        starts = [0]
        for length in self.lengths:
            starts.append(starts[-1] + length)
        longest_first = sorted(range(len(self.lengths)), key=lambda document: -self.lengths[document])
        groups: list[list[int]] = []
        for document in longest_first:
            # Less than half of a rectangle is padding when its shortest document is over half its longest.
            if groups and self.lengths[document] * 2 > self.lengths[groups[-1][0]]:
                groups[-1].append(document)
            else:
                groups.append([document])
        rectangles, place, cells = [], torch.empty(starts[-1], dtype=torch.long), 0
        for group in groups:
            width = self.lengths[group[0]]
            first = torch.tensor([starts[document] for document in group])[:, None]
            size = torch.tensor([self.lengths[document] for document in group])[:, None]
            column = torch.arange(width)[None, :]
            inside = column < size
            index = torch.where(inside, first + column, first)
            place[index[inside]] = cells + torch.arange(inside.numel()).reshape(inside.shape)[inside]
            rectangles.append(index.to(self.device))
            cells += inside.numel()
        return rectangles, place.to(self.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention inside each document, alike in every layer. q [B, T, H, d], k and v [B, T, K, d] of B * T = N tokens."""
        documents, longest = len(self.lengths), max(self.lengths)
        if documents * longest == sum(self.lengths):  # all equally long
            return causal_attention(*(x.reshape(documents, longest, *x.shape[2:]) for x in (q, k, v))).reshape(q.shape)
        rectangles, place = self._rectangles
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
        outputs = [causal_attention(q[index], k[index], v[index]).flatten(0, 1) for index in rectangles]  # each [cells, H, d]
        return torch.cat(outputs)[place][None]


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token sees itself and those before it. q [B, T, H, d], k and v [B, T, K, d] -> [B, T, H, d]."""
    return scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=q.shape[2] != k.shape[2]
    ).transpose(1, 2)
