"""A world of letters: a model of twelve tokens and a reward that is a table, so that optima are known."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from torch import nn

from llamaherd.assistant.local import Answer, Assistant
from llamaherd.chat.dialogue import Message, checked
from llamaherd.core.seeds import torch_rng
from llamaherd.data.records import Prompt
from llamaherd.generate.engine import Completion
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer
from llamaherd.reward.combine import Scores


class Letters:
    """Any text is one id; sampled ids from 4 on are the letters a, b, c ..."""

    bos_id, eos_id, vocab_size = 1, 2, 1000

    def encode(self, text: str) -> list[int]:
        return [3]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(ord("a") + id - 4) if id > 3 else "." for id in ids)


class Table:
    """Rewards by the answer's text; what is not in the table gets `otherwise`."""

    def __init__(self, table: dict[str, float], otherwise: float = 0.0):
        self.table, self.otherwise = table, otherwise

    def logits(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        return [self.table.get(answer, self.otherwise) for answer in answers]

    def scores(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Scores]:
        return [Scores(logit, -logit, logit) for logit in self.logits(prompts, answers)]

    def fits(self, prompt: Prompt, answer: str) -> bool:
        return len(answer) < 50


class NoFiles:
    """Nothing is saved in these tests."""

    def save(self, folder: Path) -> None:
        raise AssertionError

    def load(self, folder: Path) -> None:
        raise AssertionError


@pytest.fixture
def toy() -> Assistant:
    """A random model of twelve tokens that answers with letters."""
    model = Transformer(ModelConfig(dim=16, layers=1, heads=2, ffn=16, vocab_size=12, context=64))
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, 0.0, 0.2, generator=torch_rng(0, "toy", name))
        else:
            nn.init.ones_(weight)
    return Assistant(model.eval(), Letters(), "toy")  # type: ignore[arg-type]


@pytest.fixture
def prompts() -> list[Prompt]:
    return [Prompt(checked([Message("user", f"Say {number}")]), safety=number % 2 == 1) for number in range(8)]


@pytest.fixture
def table() -> type[Table]:
    return Table


@pytest.fixture
def no_files() -> NoFiles:
    return NoFiles()


@pytest.fixture
def answer() -> Callable[..., Answer]:
    """An answer of these ids after prompt ids, as the engine would return it."""

    def make(text: str, prompt_ids: Sequence[int] = (1, 3), ids: Sequence[int] = (4, 2), finished: bool = True) -> Answer:
        return Answer(text, list(prompt_ids), Completion(list(ids), [-1.0] * len(ids), finished))

    return make
