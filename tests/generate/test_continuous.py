"""Sequences that come and go, settings of their own, stop texts, log-probabilities beside the sampled ones."""

import pytest
import torch

from llamaherd.core.errors import UserError
from llamaherd.core.seeds import python_rng, torch_rng
from llamaherd.generate import fixed
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import Engine, generate
from llamaherd.generate.memory import Memory
from llamaherd.generate.sampling import choose, penalised
from llamaherd.generate.sequence import Completion
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer

STOPS = (2, 1)


@pytest.fixture(scope="module")
def model() -> Transformer:
    model = Transformer(ModelConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=56, vocab_size=30, context=60))
    for weight in model.parameters():
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.2, generator=torch_rng(0, "weights"))
    return model


def prompts(count: int) -> list[list[int]]:
    rng = python_rng(1, "prompts")
    return [[rng.randrange(3, 30) for _ in range(rng.randint(1, 30))] for _ in range(count)]


CONFIGS = [
    SamplingConfig(temperature=0, max_new_tokens=20),
    SamplingConfig(temperature=1.0, max_new_tokens=9, top_k=5),
    SamplingConfig(temperature=0.8, max_new_tokens=25, repetition_penalty=1.5),
    SamplingConfig(temperature=1.5, max_new_tokens=3, top_p=1.0, min_p=0.1),
]


def close(one: Completion, other: Completion) -> None:
    assert one.ids == other.ids
    assert one.finished == other.finished
    assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


@pytest.mark.parametrize("kind", [{}, {"memory": True}, {"invariant": True}, {"continuous": False}])
def test_sequences_that_come_and_go_with_settings_of_their_own_become_what_they_are_alone(
    model: Transformer, kind: dict[str, bool]
) -> None:
    asked = prompts(24)
    configs = [CONFIGS[index % 4] for index in range(24)]
    options = kind | ({"memory": Memory()} if "memory" in kind else {})
    engine = Engine(model, STOPS, rows=5, **options)  # type: ignore[arg-type]
    numbers, found, most = {}, {}, 0
    for index, prompt in enumerate(asked):
        numbers[engine.add(prompt, configs[index], index)] = index
        if index % 3 == 2:
            events = engine.step()
            most = max(most, len(events))
            found |= {numbers[event.sequence]: event.completion for event in events if event.reason}
    while engine.busy:
        found |= {numbers[event.sequence]: event.completion for event in engine.step() if event.reason}
    assert most <= 5
    for index, prompt in enumerate(asked):
        close(found[index], generate(model, [prompt], configs[index], [index], STOPS)[0])


def test_a_cancelled_sequence_has_no_more_events_and_others_go_on(model: Transformer) -> None:
    engine = Engine(model, rows=2)
    first, second, third = (engine.add([5, 6, index], CONFIGS[0], 0) for index in (7, 8, 9))
    assert {event.sequence for event in engine.step()} == {first, second}
    assert engine.cancel(first)
    assert not engine.cancel(first)
    assert engine.cancel(third)
    assert {event.sequence for event in engine.step()} == {second}
    assert engine.cancel(second)
    assert not engine.busy
    assert engine.step() == []


