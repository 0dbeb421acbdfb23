import pytest
import torch

from llamaherd.core.seeds import python_rng, torch_rng
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import Engine, generate
from llamaherd.generate.memory import Memory
from llamaherd.generate.sequence import Completion
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer

SAMPLED = SamplingConfig(temperature=1.0, top_p=0.9, max_new_tokens=9)
STOPS = (2, 1)
NAMES = [30, 10, 20]


@pytest.fixture
def model() -> Transformer:
    model = Transformer(ModelConfig(dim=32, layers=3, heads=4, kv_heads=2, ffn=56, vocab_size=30, context=120))
    for weight in model.parameters():
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.2, generator=torch_rng(0, "weights"))
    return model


def asked(turn: int, name: int) -> list[int]:
    rng = python_rng(turn, "asked", name)
    return [rng.randrange(3, 30) for _ in range(rng.randint(4, 12))]


def talk(model: Transformer, memory: Memory | None, edited: bool = False) -> list[list[Completion]]:
    """Four turns of three dialogues; the answers go on to be part of the prompts, `edited` with another token at their end."""
    prompts: list[list[int]] = [[] for _ in NAMES]
    said = []
    for turn in range(4):
        prompts = [[*prompt, *asked(turn, name)] for prompt, name in zip(prompts, NAMES, strict=True)]
        seeds = [100 * turn + name for name in NAMES]
        said.append(generate(model, prompts, SAMPLED, seeds, STOPS, memory=memory))
        prompts = [
            prompt + completion.text_ids[: -1 if edited else None] + [5]
            for prompt, completion in zip(prompts, said[-1], strict=True)
        ]  # fmt: skip
    return said


