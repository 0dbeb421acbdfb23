import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llamaherd.core.metrics import read_metrics
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import new_model
from llamaherd.train.batches import TokenBatch, next_token_loss
from llamaherd.train.config import OptimizerConfig
from llamaherd.train.loop import LossSum, NonFiniteError, Trained, train
from llamaherd.train.state import save_tensors


class Point(nn.Module):
    """One weight, pulled to where the batch says."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor([0.0]))

    def pull(self, target: float) -> LossSum:
        if target == 666:  # a finite loss whose gradient is not
            return LossSum((self.place - self.place).abs().sqrt().sum(), count=1, tokens=1)
        return LossSum((self.place - target).square().sum(), count=1, tokens=1, flops=2.0)

    def save(self, folder: Path) -> None:
        folder.mkdir()
        save_tensors(self.state_dict(), folder / "point.safetensors")

    def load(self, folder: Path) -> None:
        raise AssertionError("nothing is resumed here")


def run(model: Point, targets: Sequence[float], folder: Path, total_steps: int | None = None, **values: float) -> Trained:
    def source(standing: Any) -> Iterator[tuple[list[float], int]]:
        assert standing is None
        for index, target in enumerate(targets):
            yield [target], index + 1

    config = OptimizerConfig.model_validate({"lr": 0.1, "weight_decay": 0, "checkpoint_every_s": 0} | values)
    return train(
        model, model.pull, source, total_steps=total_steps or len(targets), config=config, files=model, state=folder / "state",
        metrics=folder / "metrics.jsonl", label="test",
    )  # fmt: skip


def test_finds_the_optimum(tmp_path: Path) -> None:
    model = Point()
    done = run(model, [3.0] * 200, tmp_path, checkpoint_every_s=1e9, final_share=0.01)
    assert model.place.item() == pytest.approx(3.0, abs=0.01)
    assert done.steps == 200
    assert done.loss < 0.001
    assert not model.training
    assert not (tmp_path / "state").exists()


def test_what_a_metrics_line_holds(tmp_path: Path) -> None:
    run(Point(), [3.0, 3.0], tmp_path)
    first, second = read_metrics(tmp_path / "metrics.jsonl")
    names = {"step", "loss", "lr", "grad_norm", "tokens", "trained", "seconds", "tokens_per_s", "flop_utilisation"}
    assert set(first) == set(second) == names
    assert (first["step"], first["loss"], first["grad_norm"], first["lr"]) == (1, 9.0, 6.0, 0.1)
    assert first["tokens_per_s"] == pytest.approx(1 / first["seconds"])


@pytest.mark.parametrize("total_steps", [1, 3])
def test_no_batch_is_asked_for_beyond_the_last(tmp_path: Path, total_steps: int) -> None:
    asked: list[int] = []

    def source(standing: Any) -> Iterator[tuple[list[float], int]]:
        while True:
            asked.append(len(asked))
            yield [1.0], len(asked)

    model = Point()
    done = train(
        model, model.pull, source, total_steps=total_steps, config=OptimizerConfig(), files=model, state=tmp_path / "state",
        metrics=tmp_path / "metrics.jsonl", label="test",
    )  # fmt: skip
    assert done.steps == len(asked) == total_steps


def test_a_source_may_end_early(tmp_path: Path) -> None:
    assert run(Point(), [1.0, 2.0], tmp_path, total_steps=10).steps == 2


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (math.nan, "step 3 micro-batch 1 of 1: loss nan"),
        (math.inf, "step 3 micro-batch 1 of 1: loss inf"),
        (666, "step 3: loss 0.0, gradient norm nan"),
    ],
)
def test_what_is_not_finite_stops_before_the_step(tmp_path: Path, bad: float, said: str) -> None:
    model, good = Point(), Point()
    run(good, [3.0, 2.0], tmp_path / "good", total_steps=5)
    with pytest.raises(NonFiniteError, match=said) as found:
        run(model, [3.0, 2.0, bad, 1.0, 1.0], tmp_path / "bad")
    assert "\n" not in str(found.value)
    assert model.place.equal(good.place)
    states = sorted((tmp_path / "bad" / "state").iterdir())
    assert [state.name for state in states] == ["step-00000001", "step-00000002"]
    assert [row["step"] for row in read_metrics(tmp_path / "bad" / "metrics.jsonl")] == [1, 2]


def small_loss(micro: Any) -> LossSum:
    return next_token_loss(*micro)


@pytest.mark.parametrize("parts", ["one of two", "all"])
def test_micro_batches_without_a_trained_token(tmp_path: Path, parts: str) -> None:
    model = new_model(ModelConfig(dim=16, layers=1, heads=2, ffn=16, vocab_size=12, context=8), 0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    silent = TokenBatch.of([([5, 6, 7], [0, 0, 0])], model.device)
    heard = TokenBatch.of([([5, 6, 7], [0, 1, 1])], model.device)
    micro = [(model, silent), (model, heard if parts == "one of two" else silent)]
    done = train(
        model, small_loss, lambda standing: iter([(micro, 1)]), total_steps=1, config=OptimizerConfig(lr=0.1), files=Point(),
        state=tmp_path / "state", metrics=tmp_path / "metrics.jsonl", label="test",
    )  # fmt: skip
    [row] = read_metrics(tmp_path / "metrics.jsonl")
    same = all(weight.equal(before[name]) for name, weight in model.state_dict().items())
    assert all(weight.isfinite().all() for weight in model.parameters())
    if parts == "all":
        assert (done.loss, row["grad_norm"], row["trained"], same) == (0.0, 0.0, 0, True)
    else:
        assert row["loss"] == pytest.approx(math.log(12), rel=0.05)
        assert (row["trained"], row["trained_share"], same) == (2, 0.5, False)
