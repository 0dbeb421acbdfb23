"""What a prompt becomes does not depend on its neighbours, on padding, on batch size, or on who finishes first."""

import pytest
import torch

from llamaherd.core.seeds import python_rng
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import generate
from llamaherd.generate.sequence import Completion
from llamaherd.model.transformer import Transformer

STOPS = (2, 1)
SAMPLING = SamplingConfig(temperature=1.0, top_p=0.95, max_new_tokens=20)


def prompts() -> list[list[int]]:
    rng = python_rng(3, "prompts")
    return [[rng.randrange(3, 40) for _ in range(length)] for length in (1, 7, 30, 3, 3, 18, 44, 11, 2, 26)]


def same(ours: list[Completion], theirs: list[Completion]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.ids == other.ids
        assert one.finished == other.finished
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


@pytest.mark.parametrize("config", [SAMPLING, SamplingConfig(temperature=0, max_new_tokens=20)], ids=["sampled", "greedy"])
def test_batched_equals_alone(model: Transformer, config: SamplingConfig) -> None:
    seeds = list(range(100, 110))
    together = generate(model, prompts(), config, seeds, STOPS)
    assert len({len(completion.ids) for completion in together}) > 2, "rows are to leave the batch at different times"
    alone = [generate(model, [prompt], config, [seed], STOPS)[0] for prompt, seed in zip(prompts(), seeds, strict=True)]
    same(together, alone)
    for rows in (2, 3, 7):
        same(together, generate(model, prompts(), config, seeds, STOPS, batch_rows=rows))


def test_order_does_not_matter(model: Transformer) -> None:
    seeds = list(range(10))
    forwards = generate(model, prompts(), SAMPLING, seeds, STOPS)
    backwards = generate(model, prompts()[::-1], SAMPLING, seeds[::-1], STOPS)
    same(forwards, backwards[::-1])


def test_each_row_has_its_own_seed(model: Transformer) -> None:
    alike = generate(model, [[5, 6]] * 6, SAMPLING, [1, 2, 3, 1, 2, 3], STOPS)
    same(alike[:3], alike[3:])
    assert len({tuple(completion.ids) for completion in alike}) == 3


def test_the_global_random_state_is_neither_read_nor_changed(model: Transformer) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = generate(model, prompts(), SAMPLING, list(range(10)), STOPS)
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(2)
    same(first, generate(model, prompts(), SAMPLING, list(range(10)), STOPS))


def test_longer_answers_begin_as_shorter_ones(model: Transformer) -> None:
    short = SAMPLING.model_copy(update={"max_new_tokens": 5})
    for one, other in zip(
        generate(model, prompts(), short, list(range(10)), STOPS),
        generate(model, prompts(), SAMPLING, list(range(10)), STOPS),
        strict=True,
    ):
        assert other.ids[: len(one.ids)] == one.ids
