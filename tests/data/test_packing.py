from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.data.packing import PretrainRows, pack, permuted
from llamaherd.data.shards import TokenShards, write_shards

BOS, EOS = 1, 2


def rows_of(folder, documents, row_tokens, seed=0, shard_tokens=7):
    arrays = [np.array([BOS, *document, EOS], "uint16") for document in documents]
    write_shards(folder, arrays, shard_tokens=shard_tokens, dtype="uint16", bos_id=BOS, tokenizer_sha256="")
    return PretrainRows(TokenShards(folder), row_tokens, seed)


@given(st.integers(1, 300), st.integers(0, 2**63 - 1))
def test_permuted_is_a_permutation(count, seed):
    assert sorted(permuted(index, count, seed) for index in range(count)) == list(range(count))


def test_every_place_is_about_equally_likely():
    places = Counter(permuted(3, 8, seed) for seed in range(4000))
    assert all(400 < places[place] < 600 for place in range(8))  # 500 expected, standard deviation 21


def test_rows_by_hand(tmp_path):
    # 1 5 6 7 2 1 8 2: rows of 3 predictions start at 0, 3 and 6.
    rows = rows_of(tmp_path, [[5, 6, 7], [8]], row_tokens=3)
    assert rows.rows_per_epoch == 3
    assert sorted(rows.row(index) for index in range(3)) == [[[1, 5, 6, 7]], [[7, 2], [1, 8]], [[8, 2]]]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.integers(2, 20), st.integers(0, 10**6))
def test_every_token_but_bos_is_predicted_once_an_epoch_after_its_own_past(tmp_path_factory, lengths, row_tokens, seed):
    names = iter(range(10, 1 << 16))
    documents = [[next(names) for _ in range(length)] for length in lengths]
    rows = rows_of(tmp_path_factory.mktemp("rows"), documents, row_tokens, seed)
    steps = Counter(step for document in documents for step in pairwise([BOS, *document, EOS]))
    for epoch in range(2):
        found: Counter[tuple[int, int]] = Counter()
        for index in range(epoch * rows.rows_per_epoch, (epoch + 1) * rows.rows_per_epoch):
            pieces = rows.row(index)
            assert sum(len(piece) for piece in pieces) <= row_tokens + 1
            for piece in pieces:
                assert BOS not in piece[1:]
                found.update(pairwise(piece))
        assert found == steps


def test_a_row_depends_on_its_index_alone(tmp_path):
    rows = rows_of(tmp_path, [list(range(10, 200))], row_tokens=4, seed=5)
    forwards = [rows.row(index) for index in range(150)]
    again = PretrainRows(TokenShards(tmp_path), 4, 5)
    assert [again.row(index) for index in reversed(range(150))] == forwards[::-1]
    assert again.row(10**12)
    first, second = forwards[: rows.rows_per_epoch], forwards[rows.rows_per_epoch : 2 * rows.rows_per_epoch]
    assert first != second
    assert sorted(first) == sorted(second)
    assert first != [PretrainRows(TokenShards(tmp_path), 4, 6).row(index) for index in range(rows.rows_per_epoch)]


def test_pack_by_hand():
    # 7 takes a row, 5 the next; 3 fits beside 7 or 5 and goes where it leaves less; 4 beside 5; 11 is too long.
    assert pack([3, 11, 5, 7, 4], 10) == ([[0, 3], [2, 4]], [1])
    assert pack([], 10) == ([], [])
    assert pack([10, 10], 10) == ([[0], [1]], [])


@given(st.lists(st.integers(1, 40), max_size=80), st.integers(1, 30))
def test_pack_loses_nothing_and_overfills_nothing(lengths, row_tokens):
    rows, too_long = pack(lengths, row_tokens)
    assert sorted([*too_long, *(index for row in rows for index in row)]) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= row_tokens for row in rows)
    assert all(lengths[index] > row_tokens for index in too_long)
    assert rows == sorted(rows)
    # At most one row can be half empty, else two of them would have been one.
    assert sum(2 * sum(lengths[index] for index in row) <= row_tokens for row in rows) <= 1


@pytest.mark.parametrize("row_tokens", [64, 256])
def test_little_is_wasted_on_short_dialogues(row_tokens):
    lengths = [8 + (index * 7919) % 40 for index in range(1000)]
    rows, _ = pack(lengths, row_tokens)
    assert sum(lengths) / (len(rows) * row_tokens) > 0.95
