from typing import Any

import pytest
import torch

from llamaherd.assistant.local import Assistant
from llamaherd.core.errors import UserError
from llamaherd.core.seeds import seed_for
from llamaherd.data.records import Prompt
from llamaherd.generate.sampling import choose, nucleus_mass
from llamaherd.model.config import ModelConfig
from llamaherd.rlhf.config import PpoConfig
from llamaherd.rlhf.sampler import rows_together, sampling_bytes, sampling_of

SHAPE = ModelConfig(dim=64, layers=2, heads=4, kv_heads=2, ffn=96, vocab_size=500, context=256)


def config(**sampler: Any) -> PpoConfig:
    return PpoConfig.model_validate({"max_new_tokens": 100, "temperature": 0.8, "sampler": sampler})


def test_what_the_engine_is_asked_for() -> None:
    asked = sampling_of(config(top_p=0.9))
    assert (asked.temperature, asked.top_p, asked.max_new_tokens) == (0.8, 0.9, 100)


def test_rows_fit_the_stated_memory() -> None:
    """151 places of two layers' keys and values of 2 x 16 numbers and a mask of 2, and six times 500 logits, in floats."""
    one = 4 * (151 * (2 * 2 * 32 + 2) + 6 * 500)
    assert sum(sampling_bytes(SHAPE, 1, 150)) == one
    assert rows_together(config(memory_gib=10.5 * one / 2**30), SHAPE, 50) == 10
    assert rows_together(config(memory_gib=10.5 * one / 2**30, together=4), SHAPE, 50) == 4
    assert rows_together(config(), SHAPE, 50) == 128
    assert sum(sampling_bytes(SHAPE, 10, 150)) <= 10.5 * one


def test_memory_for_not_one_answer() -> None:
    with pytest.raises(UserError, match=r"sampler.memory_gib is 1e-06, and one answer of up to 150 tokens takes 8.43e-05; give more"):
        rows_together(config(memory_gib=1e-6), SHAPE, 50)


def test_ids_are_the_same_whatever_is_sampled_together(toy: Assistant, prompts: list[Prompt]) -> None:
    dialogues, seeds = [prompt.dialogue for prompt in prompts * 5], [seed_for(3, index) for index in range(40)]
    asked = sampling_of(PpoConfig(max_new_tokens=20))
    whole = toy.answers(dialogues, asked, seeds)
    for rows in (1, 3, 16):
        cut = toy.answers(dialogues, asked, seeds, rows=rows)
        assert [answer.completion.ids for answer in cut] == [answer.completion.ids for answer in whole]
        for one, other in zip(cut, whole, strict=True):
            assert one.completion.log_probs == pytest.approx(other.completion.log_probs, abs=1e-5)


def test_a_token_of_the_nucleus_is_drawn_with_its_share_of_the_mass() -> None:
    """Probabilities .5, .3, .15, .05: the nucleus of .6 holds the first two."""
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert nucleus_mass(logits[None], 1.0, 0.6).tolist() == pytest.approx([0.8])
    assert nucleus_mass(logits[None], 1.0, 1.0).tolist() == pytest.approx([1.0])
    sharp = torch.softmax(logits / 0.5, dim=-1)
    assert nucleus_mass(logits[None], 0.5, 0.8).tolist() == pytest.approx([float(sharp[:2].sum())])
    uniform = (torch.arange(4000) + 0.5) / 4000
    drawn = choose(logits.expand(4000, 4), 0.5, 0.8, uniform).bincount(minlength=4) / 4000
    expected = torch.where(torch.arange(4) < 2, sharp / nucleus_mass(logits[None], 0.5, 0.8), torch.zeros(4))
    assert drawn.tolist() == pytest.approx(expected.tolist(), abs=1e-3)


def test_chunks_are_counted_in_the_engine(toy: Assistant, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch) -> None:
    from llamaherd.generate.engine import Engine

    most, step = [0], Engine.step

    def counted(engine: Engine) -> Any:
        events = step(engine)
        most[0] = max(most[0], len(events))
        return events

    monkeypatch.setattr(Engine, "step", counted)
    toy.answers([prompt.dialogue for prompt in prompts], sampling_of(PpoConfig(max_new_tokens=4)), list(range(8)), rows=3)
    assert most[0] == 3
