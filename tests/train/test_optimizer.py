import math

import numpy as np
import pytest
import torch
from torch import nn

from llamaherd.core.errors import UserError
from llamaherd.train import optimizer as optimizer_module
from llamaherd.train.config import OptimizerConfig
from llamaherd.train.loop import LossSum, _step
from llamaherd.train.optimizer import adamw, demand_optimizer, learning_rate, moments_of


def rates(total: int, **values: float | str) -> list[float]:
    config = OptimizerConfig.model_validate({"lr": 1.0} | values)
    return [learning_rate(config, step, total) for step in range(total)]


def test_cosine_after_warm_up() -> None:
    found = rates(11, warmup_steps=4, final_share=0.2)
    cosine = [0.2 + 0.8 * (1 + math.cos(math.pi * share)) / 2 for share in (0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1)]
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0, *cosine])
    assert found[7] == pytest.approx(0.6)  # half way
    assert found[-1] == pytest.approx(0.2)


def test_the_papers_pretraining_schedule() -> None:
    config = OptimizerConfig(warmup_steps=2000)
    total = 500_000
    assert learning_rate(config, 0, total) == pytest.approx(3e-4 / 2000)
    assert learning_rate(config, 1999, total) == pytest.approx(3e-4)
    assert learning_rate(config, total - 1, total) == pytest.approx(3e-5)


def test_constant() -> None:
    assert rates(6, schedule="constant", warmup_steps=2) == pytest.approx([0.5, 1, 1, 1, 1, 1])


@pytest.mark.parametrize(("total", "first"), [(100, 1 / 5), (1000, 1 / 30), (101, 1 / 5), (201, 1 / 7)])
def test_reward_models_warm_up_over_a_share_and_at_least_some_steps(total: int, first: float) -> None:
    assert rates(total, warmup_share=0.03, warmup_steps=5)[0] == pytest.approx(first)


@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 5), (2, 1), (3, 3), (3, 50)])
def test_short_runs_have_rates_too(total: int, warmup: int) -> None:
    assert all(0 < rate <= 1 for rate in rates(total, warmup_steps=warmup))


class Linear(nn.Module):
    """A matrix and a gain whose gradients are whatever the batch says."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
        self.gain = nn.Parameter(torch.tensor([1.0, 1.0]))

    def loss(self, gradients: tuple[np.ndarray, np.ndarray]) -> LossSum:
        matrix, gain = map(torch.from_numpy, gradients)
        return LossSum((self.matrix * matrix).sum() + (self.gain * gain).sum(), count=1, tokens=1)


def test_steps_equal_adamw_written_out() -> None:
    config = OptimizerConfig(lr=0.1, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.5, clip=1.5)
    model = Linear()
    optimizer = adamw(model, config)
    rng = np.random.default_rng(0)
    weights = [model.matrix.detach().numpy().astype(np.float64), model.gain.detach().numpy().astype(np.float64)]
    means, squares = [np.zeros_like(weight) for weight in weights], [np.zeros_like(weight) for weight in weights]
    norms = []
    for step in range(1, 7):
        gradients = (rng.normal(size=(2, 2)).astype(np.float32), rng.normal(size=2).astype(np.float32))
        lr = 0.1 / step
        values = _step(model, model.loss, [gradients], optimizer, config, lr, step)
        norm = math.sqrt(sum((gradient.astype(np.float64) ** 2).sum() for gradient in gradients))
        norms.append(norm)
        assert values["grad_norm"] == pytest.approx(norm, rel=1e-5)
        for index, decay in enumerate((0.5, 0.0)):  # gains do not decay
            gradient = gradients[index] * min(1.0, 1.5 / norm)
            means[index] = 0.8 * means[index] + 0.2 * gradient
            squares[index] = 0.9 * squares[index] + 0.1 * gradient**2
            mean, square = means[index] / (1 - 0.8**step), squares[index] / (1 - 0.9**step)
            weights[index] = weights[index] * (1 - lr * decay) - lr * mean / (np.sqrt(square) + 1e-3)
        assert np.allclose(model.matrix.detach().numpy(), weights[0], atol=1e-5)
        assert np.allclose(model.gain.detach().numpy(), weights[1], atol=1e-5)
    assert min(norms) < 1.5 < max(norms), "clipped and unclipped steps are both to be seen"


def test_frozen_weights_stay() -> None:
    model = Linear()
    model.matrix.requires_grad_(False)
    before = model.matrix.clone()
    config = OptimizerConfig(lr=0.1)
    gradients = (np.ones((2, 2), np.float32), np.ones(2, np.float32))
    _step(model, model.loss, [gradients], adamw(model, config), config, 0.1, 1)
    assert model.matrix.equal(before)
    assert not model.gain.eq(1).any()


@pytest.mark.parametrize("kind", ["adamw-8bit"])
def test_eight_bit_moments_step_much_like_whole_ones(kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    results = []
    for config in (OptimizerConfig(lr=0.01), OptimizerConfig(lr=0.01, kind=kind)):  # type: ignore[arg-type]
        layer = torch.nn.Linear(128, 64)
        generator = torch.Generator().manual_seed(0)
        for weight in layer.parameters():
            weight.data.normal_(generator=generator)
        optimizer = adamw(layer, config)
        for _ in range(10):
            for weight in layer.parameters():
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()
        results.append(layer.weight.detach())
        size = sum(value.nbytes for value in moments_of(optimizer, layer.weight).values())
        assert size < (8.1 if config.kind == "adamw" else 2.2) * layer.weight.numel()
    assert 0 < (results[0] - results[1]).abs().max() < 0.02


def test_kinds_that_do_not_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    demand_optimizer(OptimizerConfig(), cpu)
    with pytest.raises(UserError, match="without a GPU give adamw or adamw-8bit"):
        demand_optimizer(OptimizerConfig(kind="paged-adamw-8bit"), cpu)
    monkeypatch.setattr(optimizer_module, "bitsandbytes", lambda: None)
    with pytest.raises(UserError, match=r"needs bitsandbytes; pip install 'llamaherd\[qlora\]', or give --optimizer.kind=adamw"):
        demand_optimizer(OptimizerConfig(kind="adamw-8bit"), cpu)
