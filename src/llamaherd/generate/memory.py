"""What a model has read and said, so that of a prompt that begins alike only the rest is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

MOST_BYTES = 2 << 30
"""Beyond, what was used longest ago is forgotten."""
BLOCK_TOKENS = 8
"""Beginnings are found if they agree in so many tokens, and then used to the token."""
Key = tuple[str, tuple[int, ...]]
"""Owner and ids."""


@dataclass(frozen=True)
class Known:
    """`ids` of one sequence and what one model made of them: keys and values [layers, 2, K, tokens, d]."""

    ids: tuple[int, ...]
    seen: Tensor
    owner: str = ""


class Memory:
    """Sequences of one model, found by how they begin, by none but their owner: so nobody sees, or feels by the time that it takes,
    what others wrote.
    """

    def __init__(self, most_bytes: int = MOST_BYTES):
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: dict[Key, Known] = {}  # in the order of their last use
        self._beginnings: dict[int, dict[Key, None]] = {}  # hash of a beginning -> sequences that have it

    def keep(self, ids: Sequence[int], seen: Tensor, owner: str = "") -> None:
        """Remembers a sequence, in place of what is wholly a beginning of it; one shorter than a block would never be found."""
        whole = tuple(ids)
        if len(whole) < BLOCK_TOKENS:
            return
        if (owner, whole) in self._known:
            self._known[owner, whole] = self._known.pop((owner, whole))
            return
        found = self.find(whole, owner)
        while found and found[1] == len(found[0].ids) < len(whole):
            self._forget((owner, found[0].ids))
            found = self.find(whole, owner)
        if (found and found[1] == len(whole)) or seen.nbytes > self._most_bytes:
            return
        while self._bytes + seen.nbytes > self._most_bytes:
            self._forget(next(iter(self._known)))
        self._known[owner, whole] = Known(whole, seen, owner)
        self._bytes += seen.nbytes
        for beginning in _beginnings((owner, whole)):
            self._beginnings.setdefault(beginning, {})[owner, whole] = None

    def find(self, ids: Sequence[int], owner: str = "") -> tuple[Known, int] | None:
        """A sequence of this owner that begins as `ids` do, the one that does so longest, and for how many tokens."""
        whole = tuple(ids)
        for beginning in reversed(list(_beginnings((owner, whole)))):
            if beginning in self._beginnings:
                key = next(reversed(self._beginnings[beginning]))
                known = self._known[key]
                length = common(known.ids, whole)
                if known.owner == owner and length >= BLOCK_TOKENS:  # else another beginning with the same hash
                    self._known[key] = self._known.pop(key)
                    return known, length
        return None

    def _forget(self, key: Key) -> None:
        self._bytes -= self._known.pop(key).seen.nbytes
        for beginning in _beginnings(key):
            del self._beginnings[beginning][key]
            if not self._beginnings[beginning]:
                del self._beginnings[beginning]


def _beginnings(key: Key) -> Iterator[int]:
    """A hash of every beginning of whole blocks, the shortest first; each owner has its own."""
    owner, ids = key
    value = hash(owner)
    for start in range(0, len(ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        value = hash((value, ids[start : start + BLOCK_TOKENS]))
        yield value


def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many ids two sequences begin with alike."""
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return place
    return min(len(one), len(other))
