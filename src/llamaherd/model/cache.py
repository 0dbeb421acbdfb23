"""Keys and values of tokens already seen: handed to the model with each call, owned by whoever generates."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .config import ModelConfig


class Cache:
    """Room for `capacity` tokens of B sequences that are padded on the left, so that all of them grow at the same place.

    `starts` [B] is the first real slot of each sequence; positions count from there.
    """

    def __init__(self, config: ModelConfig, starts: Sequence[int], capacity: int, device: torch.device, dtype: torch.dtype):
        shape = (config.layers, 2, len(starts), config.kv, capacity, config.head_size)
        self.store = torch.empty(shape, device=device, dtype=dtype)
        self.starts = torch.tensor(list(starts), device=device)
        self.length = 0

    @property
    def capacity(self) -> int:
        return self.store.shape[4]

    def positions(self, tokens: int) -> Tensor:
        """[B, tokens] positions of the next tokens inside their sequences (padding stands at 0)."""
        slots = torch.arange(self.length, self.length + tokens, device=self.starts.device)
        return (slots[None, :] - self.starts[:, None]).clamp(min=0)

    def mask(self, tokens: int) -> Tensor:
        """[B, 1, tokens, length + tokens] which slots each new token sees; padding sees itself, lest its softmax be empty."""
        total = self.length + tokens
        keys = torch.arange(total, device=self.starts.device)
        queries = keys[self.length :, None]
        seen = (keys <= queries)[None] & (keys >= self.starts[:, None, None])
        return (seen | (keys == queries)[None])[:, None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Stores k and v of the new tokens in `layer` and attends to all so far. Shapes as in causal_attention."""
        end = self.length + q.shape[1]
        assert end <= self.capacity, f"cache of {self.capacity} slots asked for {end}"
        keys, values = self.store[layer, 0, :, :, :end], self.store[layer, 1, :, :, :end]
        keys[:, :, self.length :] = k.transpose(1, 2)
        values[:, :, self.length :] = v.transpose(1, 2)
        gqa = q.shape[2] != k.shape[2]
        return scaled_dot_product_attention(q.transpose(1, 2), keys, values, attn_mask=mask, enable_gqa=gqa).transpose(1, 2)

    def keep(self, rows: Tensor) -> None:
        """Keeps these sequences only (finished ones leave the batch)."""
        self.store = self.store[:, :, rows]
        self.starts = self.starts[rows]