def test_a_common_beginning_is_read_once(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    system, rng = prompts(1)[0] * 2, python_rng(2)
    system = (system * 30)[:32]
    asked = [[*system, *(rng.randrange(3, 30) for _ in range(rng.randint(2, 5)))] for _ in range(8)]
    alone = [generate(model, [prompt], CONFIGS[0], [0], STOPS)[0] for prompt in asked]
    read: list[int] = []
    inner = model.read
    monkeypatch.setattr(model, "read", lambda tokens, into: (read.append(tokens.numel()), inner(tokens, into))[1])
    for one, other in zip(generate(model, asked, CONFIGS[0], range(8), STOPS), alone, strict=True):
        close(one, other)
    assert read[0] == 32
    assert sum(read) <= 32 + 8 * 4


@pytest.mark.parametrize("invariant", [False, True])
def test_log_probs_of_the_prompt_and_of_the_likeliest(model: Transformer, invariant: bool) -> None:
    config = SamplingConfig(temperature=1.0, max_new_tokens=6, top_log_probs=3, prompt_log_probs=True)
    asked = [prompt for prompt in prompts(6) if len(prompt) > 1]
    for prompt, completion in zip(asked, generate(model, asked, config, range(6), (), invariant=invariant), strict=True):
        plain = model(torch.tensor([prompt + completion.ids]))[0, :-1].log_softmax(-1)
        own = plain.gather(-1, torch.tensor(prompt[1:] + completion.ids)[:, None])[:, 0]
        assert completion.prompt_log_probs + completion.log_probs == pytest.approx(own.tolist(), abs=1e-5)
        told = completion.prompt_alternatives + completion.alternatives
        assert [[id for id, _ in row] for row in told] == plain.topk(3).indices.tolist()
        assert [value for row in told for _, value in row] == pytest.approx(plain.topk(3).values.flatten().tolist(), abs=1e-5)


def test_top_k_and_min_p_on_hand_worked_probabilities() -> None:
    logits = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2]).log().expand(1000, -1)
    uniform = (torch.arange(1000) + 0.5) / 1000
    assert set(choose(logits, 1.0, 1.0, uniform, top_k=2).tolist()) == {1, 3}
    assert set(choose(logits, 1.0, 1.0, uniform, min_p=0.45).tolist()) == {1, 3, 4}
    # 0.4 and 0.25 of the two that top-k leaves are 0.615 and 0.385: the first alone is beyond 0.6.
    assert set(choose(logits, 1.0, 0.6, uniform, top_k=2).tolist()) == {1}
    assert set(choose(logits, 1.0, 0.62, uniform, top_k=2).tolist()) == {1, 3}
    assert set(choose(logits, 1.0, 0.7, uniform, min_p=0.6).tolist()) == {1, 3}
    assert set(choose(logits, 0.5, 1.0, uniform, min_p=0.3).tolist()) == {1, 3}, (
        "after temperature: 0.25 of 0.4 becomes 0.39, 0.2 of it 0.25"
    )
    equals = torch.tensor([[1.0, 2.0, 2.0, 2.0]]).expand(300, -1)
    assert set(choose(equals, 1.0, 1.0, uniform[:300] * 3, top_k=2).tolist()) == {1, 2, 3}, "those that equal the last stay"


def test_the_penalty_and_the_filters_are_those_of_transformers() -> None:
    from transformers.generation import logits_process as theirs

    logits, prompt = torch.randn(20, 60, generator=torch_rng(3)) * 3, torch.randint(60, (20, 9), generator=torch_rng(4))
    seen = torch.zeros(20, 60, dtype=torch.bool).scatter_(1, prompt, True)
    expected = theirs.RepetitionPenaltyLogitsProcessor(1.3)(prompt, logits.clone())
    torch.testing.assert_close(penalised(logits, seen, 1.3), expected)
    for step in (theirs.TemperatureLogitsWarper(0.7), theirs.TopKLogitsWarper(12), theirs.MinPLogitsWarper(0.05)):
        expected = step(prompt, expected)
    for row in range(20):
        uniform = (torch.arange(20_000) + 0.5) / 20_000
        drawn = choose(penalised(logits, seen, 1.3)[row].expand(20_000, -1), 0.7, 1.0, uniform, 12, 0.05)
        share = torch.bincount(drawn, minlength=60) / 20_000
        torch.testing.assert_close(share, expected[row].softmax(-1), atol=2e-4, rtol=0)


def test_stop_texts_need_a_tokenizer(model: Transformer) -> None:
    with pytest.raises(UserError, match="stop texts are found in decoded text"):
        generate(model, [[5]], SamplingConfig(stop=("x",)), [0], ())


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(ValueError, match="would stop every answer"):
        SamplingConfig(stop=("a", ""))


def test_a_machine_that_treats_rows_differently_is_refused(model: Transformer) -> None:
    """Here a hook does what kernels do that treat the last rows of a product otherwise."""

    def last_bits(_module: torch.nn.Module, _given: object, logits: torch.Tensor) -> torch.Tensor:
        return logits * torch.linspace(1, 1 + 1e-6, len(logits)).view(-1, *[1] * (logits.ndim - 1))

    hook = model.output.register_forward_hook(last_bits)
    with pytest.raises(UserError, match="equal rows among 16 different bits"):
        Engine(model, invariant=True)
    hook.remove()
    Engine(model, invariant=True)


def test_slots_that_do_not_fit_are_refused_before_they_are_taken(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed, "free_memory_bytes", lambda device: 1000)
    with pytest.raises(UserError, match="the invariant mode holds 16 slots of"):
        Engine(model, invariant=True)
    monkeypatch.setattr(fixed, "free_memory_bytes", lambda device: None)
    Engine(model, invariant=True)
