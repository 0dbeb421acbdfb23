"""The gradient of a step is divided once by its global count: how a batch is cut into micro-batches changes nothing."""

from collections.abc import Sequence

import pytest
import torch

from llamaherd.core.seeds import python_rng
from llamaherd.model.transformer import Transformer
from llamaherd.train.batches import Masked, TokenBatch, next_token_loss
from llamaherd.train.config import OptimizerConfig
from llamaherd.train.loop import _step
from llamaherd.train.optimizer import adamw

CONFIG = OptimizerConfig(lr=0.001, clip=0.5)


def documents() -> list[Masked]:
    """Eight of very unequal length and unequal shares of trained tokens."""
    rng = python_rng(0, "documents")
    return [
        ([rng.randrange(40) for _ in range(length)], [int(rng.random() < share) for _ in range(length)])
        for length, share in [(30, 0.9), (2, 1.0), (9, 0.2), (17, 0.5), (5, 1.0), (12, 0.7), (3, 1.0), (22, 0.1)]
    ]


def one_step(model: Transformer, parts: Sequence[Sequence[Masked]]) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Two steps on the same batch, so that moments count too: metrics of the second, gradients and weights."""
    optimizer = adamw(model, CONFIG)
    for step in (1, 2):
        values = _step(
            model,
            lambda micro: next_token_loss(model, TokenBatch.of(micro, model.device)),
            parts,
            optimizer,
            CONFIG,
            CONFIG.lr,
            step,
        )
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    return values, weights | {f"{name} gradient": weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("sizes", [[1] * 8, [4, 4], [1, 6, 1], [5, 3], [2, 1, 5]])
def test_every_cut_gives_the_same_step(model: Transformer, sizes: list[int]) -> None:
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    rows = documents()
    whole_values, whole = one_step(model, [rows])
    model.load_state_dict(start)
    rest = iter(rows)
    values, cut = one_step(model, [[next(rest) for _ in range(size)] for size in sizes])
    for name in ("loss", "grad_norm", "trained", "tokens", "trained_share"):
        assert values[name] == pytest.approx(whole_values[name], rel=1e-5), name
    assert len(whole) == 2 * len(start)
    for name, value in whole.items():
        assert torch.allclose(cut[name], value, atol=1e-6), name


def test_the_mean_is_that_over_all_trained_tokens(model: Transformer) -> None:
    rows = documents()
    sums = [next_token_loss(model, TokenBatch.of([row], model.device)) for row in rows]
    expected = sum(part.total.item() for part in sums) / sum(part.count for part in sums)
    values = _step(
        model,
        lambda micro: next_token_loss(model, TokenBatch.of(micro, model.device)),
        [rows[:3], rows[3:]],
        adamw(model, CONFIG),
        CONFIG,
        CONFIG.lr,
        1,
    )
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    assert values["trained"] == sum(sum(mask[1:]) for _, mask in rows)
