"""Keys and values of tokens already seen: handed to the model with each call, owned by whoever generates."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .config import ModelConfig
from .layout import Layout

BLOCK_ROWS = 32
"""Sequences that attend together, over as many slots as the longest of them has: few enough that short ones gain."""


class Cache:
    """B sequences of which each call of the model is the next token: what came before, and room for more.

    What came before, `lengths` tokens, ends at the same slot, padded on the left, so that all sequences grow at the same
    place. The model reads it first: `Trunk.read` with `prompts`. It is fastest when they stand in the order of their lengths.
    """

    def __init__(self, config: ModelConfig, lengths: Sequence[int], room: int, device: torch.device, dtype: torch.dtype):
        self.length = max(lengths)
        shape = (config.layers, 2, len(lengths), config.kv, self.length + room, config.head_size)
        self._all_rows = self._store = torch.zeros(shape, device=device, dtype=dtype)
        self._starts = [self.length - length for length in lengths]
        self._all_masks = self._mask = self._padding(shape[4])

    def _padding(self, slots: int) -> Tensor:
        """[B, K, 1, slots], added to scores: minus infinity before a sequence's start."""
        kv, device = self._store.shape[3], self._store.device
        padding = torch.arange(slots, device=device) < torch.tensor(self._starts, device=device)[:, None]
        mask = torch.zeros(padding.shape, device=device, dtype=self._store.dtype).masked_fill_(padding, float("-inf"))
        return mask[:, None, None].repeat(1, kv, 1, 1)

    @property
    def positions(self) -> Tensor:
        """[B] position of the next token inside each sequence."""
        return self.length - torch.tensor(self._starts, device=self._store.device)

    def prompts(self, layout: Layout, documents: Tensor, rows: Tensor) -> "Prompts":
        """Where the model reads packed prompts: sequence rows[i] begins with document documents[i] of `layout`."""
        return Prompts(self._store[..., : self.length, :], layout, documents, rows)

    def ends(self, tokens: int) -> "Ends":
        """Where the model reads the last `tokens` of every sequence, of which what stands before was `put` there."""
        return Ends(self._store[..., : self.length, :], self._mask[..., : self.length], self.positions, tokens)

    def piece(self, row: int, first: int, tokens: int) -> "Ends":
        """Where the model reads `tokens` of sequence `row` alone, of which the `first` ones are there."""
        start = self._starts[row]
        store = self._store[:, :, row : row + 1, :, start : start + first + tokens]
        seen = torch.zeros(1, store.shape[3], 1, store.shape[4], device=store.device, dtype=store.dtype)
        return Ends(store, seen, torch.tensor([first + tokens], device=store.device), tokens)

    def of(self, row: int) -> Tensor:
        """[layers, 2, K, tokens, d] what sequence `row` has so far, a copy."""
        return self._store[:, :, row, :, self._starts[row] : self.length].clone()

    def put(self, row: int, seen: Tensor) -> None:
        """Lets sequence `row` begin with what `of` gave."""
        self._store[:, :, row, :, self._starts[row] : self._starts[row] + seen.shape[3]] = seen

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Stores k and v [B, 1, K, d] of one token and attends with q [B, 1, H, d] to all so far."""
        keys, values = self._store[layer]
        assert self.length < keys.shape[2], f"cache of {self.length} slots is full"
        keys[:, :, self.length], values[:, :, self.length] = k[:, 0], v[:, 0]
        # Query heads that share keys are rows of one product: that reads each key once, where a general kernel repeats it.
        queries = q.reshape(-1, q.shape[2] // k.shape[2], q.shape[3])
        outputs = [self._attend(queries, keys, values, first) for first in range(0, len(q), BLOCK_ROWS)]
        if layer == len(self._store) - 1:
            self.length += 1
        return (torch.cat(outputs) if len(outputs) > 1 else outputs[0]).view(q.shape)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, first: int) -> Tensor:
        """[rows * K, H / K, d] for the block of sequences from `first` on, over the slots that one of them has."""
        heads = keys.shape[1]
        rows, slots = slice(first, first + BLOCK_ROWS), slice(min(self._starts[first : first + BLOCK_ROWS]), self.length + 1)
        block = slice(first * heads, (first + BLOCK_ROWS) * heads)
        scores = torch.bmm(queries[block], keys[rows, :, slots].flatten(0, 1).mT)
        scores = torch.add(self._mask[rows, :, :, slots].flatten(0, 1), scores, alpha=queries.shape[2] ** -0.5)
        return torch.bmm(scores.softmax(-1, dtype=torch.float32).to(values.dtype), values[rows, :, slots].flatten(0, 1))

    def keep(self, rows: Sequence[int]) -> None:
        """Sequence i becomes what sequence rows[i] was, the others leave; those that stay where they are cost nothing."""
        moved = [row for row, source in enumerate(rows) if source != row]
        if moved:
            source = [rows[row] for row in moved]
            filled = self._store[..., min(self._starts) : self.length, :]
            filled[:, :, moved] = filled[:, :, source]
            self._mask[moved] = self._mask[source]
        self._store, self._mask = self._store[:, :, : len(rows)], self._mask[: len(rows)]
        self._starts = [self._starts[row] for row in rows]

    @property
    def full(self) -> bool:
        """Whether there is no room for another token."""
        return self.length == self._store.shape[4]

    def grow(self, room: int) -> None:
        """Makes room for more tokens."""
        self._move(len(self._starts), self.length - min(self._starts), room)

    def join(self, other: "Cache", room: int, rows: int = 0) -> None:
        """Sequences of `other` follow those that are here, which all have `room` for more tokens then. Where new memory is needed for
        that, there is some for as many as `rows` sequences.
        """
        here, there, start = len(self._starts), len(other._starts), min(other._starts)
        span = other.length - start
        if here + there > self._all_rows.shape[2] or span > self.length or self.length + room > self._all_rows.shape[4]:
            self._move(max(rows, here + there), max(span, self.length - min(self._starts)), room)
        new, slots = slice(here, here + there), slice(self.length - span, self.length)
        self._all_rows[:, :, new, :, slots] = other._store[..., start : other.length, :]
        self._store = self._all_rows[:, :, : here + there]
        self._starts += [self.length - other.length + begin for begin in other._starts]
        self._mask = self._all_masks[: here + there]
        self._mask[here:] = self._padding(self._all_masks.shape[3])[here:]

    def _move(self, rows: int, length: int, room: int) -> None:
        """Into new memory, in which all end at slot `length`; some is to spare, so that this happens rarely."""
        layers, two, had, kv, _, size = self._all_rows.shape
        more, spare = max(rows, had), max(room, length)
        store = torch.zeros(layers, two, more, kv, length + room + spare, size, device=self._store.device, dtype=self._store.dtype)
        span, here = self.length - min(self._starts), len(self._starts)
        store[:, :, :here, :, length - span : length] = self._store[..., self.length - span : self.length, :]
        self._starts = [start + length - self.length for start in self._starts]
        self.length, self._all_rows, self._store = length, store, store[:, :, :here]
        self._all_masks = torch.zeros(more, kv, 1, store.shape[4], device=store.device, dtype=store.dtype)
        self._mask = self._all_masks[:here]
        self._mask.copy_(self._padding(store.shape[4]))


class Prompts:
    """The layout of prompts on their way into a cache: they attend among themselves, and it keeps their keys and values."""

    def __init__(self, store: Tensor, layout: Layout, documents: Tensor, rows: Tensor):
        self._layout, self._rows = layout, rows
        self._store = store[..., store.shape[4] - max(layout.lengths) :, :]
        # Slots before a prompt take what stands before it: they are never seen, but must hold numbers.
        backwards = torch.arange(max(layout.lengths) - 1, -1, -1, device=rows.device)
        self._source = (layout.ends[documents, None] - backwards).clamp(min=0)

    @property
    def positions(self) -> Tensor:
        return self._layout.positions

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.keep(layer, k, v)
        return self._layout.attend(layer, q, k, v)

    def keep(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Stores k and v [1, N, K, d] of the packed prompts for the sequences that begin with them."""
        for store, new in zip(self._store[layer], (k, v), strict=True):
            store[self._rows] = new[0, self._source].transpose(1, 2)


