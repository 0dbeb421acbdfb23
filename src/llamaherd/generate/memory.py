"""What a model has read and said, so that of a prompt that begins alike only the rest is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

MOST_BYTES = 2 << 30
"""Beyond, what was used longest ago is forgotten."""
BLOCK_TOKENS = 8
"""Beginnings are found if they agree in so many tokens, and then used to the token."""


@dataclass(frozen=True)
class Known:
    """`ids` of one sequence and what one model made of them: keys and values [layers, 2, K, tokens, d]."""

    ids: tuple[int, ...]
    seen: Tensor


class Memory:
    """Sequences of one model, found by how they begin."""

    def __init__(self, most_bytes: int = MOST_BYTES):
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: dict[tuple[int, ...], Known] = {}  # in the order of their last use
        self._beginnings: dict[int, dict[tuple[int, ...], None]] = {}  # hash of a beginning -> sequences that have it

    def keep(self, ids: Sequence[int], seen: Tensor) -> None:
        """Remembers a sequence, in place of what is wholly a beginning of it."""
        whole = tuple(ids)
        found = self.find(whole)
        while found and found[1] == len(found[0].ids) < len(whole):
            self._forget(found[0].ids)
            found = self.find(whole)
        if (found and found[1] == len(whole)) or seen.nbytes > self._most_bytes:
            return
        while self._bytes + seen.nbytes > self._most_bytes:
            self._forget(next(iter(self._known)))
        self._known[whole] = Known(whole, seen)
        self._bytes += seen.nbytes
        for beginning in _beginnings(whole):
            self._beginnings.setdefault(beginning, {})[whole] = None

    def find(self, ids: Sequence[int]) -> tuple[Known, int] | None:
        """A sequence that begins as `ids` do, the one that does so longest, and for how many tokens."""
        whole = tuple(ids)
        for beginning in reversed(list(_beginnings(whole))):
            if beginning in self._beginnings:
                known = self._known[next(reversed(self._beginnings[beginning]))]
                length = common(known.ids, whole)
                if length >= BLOCK_TOKENS:  # else another beginning with the same hash
                    self._known[known.ids] = self._known.pop(known.ids)
                    return known, length
        return None

    def _forget(self, ids: tuple[int, ...]) -> None:
        self._bytes -= self._known.pop(ids).seen.nbytes
        for beginning in _beginnings(ids):
            del self._beginnings[beginning][ids]
            if not self._beginnings[beginning]:
                del self._beginnings[beginning]


def _beginnings(ids: tuple[int, ...]) -> Iterator[int]:
    """A hash of every beginning of whole blocks, the shortest first."""
    value = 0
    for start in range(0, len(ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        value = hash((value, ids[start : start + BLOCK_TOKENS]))
        yield value


def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many ids two sequences begin with alike."""
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return place
    return min(len(one), len(other))
