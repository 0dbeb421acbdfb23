from itertools import chain, islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import new_model
from llamaherd.train.batches import TokenBatch, epochs, next_token_loss, split, steps_in

CPU = torch.device("cpu")


def test_each_token_is_followed_by_its_target_and_no_document_by_another() -> None:
    batch = TokenBatch.of([([5, 6, 7], [0, 1, 1]), ([8, 9], [1, 0])], CPU)
    assert batch.tokens.tolist() == [[5, 6, 8]]
    assert batch.targets.tolist() == [6, 7, 9]
    assert batch.trained.tolist() == [True, True, False]
    assert batch.layout.lengths == (2, 1)
    assert batch.size == 3
    assert batch.mean_document == (2 * 2 + 1 * 1) / 3


def test_a_mask_of_another_length_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        TokenBatch.of([([5, 6, 7], [0, 1])], CPU)


def test_loss_is_the_sum_over_trained_targets() -> None:
    model = new_model(ModelConfig(dim=16, layers=1, heads=2, ffn=16, vocab_size=12, context=8), 0)
    found = next_token_loss(model, TokenBatch.of([([5, 6, 7, 8], [1, 0, 1, 1]), ([3, 4], [1, 1])], CPU))
    first, second = (model(torch.tensor([ids]))[0].log_softmax(-1) for ids in ([5, 6, 7], [3]))
    assert found.total.item() == pytest.approx(-(first[1, 7] + first[2, 8] + second[0, 4]).item(), rel=1e-5)
    assert (found.count, found.tokens, found.sums) == (3, 4, {"trained_share": (3.0, 4.0)})


def test_nothing_trained_gives_zero() -> None:
    model = new_model(ModelConfig(dim=16, layers=1, heads=2, ffn=16, vocab_size=12, context=8), 0)
    found = next_token_loss(model, TokenBatch.of([([5, 6, 7], [1, 0, 0])], CPU))
    assert (found.total.item(), found.count, found.tokens) == (0.0, 0, 2)


@given(count=st.integers(1, 30), batch=st.integers(1, 12), seed=st.integers(0, 5))
def test_every_epoch_has_each_index_once(count: int, batch: int, seed: int) -> None:
    per_epoch = -(-count // batch)
    batches = [indices for indices, _ in islice(epochs(count, batch, seed, None), 2 * per_epoch)]
    first, second = list(chain(*batches[:per_epoch])), list(chain(*batches[per_epoch:]))
    assert sorted(first) == sorted(second) == list(range(count))
    assert first != second or count < 6


@given(count=st.integers(1, 30), batch=st.integers(1, 12), done=st.integers(1, 20))
def test_epochs_go_on_from_anywhere(count: int, batch: int, done: int) -> None:
    whole = list(islice(epochs(count, batch, 3, None), done + 10))
    assert list(islice(epochs(count, batch, 3, whole[done - 1][1]), 10)) == whole[done:]


def test_an_epoch_of_nothing_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        next(epochs(0, 4, 0, None))


@pytest.mark.parametrize(
    ("share", "count", "batch", "steps"),
    [(2, 10, 4, 6), (1, 8, 4, 2), (0.5, 10, 4, 2), (0.1, 100, 10, 1), (0.3, 100, 10, 3), (0.01, 5, 5, 1)],
)
def test_steps_in_epochs(share: float, count: int, batch: int, steps: int) -> None:
    assert steps_in(share, count, batch) == steps


def test_split() -> None:
    assert split([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert split([], 2) == []
