"""Texts that begin alike, read once: a trunk of tokens, and branches after it that see the trunk and themselves, not each other.

N tokens of all trees stand back to back in one flat run: a tree's trunk, then its branches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .rectangles import rectangles

Tree = tuple[int, ...]
"""Tokens of the trunk (at least one), then of each branch (may be none)."""


@dataclass(frozen=True)
class Branches:
    """What `Transformer.hidden` needs to know of several trees, in place of a Layout."""

    trees: tuple[Tree, ...]
    device: torch.device

    @classmethod
    def of(cls, trees: Sequence[Tree], device: torch.device | str = "cpu") -> "Branches":
        assert trees, "a batch without a tree"
        assert all(tree[0] > 0 and min(tree) >= 0 for tree in trees), "every tree has a trunk"
        return cls(tuple(trees), torch.device(device))

    @cached_property
    def positions(self) -> Tensor:
        """[N] position of each token in its text: every branch goes on where the trunk ends."""
        trunks_and_branches = [
            run
            for trunk, *branches in self.trees
            for run in (torch.arange(trunk), *(torch.arange(trunk, trunk + size) for size in branches))
        ]
        return torch.cat(trunks_and_branches).to(self.device)

    @cached_property
    def _rectangles(self) -> tuple[list[tuple[tuple[int, int], Tensor, Tensor]], Tensor]:
        """Trees of similar size together: (trees, longest), for each cell a token [trees * longest], who sees whom [trees, 1, T, T].

        And for each of the N tokens its cell among those of all rectangles.
        """
        sizes = [sum(tree) for tree in self.trees]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + size)
        found, cells, filled = [], torch.empty(starts[-1], dtype=torch.long), 0
        for group in rectangles(sizes):
            shape = len(group), sizes[group[0]]
            column = torch.arange(shape[1])[None, :]
            first, size_of = (torch.tensor([values[tree] for tree in group])[:, None] for values in (starts, sizes))
            inside = column < size_of
            tokens = torch.where(inside, first + column, first)
            cells[tokens[inside]] = filled + torch.arange(inside.numel()).view(inside.shape)[inside]
            filled += inside.numel()
            parts = torch.stack([self._parts(tree, shape[1]) for tree in group])
            seen = (parts[:, :, None] == parts[:, None, :]) | (parts[:, None, :] == 0)
            found.append((shape, tokens.flatten().to(self.device), seen.tril()[:, None].to(self.device)))
        return found, cells.to(self.device)

    def _parts(self, tree: int, longest: int) -> Tensor:
        """[longest] the part of a tree that each cell of its row belongs to: 0 the trunk, then the branches, then what fills the row up."""
        sizes = self.trees[tree]
        lengths = torch.tensor([*sizes, longest - sum(sizes)])
        return torch.arange(len(lengths)).repeat_interleave(lengths)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention inside each tree, alike in every layer. q [B, T, H, d], k and v [B, T, K, d] of B * T = N tokens."""
        (groups, cells), outputs = self._rectangles, []
        for shape, tokens, seen in groups:
            queries, keys, values = (x.flatten(0, 1).index_select(0, tokens).view(*shape, *x.shape[2:]).transpose(1, 2) for x in (q, k, v))
            attended = scaled_dot_product_attention(queries, keys, values, attn_mask=seen, enable_gqa=q.shape[2] != k.shape[2])
            outputs.append(attended.transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs).index_select(0, cells).view(q.shape)
