"""A cache of fixed size: every call of the model has the same shapes, whatever it holds.

B slots of W tokens. A call takes one token for each of B rows, and each row says to which slot and position its token belongs, so
decoding (row = slot) and reading (several rows are tokens of one slot) are the same arithmetic, and what a row becomes depends on
nothing but its own sequence. The attention of a row always goes over all W places, of which the later ones are masked.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .config import ModelConfig


class Slots:
    """`rows` slots of `window` tokens, to be handed to the model as its layout after `place`."""

    def __init__(self, config: ModelConfig, rows: int, window: int, device: torch.device, dtype: torch.dtype):
        self._store = torch.zeros(config.layers, 2, rows, config.kv, window, config.head_size, device=device, dtype=dtype)
        self._mask = torch.zeros(rows, 1, 1, window, device=device, dtype=dtype)  # added to scores
        self._columns = torch.arange(window, device=device)
        self._slots = torch.arange(rows, device=device)
        self.positions = torch.zeros(rows, device=device, dtype=torch.long)
        """[B] where each row's token stands inside its sequence."""
        self.apart = True
        """Whether row i belongs to slot i."""

    def place(self, slots: Sequence[int], positions: Sequence[int]) -> None:
        """Says to which slot and position the token of each row belongs. Fills the same memory each time, as CUDA graphs need."""
        self.apart = list(slots) == list(range(len(slots)))
        self._slots.copy_(torch.tensor(slots))
        self.positions.copy_(torch.tensor(positions))
        later = self._columns > self.positions[:, None]
        self._mask.copy_(torch.zeros_like(self._mask).masked_fill_(later[:, None, None], float("-inf")))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Stores k and v [B, 1, K, d] at their places and attends with q [B, 1, H, d] to all of the slot up to there."""
        keys, values = self._store[layer]
        keys[self._slots, :, self.positions], values[self._slots, :, self.positions] = k[:, 0], v[:, 0]
        if not self.apart:
            keys, values = keys.index_select(0, self._slots), values.index_select(0, self._slots)
        rows, kv, window, size = keys.shape
        queries = q.reshape(rows * kv, -1, size)
        scores = torch.bmm(queries, keys.flatten(0, 1).mT).view(rows, kv, -1, window)
        weights = torch.add(self._mask, scores, alpha=size**-0.5).softmax(-1, dtype=torch.float32).to(values.dtype)
        return torch.bmm(weights.view(rows * kv, -1, window), values.flatten(0, 1)).view(q.shape)

    def of(self, slot: int, tokens: int) -> Tensor:
        """[layers, 2, K, tokens, d] the first tokens of a slot, a copy."""
        return self._store[:, :, slot, :, :tokens].clone()

    def put(self, slot: int, seen: Tensor) -> None:
        """Lets a slot begin with what `of` gave."""
        self._store[:, :, slot, :, : seen.shape[3]] = seen
