import pytest
import torch

from llamaherd.core.seeds import python_rng, torch_rng
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import Completion, generate
from llamaherd.generate.memory import Memory
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
        said.append(generate(model, prompts, SAMPLED, seeds, STOPS, memory=memory, names=NAMES))
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


def test_the_limit_counts_what_is_there(model: Transformer) -> None:
    memory = Memory(most_bytes=3 * 2 * 2 * 8 * 4 * 20)  # 20 tokens of 3 layers, keys and values, 2 heads of 8 float32
    known = 0
    for name in range(4):
        generate(model, [asked(0, name)[:4]], SAMPLED.model_copy(update={"max_new_tokens": 5}), [name], (), memory=memory, names=[name])
        known += memory.recall([name], [[*asked(0, name)[:4], 7]], _cache(model)) is not None
    assert known == 2, "8 tokens each: the prompt and four of five answers"


def test_of_a_longer_prompt_only_the_end_is_read(model: Transformer, read: list[int]) -> None:
    memory, prompt = Memory(), asked(0, 0)
    first = generate(model, [prompt], SAMPLED, [0], (), memory=memory, names=[0])[0]
    generate(model, [[*prompt, *first.ids, 3, 4, 5]], SAMPLED, [1], (), memory=memory, names=[0])
    # The last answered token was chosen but never seen, and the last of a prompt is the first step.
    assert read == [len(prompt) - 1, 3]
    other = [9, *prompt[1:], *first.ids, 3]
    generate(model, [other], SAMPLED, [1], (), memory=memory, names=[0])
    assert read[2] == len(other) - 1, "another dialogue under the same name"


def _cache(model: Transformer):  # type: ignore[no-untyped-def]
    from llamaherd.model.cache import Cache

    return Cache(model.config, [5], 5, model.device, model.dtype)
