"""With a fixed number of slots ids and log-probabilities are the same bits, whatever else is at work."""

from collections.abc import Iterator

import pytest
import torch

from llamaherd.core.seeds import python_rng, torch_rng
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import Engine, generate
from llamaherd.generate.memory import Memory
from llamaherd.generate.sequence import Completion
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer

GREEDY, SAMPLED = (SamplingConfig(temperature=temperature, max_new_tokens=200) for temperature in (0.0, 1.0))


@pytest.fixture(scope="module")
def peaked() -> Iterator[Transformer]:
    """Random weights whose next-token distributions have about 1 nat, so that ties are rare."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = Transformer(ModelConfig(dim=64, layers=2, heads=4, kv_heads=2, ffn=172, vocab_size=512, context=256))
    for weight in model.parameters():
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.1, generator=torch_rng(0, "weights"))
    model.output.weight.data *= 4
    yield model
    torch.set_num_threads(threads)


def prompts(count: int) -> list[list[int]]:
    """Every other one begins as the others do."""
    rng = python_rng(5, "prompts")
    system = [rng.randrange(3, 512) for _ in range(20)]
    asked = [[rng.randrange(3, 512) for _ in range(rng.randint(1, 35))] for _ in range(count)]
    return [[*system, *prompt] if index % 2 else prompt for index, prompt in enumerate(asked)]


def same_bits(ours: list[Completion], theirs: list[Completion]) -> None:
    assert [completion.ids for completion in ours] == [completion.ids for completion in theirs]
    assert [completion.log_probs for completion in ours] == [completion.log_probs for completion in theirs]


def check(model: Transformer, config: SamplingConfig, count: int, rows: int, alone: int) -> None:
    asked, seeds = prompts(count), list(range(count))
    together = generate(model, asked, config, seeds, (), batch_rows=rows, invariant=True)
    order = python_rng(6, "order").sample(seeds, count)
    memory = Memory()
    for _ in range(2):  # the second time all prompts are known
        shuffled = generate(model, [asked[i] for i in order], config, order, (), batch_rows=rows, memory=memory, invariant=True)
        same_bits(shuffled, [together[i] for i in order])
    single = [generate(model, [asked[i]], config, [i], (), batch_rows=rows, invariant=True)[0] for i in order[:alone]]
    same_bits(single, [together[i] for i in order[:alone]])
    for one, other in zip(generate(model, asked, config, seeds, ()), together, strict=True):
        assert one.ids == other.ids
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_few_short_sequences(peaked: Transformer, config: SamplingConfig) -> None:
    check(peaked, config.model_copy(update={"max_new_tokens": 20}), count=20, rows=8, alone=4)


@pytest.mark.slow
@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_200_sequences_of_200_tokens(peaked: Transformer, config: SamplingConfig) -> None:
    check(peaked, config, count=200, rows=64, alone=200)


def test_a_dialogue_that_goes_on_is_the_same_bits_with_and_without_memory(peaked: Transformer) -> None:
    short = SAMPLED.model_copy(update={"max_new_tokens": 12})
    said = []
    for memory in (None, Memory()):
        ids = prompts(1)[0]
        for turn in range(3):
            [completion] = generate(peaked, [ids], short, [turn], (), batch_rows=4, memory=memory, invariant=True)
            said.append(completion)
            ids = [*ids, *completion.ids, 7, 8, turn]
    same_bits(said[:3], said[3:])


def test_what_is_cancelled_beside_it_changes_nothing(peaked: Transformer) -> None:
    short = SAMPLED.model_copy(update={"max_new_tokens": 15})
    [alone] = generate(peaked, [[5, 6, 7]], short, [3], (), batch_rows=4, invariant=True)
    engine = Engine(peaked, rows=4, invariant=True)
    other = engine.add(prompts(2)[1], short, 9)
    engine.step()
    mine = engine.add([5, 6, 7], short, 3)
    found = [event for event in engine.step() if event.sequence == mine]
    engine.cancel(other)
    while engine.busy:
        found += engine.step()
    same_bits([found[-1].completion], [alone])
