"""Prompts that are read a little in each step: others get their tokens in between, and nothing is left of one that is given up."""

import gc

import pytest
import torch

from llamaherd.core.seeds import python_rng, torch_rng
from llamaherd.generate import gradual
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import Engine, generate
from llamaherd.generate.fixed import shares
from llamaherd.generate.memory import Memory
from llamaherd.generate.sequence import Completion
from llamaherd.model.cache import Cache
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer

SHORT, LONG = [5, 6, 7], 900
ENDLESS = SamplingConfig(temperature=1.0, max_new_tokens=200)
BRIEF = SamplingConfig(temperature=1.0, max_new_tokens=6)


@pytest.fixture(scope="module")
def model() -> Transformer:
    model = Transformer(ModelConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=56, vocab_size=30, context=1200))
    for weight in model.parameters():
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.2, generator=torch_rng(0, "weights"))
    return model


@pytest.fixture
def read(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Prompt tokens of every call that reads."""
    sizes: list[int] = []
    for name in ("read", "hidden"):
        inner = getattr(model, name)

        def noting(tokens: torch.Tensor, into: object, *rest: object, inner=inner):  # type: ignore[no-untyped-def]
            if not isinstance(into, Cache):
                sizes.append(tokens.numel())
            return inner(tokens, into, *rest)

        monkeypatch.setattr(model, name, noting)
    return sizes


def prompt(tokens: int, name: str = "") -> list[int]:
    rng = python_rng(tokens, "prompt", name)
    return [rng.randrange(3, 30) for _ in range(tokens)]


def finished(engine: Engine) -> dict[int, Completion]:
    found = {}
    while engine.busy:
        found |= {event.sequence: event.completion for event in engine.step() if event.reason}
    return found


def caches() -> list[Cache]:
    gc.collect()
    return [one for one in gc.get_objects() if type(one) is Cache]


def close(one: Completion, other: Completion) -> None:
    assert one.ids == other.ids
    assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)
    assert one.prompt_log_probs == pytest.approx(other.prompt_log_probs, abs=1e-5)


@pytest.mark.parametrize("scored", [False, True])
def test_a_long_prompt_holds_up_nobody(model: Transformer, read: list[int], scored: bool) -> None:
    engine = Engine(model)
    mine = engine.add(SHORT, ENDLESS, 0)
    engine.step()
    long = engine.add(prompt(LONG), BRIEF.model_copy(update={"prompt_log_probs": scored}), 1)
    late, tokens_before = None, 0
    for step in range(100):
        read.clear()
        events = {event.sequence for event in engine.step()}
        assert mine in events
        assert sum(read) <= gradual.STEP_TOKENS
        if step == 1:
            late = engine.add([8, 9, 10, 11], BRIEF, 2)
        assert late not in events or step >= 2
        if step == 2:
            assert late in events, "a short prompt passes a long one"
        if long in events:
            break
        tokens_before += 1
    assert tokens_before >= LONG // gradual.STEP_TOKENS


def test_what_was_read_in_pieces_becomes_what_it_is_alone(model: Transformer) -> None:
    asked = [prompt(size, "mix") for size in (1, 300, 2, 700, 40, 41, 1, 129, 257, 900, 12)]
    configs = [BRIEF.model_copy(update={"prompt_log_probs": index % 3 == 1, "top_log_probs": index % 2}) for index in range(len(asked))]
    engine = Engine(model, rows=8)
    numbers = [engine.add(one, config, seed) for seed, (one, config) in enumerate(zip(asked, configs, strict=True))]
    found = finished(engine)
    for seed, (number, one, config) in enumerate(zip(numbers, asked, configs, strict=True)):
        [alone] = generate(model, [one], config, [seed], ())
        close(found[number], alone)
        assert [[id for id, _ in row] for row in found[number].prompt_alternatives] == [
            [id for id, _ in row] for row in alone.prompt_alternatives
        ]


def test_the_log_probs_of_a_prompt_cost_no_second_reading(model: Transformer, read: list[int]) -> None:
    engine = Engine(model)
    engine.add(prompt(500), BRIEF.model_copy(update={"prompt_log_probs": True}), 0)
    finished(engine)
    assert sum(read) == 499


@pytest.mark.parametrize("tokens", [60, 600])
def test_prompts_that_begin_alike_are_read_once_for_an_owner_and_again_for_another(
    model: Transformer, read: list[int], tokens: int
) -> None:
    beginning = prompt(tokens)
    ends = [[5], [6, 7], [5]]
    engine = Engine(model)
    numbers = [engine.add([*beginning, *end], BRIEF, seed, owner="ada") for seed, end in enumerate(ends)]
    found = finished(engine)
    assert tokens <= sum(read) <= tokens + 3
    assert [found[number].known_tokens >= tokens for number in numbers] == [False, True, True]
    for seed, (number, end) in enumerate(zip(numbers, ends, strict=True)):
        close(found[number], generate(model, [[*beginning, *end]], BRIEF, [seed], ())[0])
    read.clear()
    others = [engine.add([*beginning, 5], BRIEF, 0, owner=owner) for owner in ("ada", "ben")]
    found = finished(engine)
    assert sum(read) == 2 * tokens
    assert [found[number].known_tokens for number in others] == [0, 0]


def test_when_the_first_of_those_that_begin_alike_is_cancelled_the_next_one_reads(model: Transformer) -> None:
    engine = Engine(model)
    first, second, third = (engine.add(prompt(700), BRIEF, seed) for seed in range(3))
    engine.step()
    engine.cancel(first)
    found = finished(engine)
    assert set(found) == {second, third}
    for seed, number in ((1, second), (2, third)):
        close(found[number], generate(model, [prompt(700)], BRIEF, [seed], ())[0])


@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 2, 30])
def test_a_sequence_that_is_cancelled_waiting_reading_or_running_leaves_nothing(model: Transformer, invariant: bool, steps: int) -> None:
    before = len(caches())
    engine = Engine(model, rows=1, invariant=invariant)
    engine.add(SHORT, SamplingConfig(max_new_tokens=1), 0)
    number = engine.add(prompt(LONG if steps < 30 else 4), ENDLESS, 0)
    for _ in range(steps):
        engine.step()
    assert engine.busy
    assert steps < 2 or invariant or len(caches()) > before
    assert engine.cancel(number) == 1
    assert engine.cancel(number) == 0
    if steps == 0:
        finished(engine)
    assert not engine.busy
    assert len(caches()) == before


def test_hundreds_are_cancelled_at_once(model: Transformer) -> None:
    engine = Engine(model, rows=64)
    numbers = [engine.add([5, 6, 7 + index % 20], ENDLESS, index) for index in range(300)]
    engine.step()
    assert engine.cancel(*numbers[:-1]) == 299
    assert {event.sequence for event in engine.step()} == {numbers[-1]}
    assert engine.cancel(*numbers) == 1
    assert not engine.busy


def test_a_memory_knows_beginnings_of_long_prompts(model: Transformer, read: list[int]) -> None:
    engine = Engine(model, memory=Memory())
    engine.add(prompt(600), BRIEF, 0, owner="ada")
    finished(engine)
    read.clear()
    longer = [*prompt(600), *prompt(300, "more")]
    numbers = [engine.add(longer, BRIEF, 1, owner=owner) for owner in ("ada", "ben")]
    found = finished(engine)
    assert sum(read) == 899 - 600 + 899
    assert [found[number].known_tokens for number in numbers] == [600, 0]
    assert found[numbers[0]].ids == found[numbers[1]].ids


def test_with_fixed_slots_a_short_prompt_is_not_held_up_by_a_long_one(model: Transformer) -> None:
    engine = Engine(model, rows=16, invariant=True)
    long, short = engine.add(prompt(LONG), BRIEF, 0), engine.add(prompt(20), BRIEF, 1)
    told = [{event.sequence for event in engine.step()} for _ in range(4)]
    assert told[2:] == [{short}, {short}]
    assert long in finished(engine)


def test_shares_are_even_and_nothing_is_left_that_somebody_wants() -> None:
    assert shares([0, 5, 0, 100, 7], 14) == [0, 4, 0, 5, 5]
    assert shares([0, 1, 0, 100, 7], 14) == [0, 1, 0, 7, 6]
    assert shares([3, 4], 20) == [3, 4]
    assert shares([9, 9, 9], 2) == [0, 1, 1]
    assert shares([0, 0], 5) == [0, 0]
