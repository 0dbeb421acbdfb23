"""Rows for training: pretraining rows cut from the token stream, and dialogues fitted together."""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Sequence
from itertools import pairwise

from ..core.seeds import seed_for
from .shards import TokenShards

FEISTEL_ROUNDS = 6


def permuted(index: int, count: int, seed: int) -> int:
    """Where `index` goes in a seeded permutation of `range(count)`: no table, so any place of any epoch costs the same.

    A Feistel network permutes the next even power of two; walking on until the value is in range restricts it.
    """
    assert 0 <= index < count
    half_bits = ((count - 1).bit_length() + 1) // 2
    mask = (1 << half_bits) - 1
    while True:
        left, right = index >> half_bits, index & mask
        for turn in range(FEISTEL_ROUNDS):
            text = f"{seed}/{turn}/{right}".encode()
            left, right = right, left ^ (int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") & mask)
        index = left << half_bits | right
        if index < count:
            return index


class PretrainRows:
    """The token stream as rows of `row_tokens` predictions, in a new seeded order each epoch.

    A row holds one token more than it predicts, the next row's first, so that every token but the BOS ones is predicted
    exactly once an epoch. The last row of the stream may be shorter; it is kept.
    """

    def __init__(self, shards: TokenShards, row_tokens: int, seed: int):
        assert row_tokens >= 2, "a row of one prediction can hold nothing but the step from EOS to BOS"
        self.shards, self.row_tokens, self.seed = shards, row_tokens, seed
        self.rows_per_epoch = -(-(shards.tokens - 1) // row_tokens)

    def row(self, index: int) -> list[list[int]]:
        """The pieces of documents in row `index` (counted on over epochs), each to be read without sight of the others.

        In a piece of n tokens the last n - 1 are predicted; a piece of one token would predict nothing and is left out.
        """
        epoch, place = divmod(index, self.rows_per_epoch)
        start = permuted(place, self.rows_per_epoch, seed_for(self.seed, "rows", epoch)) * self.row_tokens
        ids = self.shards.read(start, min(self.row_tokens + 1, self.shards.tokens - start)).tolist()
        borders = [0, *(at for at, id in enumerate(ids) if at and id == self.shards.bos_id), len(ids)]
        return [ids[a:b] for a, b in pairwise(borders) if b - a > 1]


def pack(lengths: Sequence[int], row_tokens: int) -> tuple[list[list[int]], list[int]]:
    """Best-fit-decreasing packing: (rows of indices into `lengths`, indices longer than a row, for the caller to count).

    The longest item is placed first, always in the row it fills best. Rows come in the order of their first index.
    """
    too_long = [index for index, length in enumerate(lengths) if length > row_tokens]
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for index in sorted((i for i, length in enumerate(lengths) if length <= row_tokens), key=lambda i: (-lengths[i], i)):
        at = bisect_left(free, (lengths[index], -1))
        if at < len(free):
            space, row = free.pop(at)
        else:
            space, row = row_tokens, len(rows)
            rows.append([])
        rows[row].append(index)
        if space > lengths[index]:
            insort(free, (space - lengths[index], row))
    return sorted(sorted(row) for row in rows), too_long
