"""Counted moments of a step against what torch's allocator says was alive."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from llamaherd.model.config import LoraConfig, ModelConfig
from llamaherd.model.lora import add_adapter, new_changes
from llamaherd.model.memory import Frozen, Pass
from llamaherd.model.transformer import Scorer, Transformer, new_model, scorer_from
from llamaherd.reward.pairs import Pair, pair_loss
from llamaherd.train.batches import TokenBatch, next_token_loss
from llamaherd.train.config import OptimizerConfig
from llamaherd.train.memory import Moment, Trained, step_moments
from llamaherd.train.optimizer import adamw

SHAPE = ModelConfig(dim=64, layers=4, heads=4, kv_heads=2, ffn=176, vocab_size=700, context=128)


def peak_of(work: Callable[[], Any]) -> int:
    """The most bytes of tensors that were alive at once during `work`, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    alive = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most


def language_step(model: Transformer, rows: int, tokens: int, passes: int) -> Callable[[], None]:
    documents = [([1] * (tokens + 1), [1] * (tokens + 1)) for _ in range(rows)]

    def work() -> None:
        for _ in range(passes):
            next_token_loss(model, TokenBatch.of(documents, model.device)).total.backward()

    return work


@pytest.mark.parametrize(("rows", "tokens"), [(1, 64), (6, 100)])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("tied", [False, True])
def test_a_step_of_tuning(rows: int, tokens: int, passes: int, tied: bool) -> None:
    shape = SHAPE.model_copy(update={"tied": tied})
    model = new_model(shape, 0).train()
    measured = peak_of(language_step(model, rows, tokens, passes))
    moments = step_moments(Trained(shape), Pass((tokens,) * rows, rows * tokens), passes > 1)
    assert max(moment.total for moment in moments) == pytest.approx(measured, rel=0.1)


def test_a_step_of_a_checkpointed_model() -> None:
    model = new_model(SHAPE, 0).train()
    model.checkpointing = True
    measured = peak_of(language_step(model, 6, 100, 1))
    moments = step_moments(Trained(SHAPE, checkpointing=True), Pass((100,) * 6, 600), False)
    assert max(moment.total for moment in moments) == pytest.approx(measured, rel=0.15)


def test_a_step_of_an_adapter() -> None:
    model, lora = new_model(SHAPE, 0).train(), LoraConfig(r=4)
    add_adapter(model, "a", new_changes(model, lora, 0), lora.scale)
    measured = peak_of(language_step(model, 6, 100, 1))
    moments = step_moments(Trained(SHAPE, frozen=Frozen(lora, 32)), Pass((100,) * 6, 600), False)
    assert max(moment.total for moment in moments) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("lengths", [(90, 90), (100, 60)])
def test_a_step_of_a_reward_model(lengths: tuple[int, int]) -> None:
    scorer: Scorer = scorer_from(new_model(SHAPE, 0)).train()
    pairs = [Pair([1] * lengths[0], [1] * lengths[1], 0.0, (1.0, 1.0)) for _ in range(6)]
    measured = peak_of(lambda: pair_loss(scorer, pairs, 0.0).total.backward())
    moments = step_moments(Trained(SHAPE, scorer=True), Pass((lengths[0],) * 6 + (lengths[1],) * 6, 12), False)
    assert max(moment.total for moment in moments) == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("kind", ["adamw", "adamw-8bit"])
def test_the_optimizer_holds_two_moments_of_every_weight(kind: str) -> None:
    model = new_model(SHAPE, 0)
    counted = Trained(SHAPE).optimizer(OptimizerConfig.model_validate({"kind": kind}))
    assert counted == pytest.approx(Trained(SHAPE).weights * (2 if kind == "adamw" else 0.5), rel=0.02)
    if kind == "adamw":
        optimizer = adamw(model, OptimizerConfig())
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
        held = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if value.ndim)
        assert held == counted


def test_moments_add_up() -> None:
    moment = Moment("loss", {"activations": 5, "logits": 2}).beside(weights=7, logits=1)
    assert dict(moment.parts) == {"weights": 7, "logits": 3, "activations": 5}
    assert moment.total == 15
