import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.rlhf.config import SignalConfig
from llamaherd.rlhf.signal import Running, filled, scores_of, token_rewards, with_lowest


def signal(**values: object) -> SignalConfig:
    return SignalConfig.model_validate(values)


def test_unusable_answers_get_the_lowest() -> None:
    assert with_lowest([2.0, None, -1.0, None, 0.5]).tolist() == [2.0, -1.0, -1.0, -1.0, 0.5]
    assert with_lowest([None, None]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([1.0, 3.0], [-1.0, 1.0]),
        ([1.0, None, 4.0], [-math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2)]),
        ([5.0], [0.0]),
        ([5.0, None], [0.0, 0.0]),
        ([None, None], [0.0, 0.0]),
    ],
)
def test_whitened_rewards(logits: list[float | None], expected: list[float]) -> None:
    assert scores_of(logits, SignalConfig(), Running()).tolist() == pytest.approx(expected, abs=1e-4)


@given(
    st.lists(st.floats(-10, 10) | st.none(), min_size=2, max_size=20).filter(
        lambda row: len({round(x, 1) for x in row if x is not None}) > 1
    )
)
def test_whitening_has_mean_zero_and_variance_one(logits: list[float | None]) -> None:
    found = scores_of(logits, SignalConfig(), Running())
    assert float(found.mean()) == pytest.approx(0, abs=1e-4)
    assert float(found.var(correction=0)) == pytest.approx(1, abs=1e-2)


def test_what_an_answer_without_a_logit_gets() -> None:
    logits = [2.0, None, -1.0]
    assert filled(logits, signal()).tolist() == [2, -1, -1]
    assert filled(logits, signal(unfinished="score")).tolist() == [2, -1, -1], "what has no score even so"
    assert filled(logits, signal(unfinished="penalty", penalty=-7.0)).tolist() == [2, -7, -1]
    assert filled([None, None], signal(unfinished="penalty", penalty=-7.0)).tolist() == [-7, -7]


def test_the_scope_of_whitening() -> None:
    """Batches (1, 3) and (5, 7): mean 2 and deviation 1, then mean 4 and deviation sqrt(5)."""
    running = Running()
    for whiten, first, second in (
        ("batch", [-1, 1], [-1, 1]),
        ("running", [-1, 1], [1 / math.sqrt(5), 3 / math.sqrt(5)]),
        ("none", [1, 3], [5, 7]),
    ):
        config = signal(whiten_rewards=whiten)
        assert scores_of([1.0, 3.0], config, running).tolist() == pytest.approx(first, abs=1e-6)
        assert scores_of([5.0, 7.0], config, running).tolist() == pytest.approx(second, abs=1e-6)
    assert (running.count, running.mean, running.squares) == (4, 4.0, pytest.approx(20.0))


@given(st.lists(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=9), min_size=1, max_size=6))
def test_running_figures_are_those_of_all_values(batches: list[list[float]]) -> None:
    running = Running()
    for batch in batches:
        running.add(batch)
        running = Running(**json.loads(json.dumps(running.to_json())))  # as a training state keeps it
    values = torch.tensor([value for batch in batches for value in batch], dtype=torch.float64)
    assert running.count == len(values)
    assert running.mean == pytest.approx(float(values.mean()), abs=1e-9)
    assert running.squares == pytest.approx(float((values - values.mean()).square().sum()), abs=1e-6)


def test_rewards_are_cut_after_whitening() -> None:
    assert scores_of([0.0, 0.0, 0.0, 8.0], signal(reward_clip=1.5), Running()).tolist() == pytest.approx([-1 / math.sqrt(3)] * 3 + [1.5])
    assert scores_of([-9.0, 1.0], signal(whiten_rewards="none", reward_clip=2.0), Running()).tolist() == [-2.0, 1.0]


def test_golden_positions_of_rewards() -> None:
    """KL stands on every action, the first token and the end-of-sequence included; the score on the last action alone, added to its KL."""
    kl = [torch.tensor([1.0, 2.0, 4.0]), torch.tensor([8.0])]
    first, second = token_rewards(torch.tensor([0.5, -3.0]), kl, 0.5)
    assert first.tolist() == [-0.5, -1.0, -2.0 + 0.5]
    assert second.tolist() == [-4.0 - 3.0]
    assert kl[0].tolist() == [1, 2, 4], "the estimates, which are logged too, stay as they are"