@pytest.fixture
def read(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of every call that reads prompts."""
    sizes: list[int] = []
    original = model.read
    monkeypatch.setattr(model, "read", lambda tokens, prompts: (sizes.append(tokens.numel()), original(tokens, prompts))[1])
    return sizes


@pytest.mark.parametrize("edited", [False, True])
def test_what_is_remembered_changes_nothing_but_the_reading(model: Transformer, read: list[int], edited: bool) -> None:
    plain = talk(model, None, edited)
    whole = sum(read)
    read.clear()
    for mine, other in zip(talk(model, Memory(), edited), plain, strict=True):
        for completion, expected in zip(mine, other, strict=True):
            assert completion.ids == expected.ids
            torch.testing.assert_close(torch.tensor(completion.log_probs), torch.tensor(expected.log_probs), rtol=1e-5, atol=1e-5)
    assert sum(read) < whole * 0.6


def test_beyond_the_limit_all_is_read_whole(model: Transformer, read: list[int]) -> None:
    plain = talk(model, None)
    whole, _ = list(read), read.clear()
    assert [[c.ids for c in turn] for turn in talk(model, Memory(most_bytes=0))] == [[c.ids for c in turn] for turn in plain]
    assert read == whole


def seen(tokens: int) -> torch.Tensor:
    return torch.zeros(1, 2, 1, tokens, 1)


@pytest.mark.parametrize("sequences", [[(1, 2, 3)], [(*range(8), 50, 51), (*range(8), 60, 61)]])
def test_what_is_kept_again_and_again_is_counted_once(sequences: list[tuple[int, ...]]) -> None:
    memory = Memory(most_bytes=4 * seen(10).nbytes)
    kept = tuple(range(100, 110))
    memory.keep(kept, seen(10))
    for number in range(50):
        for sequence in sequences:
            memory.keep(sequence, seen(len(sequence)))
        assert memory.find(kept), number
    memory.keep(range(200, 240), seen(40))
    assert memory.find(range(200, 240))


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    memory = Memory(most_bytes=3 * seen(10).nbytes)
    sequences = [tuple(range(first, first + 10)) for first in (0, 100, 200, 300)]
    for sequence in sequences[:3]:
        memory.keep(sequence, seen(10))
    assert memory.find([*sequences[0], 7]) is not None
    memory.keep(sequences[3], seen(10))
    assert [memory.find(sequence) is not None for sequence in sequences] == [True, False, True, True]
    memory.keep(range(1000, 1040), seen(40))
    assert memory.find(range(1000, 1040)) is None, "larger than all that may be kept"
    assert memory.find(sequences[0]) is not None


def test_a_longer_sequence_takes_the_place_of_its_beginning() -> None:
    memory = Memory(most_bytes=seen(50).nbytes)
    for length in range(10, 51):
        memory.keep(range(length), seen(length))
    memory.keep(range(20), seen(20))  # known already
    found = memory.find(range(60))
    assert found is not None
    assert (found[1], found[0].seen.shape[3]) == (50, 50)


def test_the_longest_common_beginning_is_found() -> None:
    memory = Memory()
    memory.keep([*range(30), 1, 2, 3], seen(33))
    memory.keep([*range(30), *range(60, 80)], seen(50))
    memory.keep(range(500, 530), seen(30))
    for ids, tokens in (([*range(30), 9], 30), ([*range(30), *range(60, 69), 5], 39), (range(17), 17), ([*range(9), 4, 4], 9)):
        found = memory.find(ids)
        assert found is not None
        assert found[1] == tokens
        assert found[0].ids[:tokens] == tuple(ids)[:tokens]
    assert memory.find(range(7)) is None, "less than a block"


def test_of_a_longer_prompt_only_the_end_is_read(model: Transformer, read: list[int]) -> None:
    memory, prompt = Memory(), asked(0, 0)
    first = generate(model, [prompt], SAMPLED, [0], (), memory=memory)[0]
    generate(model, [[*prompt, *first.ids, 3, 4, 5]], SAMPLED, [1], (), memory=memory)
    # The last answered token was chosen but never seen, and the last of a prompt is the first step.
    assert read == [len(prompt) - 1, 3]
    other = [9, *prompt[1:], *first.ids, 3]
    generate(model, [other], SAMPLED, [1], (), memory=memory)
    assert read[2] == len(other) - 1, "another dialogue under the same name"


def test_what_one_owner_said_is_found_by_nobody_else() -> None:
    memory = Memory()
    memory.keep(range(40), seen(40), "ada")
    memory.keep([*range(20), *range(70, 90)], seen(40) + 1, "ben")
    for owner, ids, tokens in (("ada", range(40), 40), ("ben", range(40), 20), ("ben", [*range(20), 70, 71], 22)):
        found = memory.find(ids, owner)
        assert found is not None
        assert (found[1], found[0].owner) == (tokens, owner)
    assert memory.find(range(40), "eva") is None
    assert memory.find(range(40)) is None
    memory.keep(range(40), seen(40), "eva")
    assert memory.find(range(40), "eva") is not None
    assert memory.find(range(40), "ada") is not None, "another owner's equal sequence takes no place"


def test_equal_hashes_of_two_owners_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from llamaherd.generate import memory as module

    monkeypatch.setattr(module, "hash", lambda _: 7, raising=False)
    memory = Memory()
    memory.keep(range(40), seen(40), "ada")
    assert memory.find(range(40), "ben") is None
    assert memory.find(range(40), "ada") is not None


@pytest.mark.parametrize("invariant", [False, True])
def test_the_engine_keeps_owners_apart(model: Transformer, invariant: bool) -> None:
    memory, prompt = Memory(), asked(0, 0) * 3
    known = []
    for owner in ("ada", "ben", "ada", "ben", "eva"):
        engine = Engine(model, rows=1, memory=memory, invariant=invariant)
        engine.add(prompt, SAMPLED, 0, owner=owner)
        while engine.busy:
            known += [event.completion.known_tokens for event in engine.step() if event.reason]
    assert known == [0, 0, len(prompt) - 1, len(prompt) - 1, 0]


def test_prompts_that_come_together_are_shared_by_one_owner_only(model: Transformer, read: list[int]) -> None:
    prompt = asked(0, 0) * 4
    for continuous in (False, True):
        for owners, times in ((["ada"] * 3, 1), (["ada", "ben", "ada"], 2)):
            engine = Engine(model, continuous=continuous)
            for seed, owner in enumerate(owners):
                engine.add(prompt, SAMPLED, seed, owner=owner)
            while engine.busy:
                engine.step()
            assert sum(read) == times * (len(prompt) - 1)
            read.clear()
