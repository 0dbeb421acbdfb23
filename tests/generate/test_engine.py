from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch

from llamaherd.core.errors import UserError
from llamaherd.core.seeds import python_rng, torch_rng
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import Engine, generate, steps
from llamaherd.generate.sequence import Event, NotNumbers
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer

CONTEXT = 40
GREEDY = SamplingConfig(temperature=0, max_new_tokens=25)
STOPS = (2, 1)


@pytest.fixture(scope="module")
def model() -> Transformer:
    model = Transformer(ModelConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=56, vocab_size=30, context=CONTEXT))
    for weight in model.parameters():
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.2, generator=torch_rng(0, "weights"))
    return model


def prompts() -> list[list[int]]:
    rng = python_rng(1, "prompts")
    return [[rng.randrange(3, 30) for _ in range(length)] for length in (5, 1, 20, 12, 31, 8, 39)]


class Scripted(Transformer):
    """Says the script's tokens one after the other, whatever it is given."""

    def __init__(self, script: list[int]) -> None:
        super().__init__(ModelConfig(dim=8, layers=1, heads=1, vocab_size=10, context=16))
        for weight in self.parameters():
            torch.nn.init.zeros_(weight)
        self.script = iter(script)
        self.output.register_forward_hook(self._say)

    def _say(self, _module: torch.nn.Module, _given: object, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[..., next(self.script)] = 50.0
        return logits


def test_greedy_is_the_argmax_of_plain_passes(model: Transformer) -> None:
    for prompt, completion in zip(prompts(), generate(model, prompts(), GREEDY, range(7), STOPS), strict=True):
        ids = list(prompt)
        while True:
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
            if ids[-1] in STOPS or len(ids) in (CONTEXT, len(prompt) + GREEDY.max_new_tokens):
                break
        assert completion.ids == ids[len(prompt) :]
        assert completion.finished == (ids[-1] in STOPS)


def test_log_probs_are_those_of_a_plain_pass(model: Transformer) -> None:
    config = SamplingConfig(temperature=0.7, top_p=0.8, max_new_tokens=25)
    for prompt, completion in zip(prompts(), generate(model, prompts(), config, range(7), STOPS), strict=True):
        ids = torch.tensor([prompt + completion.ids])
        plain = model(ids[:, :-1])[0, len(prompt) - 1 :].log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0]
        assert completion.log_probs == pytest.approx(plain.tolist(), abs=1e-5)


def test_first_tokens_come_as_often_as_the_model_says(model: Transformer) -> None:
    draws, prompt = 4000, [5, 17, 9]
    config = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=1)
    chosen = [completion.ids[0] for completion in generate(model, [prompt] * draws, config, range(draws), (), batch_rows=500)]
    expected = model(torch.tensor([prompt]))[0, -1].softmax(-1) * draws
    observed = torch.bincount(torch.tensor(chosen), minlength=30)
    often = expected > 5
    chi_squared = ((observed - expected) ** 2 / expected)[often].sum().item()
    freedom = int(often.sum()) - 1
    assert freedom > 5
    assert chi_squared < freedom + 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("stop", STOPS)
def test_stops_at_end_and_at_begin(stop: int) -> None:
    [completion] = generate(Scripted([5, 6, stop, 7]), [[3]], GREEDY, [0], STOPS)
    assert completion.ids == [5, 6, stop]
    assert completion.text_ids == [5, 6]
    assert completion.finished
    assert len(completion.log_probs) == 3


def test_cut_by_length_is_unfinished() -> None:
    config = GREEDY.model_copy(update={"max_new_tokens": 4})
    [completion] = generate(Scripted([5, 6, 7, 8, 2]), [[3]], config, [0], STOPS)
    assert completion.ids == completion.text_ids == [5, 6, 7, 8]
    assert not completion.finished


def test_a_stop_in_the_last_place_is_finished() -> None:
    config = GREEDY.model_copy(update={"max_new_tokens": 3})
    [completion] = generate(Scripted([5, 6, 2, 8]), [[3]], config, [0], STOPS)
    assert completion.finished
    assert completion.text_ids == [5, 6]


def test_answers_fill_the_context_and_no_more(model: Transformer) -> None:
    config = SamplingConfig(temperature=1.0, max_new_tokens=1000)
    for prompt, completion in zip(prompts(), generate(model, prompts(), config, range(7), ()), strict=True):
        assert len(prompt) + len(completion.ids) == CONTEXT
        assert not completion.finished