class Ends:
    """The layout of the last T tokens [B, T] of sequences on their way into a cache: they attend to all before them."""

    def __init__(self, store: Tensor, mask: Tensor, lengths: Tensor, tokens: int):
        self._store, self._tokens = store, tokens
        after = torch.ones(tokens, tokens, device=store.device, dtype=torch.bool).triu(1)
        future = torch.zeros(tokens, store.shape[4], device=store.device, dtype=store.dtype)
        future[:, store.shape[4] - tokens :].masked_fill_(after, float("-inf"))
        self._mask = mask + future  # [B, K, T, slots]
        self._positions = lengths[:, None] - torch.arange(tokens, 0, -1, device=store.device)

    @property
    def positions(self) -> Tensor:
        return self._positions

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Stores k and v [B, T, K, d] and attends with q [B, T, H, d]."""
        self.keep(layer, k, v)
        keys, values = (x.flatten(0, 1) for x in self._store[layer])
        batch, tokens, _, size = q.shape
        queries = q.reshape(batch, tokens, k.shape[2], -1, size).transpose(1, 2).reshape(len(keys), -1, size)
        scores = torch.bmm(queries, keys.mT).view(len(keys), tokens, -1, keys.shape[1])
        scores = torch.add(self._mask.flatten(0, 1)[:, :, None], scores, alpha=size**-0.5)
        mixed = torch.bmm(scores.softmax(-1, dtype=torch.float32).to(values.dtype).view(len(keys), -1, keys.shape[1]), values)
        return mixed.view(batch, k.shape[2], tokens, -1, size).transpose(1, 2).reshape(q.shape)

    def keep(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Stores k and v [B, T, K, d]."""
        for store, new in zip(self._store[layer], (k, v), strict=True):
            store[:, :, store.shape[2] - self._tokens :] = new.transpose(1, 2)
