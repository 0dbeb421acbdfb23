"""What a model has read and said in dialogues that go on, so that of the next prompt only the end is read."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model.cache import Cache

MOST_BYTES = 2 << 30
"""Dialogues beyond are not remembered, and read from their beginning."""


class Memory:
    """Ids of dialogues with the keys and values that one model made of them, each under a name of the caller's."""

    def __init__(self, most_bytes: int = MOST_BYTES):
        self._most_bytes = most_bytes
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, name: int, ids: Sequence[int], cache: Cache, place: int) -> None:
        """Remembers the sequence at `place` of the cache, of which `ids` are what the model has seen, in place of what it knew."""
        self._known.pop(name, None)
        seen = cache.of(place)
        if seen.nbytes + sum(known.nbytes for _, known in self._known.values()) <= self._most_bytes:
            self._known[name] = (torch.tensor(ids), seen)

    def recall(self, names: Sequence[int], prompts: Sequence[Sequence[int]], cache: Cache) -> int | None:
        """Puts what is known of every prompt into the cache, all but its last T tokens; returns T, or None if all are to be read whole."""
        unread = max(1, *(len(prompt) - self._common(name, prompt) for name, prompt in zip(names, prompts, strict=True)))
        if unread >= min(map(len, prompts)):
            return None
        for place, (name, prompt) in enumerate(zip(names, prompts, strict=True)):
            cache.put(place, self._known[name][1][..., : len(prompt) - unread, :])
        return unread

    def _common(self, name: int, prompt: Sequence[int]) -> int:
        """How many ids the prompt and what is known under this name begin with alike."""
        if name not in self._known:
            return 0
        ids = self._known[name][0]
        length = min(len(ids), len(prompt))
        differs = (ids[:length] != torch.tensor(prompt[:length])).nonzero()
        return int(differs[0]) if len(differs) else length