def test_steps_tell_who_is_still_at_work(model: Transformer) -> None:
    config = SamplingConfig(temperature=1.0, max_new_tokens=25)
    whole = generate(model, prompts(), config, range(7), STOPS)
    streamed: list[list[int]] = [[] for _ in prompts()]
    before = list(range(7))
    for step in steps(model, prompts(), config, range(7), STOPS):
        assert set(step.rows) <= set(before)
        assert len(step.rows) == len(step.ids) == len(step.log_probs)
        before = step.rows
        for row, token in zip(step.rows, step.ids, strict=True):
            streamed[row].append(token)
    assert streamed == [completion.ids for completion in whole]


def test_the_caller_keeps_its_own_mode(model: Transformer) -> None:
    stream = steps(model, [[5]], SamplingConfig(), [0], ())
    next(stream)
    assert not torch.is_inference_mode_enabled()
    stream.close()


def test_no_prompts_give_no_completions(model: Transformer) -> None:
    assert generate(model, [], GREEDY, [], STOPS) == []


def test_a_prompt_without_tokens_is_refused(model: Transformer) -> None:
    with pytest.raises(UserError, match="prompt 2 has no tokens"):
        generate(model, [[5], []], GREEDY, [0, 1], STOPS)


@pytest.mark.parametrize("length", [CONTEXT, CONTEXT + 7])
def test_a_prompt_without_room_is_refused_with_both_numbers(model: Transformer, length: int) -> None:
    with pytest.raises(UserError, match=f"prompt 3 has {length} tokens and the model's context is {CONTEXT}") as found:
        generate(model, [[5], [6], [7] * length], GREEDY, range(3), STOPS)
    assert "\n" not in str(found.value)


def test_every_sequence_needs_a_seed(model: Transformer) -> None:
    with pytest.raises(AssertionError, match="its own seed"):
        generate(model, [[5], [6]], GREEDY, [0], STOPS)


def test_ids_beyond_the_tokenizers_pieces_are_never_sampled(model: Transformer) -> None:
    """Vocabularies of checkpoints are padded; what is sampled is otherwise the same."""
    hot = SamplingConfig(temperature=5.0, top_p=1.0, max_new_tokens=25)
    whole = generate(model, prompts(), hot, range(7), ())
    assert max(id for completion in whole for id in completion.ids) >= 20
    for config in (hot, GREEDY):
        few = generate(model, prompts(), config, range(7), (), pieces=20)
        assert max(id for completion in few for id in completion.ids) < 20
    assert generate(model, prompts(), hot, range(7), (), pieces=30) == whole


def test_a_prompt_that_comes_several_times_is_read_once(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SamplingConfig(temperature=1.0, max_new_tokens=8)
    one, other = prompts()[0], prompts()[3]
    repeated = [one, other, one, one, other]
    alone = [generate(model, [prompt], config, [seed], STOPS)[0] for seed, prompt in enumerate(repeated)]
    read: list[int] = []
    inner = model.read
    monkeypatch.setattr(model, "read", lambda tokens, into: read.append(tokens.shape[1]) or inner(tokens, into))
    together = generate(model, repeated, config, range(5), STOPS)
    assert read == [len(one) - 1 + len(other) - 1]  # the last token of each is a step of the cache
    assert [completion.ids for completion in together] == [completion.ids for completion in alone]


def test_prompts_are_read_in_parts(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generate(model, prompts(), GREEDY, range(7), STOPS)
    monkeypatch.setattr("llamaherd.generate.growing.READ_TOKENS", 25)
    assert [completion.ids for completion in generate(model, prompts(), GREEDY, range(7), STOPS)] == [c.ids for c in whole]


@pytest.mark.parametrize("config", [GREEDY, SamplingConfig(temperature=1, top_p=0.9), SamplingConfig(temperature=1, top_p=1)])
def test_a_model_that_gives_no_numbers_is_said_and_ends_nobody_else(model: Transformer, config: SamplingConfig) -> None:
    broken = deepcopy(model)
    with torch.no_grad():
        broken.tok_embeddings.weight[7] = float("nan")
    for prompt in ([7, 8], [8, 7]):
        with pytest.raises(NotNumbers, match=r"logits are not numbers \(NaN\): its weights are damaged"):
            generate(broken, [prompt], config, [0], STOPS)
    with pytest.raises(NotNumbers):
        list(steps(broken, [[7]], config, [0], STOPS))
    engine = Engine(broken, (7, *STOPS))
    whole = engine.add([8, 9], config, 0)
    bad = engine.add([7, 8], config, 0)
    events = list(iter_events(engine))
    assert [(event.sequence, event.reason) for event in events if event.error] == [(bad, "error")]
    assert any(event.sequence == whole and event.reason in ("stop", "length") for event in events)


def iter_events(engine: Engine) -> Iterator[Event]:
    while engine.busy:
        yield from engine.step()
