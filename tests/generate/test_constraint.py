"""Constraints that hold, and constraints that fail: those end their own sequence and no other."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from llamaherd.core.errors import UserError
from llamaherd.core.seeds import torch_rng
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import Engine
from llamaherd.generate.memory import Memory
from llamaherd.generate.sequence import Event
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer

SAMPLED = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=12)


@pytest.fixture(scope="module")
def model() -> Transformer:
    model = Transformer(ModelConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=56, vocab_size=30, context=60))
    for weight in model.parameters():
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.2, generator=torch_rng(0, "weights"))
    return model


class Even:
    """Even ids only, until it fails in its own way after so many tokens."""

    def __init__(self, fails: str = "", after: int = 4):
        self.fails, self.left = fails, after

    def allowed(self) -> Tensor | None:
        if self.left == 0 and self.fails == "allowed":
            raise UserError("no rule for this")
        even = torch.arange(30) % 2 == 0
        return even & (self.left > 0) if self.fails == "nothing" else even

    def take(self, id: int) -> None:
        self.left -= 1
        if self.left == 0 and self.fails == "take":
            raise UserError("not this one")


def run(model: Transformer, invariant: bool, middle: Callable[[], Even | None]) -> list[list[Event]]:
    """Three sequences, the second with a constraint."""
    engine = Engine(model, invariant=invariant, memory=Memory())
    asked: list[Even | None] = [None, middle(), Even()]
    numbers = [engine.add([5, 6, 7], SAMPLED, seed, constraint=constraint) for seed, constraint in enumerate(asked)]
    told: dict[int, list[Event]] = {number: [] for number in numbers}
    while engine.busy:
        for event in engine.step():
            told[event.sequence].append(event)
    return list(told.values())


@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize(
    ("fails", "tokens", "says"), [("allowed", 4, "no rule"), ("take", 3, "not this"), ("nothing", 4, "no token that may come next")]
)
def test_one_that_fails_ends_its_own_sequence_alone(model: Transformer, invariant: bool, fails: str, tokens: int, says: str) -> None:
    plain = run(model, invariant, Even)
    broken = run(model, invariant, lambda: Even(fails))
    for row in (0, 2):
        assert [event.id for event in broken[row]] == [event.id for event in plain[row]]
        assert [event.log_prob for event in broken[row]] == [event.log_prob for event in plain[row]]
    *said, last = broken[1]
    assert [event.id for event in said] == [event.id for event in plain[1]][:tokens]
    assert (last.id, last.reason) == (-1, "error")
    assert says in str(last.error)


def test_one_that_holds_lets_through_what_it_allows(model: Transformer) -> None:
    free, even, _ = run(model, False, Even)
    assert all(event.id % 2 == 0 for event in even)
    assert len(even) == 12
    assert any(event.id % 2 for event in free)
    anything = Even()
    anything.allowed = lambda: None  # type: ignore[method-assign]
    assert len(run(model, False, lambda: anything)[1]) == 12
