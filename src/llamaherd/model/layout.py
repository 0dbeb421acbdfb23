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

from .rectangles import rectangles


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
    def _rectangles(self) -> tuple[list[tuple[int, int]], Tensor, Tensor]:
        """Shapes (documents, longest) of rectangles, for each of their cells a token, and for each token its cell."""
        starts = [0]
        for length in self.lengths:
            starts.append(starts[-1] + length)
        shapes, tokens, cells, filled = [], [], torch.empty(starts[-1], dtype=torch.long), 0
        for group in rectangles(self.lengths):
            shapes.append((len(group), self.lengths[group[0]]))
            first = torch.tensor([starts[document] for document in group])[:, None]
            size = torch.tensor([self.lengths[document] for document in group])[:, None]
            column = torch.arange(shapes[-1][1])[None, :]
            inside = column < size
            index = torch.where(inside, first + column, first)
            cells[index[inside]] = filled + torch.arange(inside.numel()).reshape(inside.shape)[inside]
            tokens.append(index.flatten())
            filled += inside.numel()
        return shapes, torch.cat(tokens).to(self.device), cells.to(self.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention inside each document, alike in every layer. q [B, T, H, d], k and v [B, T, K, d] of B * T = N tokens."""
        shapes, tokens, cells = self._rectangles
        if len(shapes) == 1 and len(tokens) == len(cells):  # all equally long
            return causal_attention(*(x.reshape(*shapes[0], *x.shape[2:]) for x in (q, k, v))).reshape(q.shape)
        sizes = [documents * longest for documents, longest in shapes]
        inputs = zip(shapes, *(torch.split(x.flatten(0, 1).index_select(0, tokens), sizes) for x in (q, k, v)), strict=True)
        outputs = [causal_attention(*(x.view(*shape, *x.shape[1:]) for x in qkv)).flatten(0, 1) for shape, *qkv in inputs]
        return torch.cat(outputs).index_select(0, cells).view(q.shape)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token sees itself and those before it. q [B, T, H, d], k and v [B, T, K, d] -> [B, T, H, d]."""
    return scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=q.shape[2] != k.shape[2]
    ).transpose(1, 2)
