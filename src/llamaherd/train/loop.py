"""THE training loop: pretraining, supervised tuning, reward models and PPO all run here.

    batches -> loss sums and counts -> one gradient divided by the global count -> check -> clip -> step -> log -> save

A batch source yields (micro-batches of one step, where it stands after it); standing None means that the run cannot be
taken up there (inside a PPO iteration, say). The loss of a micro-batch is a sum with a count, so that the gradient of a
step does not depend on how its batch was cut.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.metrics import MetricsLog, read_metrics
from ..core.progress import Progress
from .config import OptimizerConfig
from .flops import peak_flops
from .optimizer import FACTOR, adamw, learning_rate
from .state import ModelFiles, load_state, save_state


@dataclass
class LossSum:
    """Loss of one micro-batch as a sum. `count`: what it is divided by in the end (trained tokens, or pairs)."""

    total: Tensor
    count: int
    tokens: int
    flops: float = 0.0
    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Other metrics of the step as (sum, count)."""


Source = Callable[[Any], Iterator[tuple[Sequence[Any], Any]]]
"""Where it stands (None: at the start) -> iterator of (micro-batches, where it stands after them or None)."""


class NonFiniteError(UserError):
    """Loss or gradient is not a number: training stopped before the step."""


@dataclass(frozen=True)
class Trained:
    """What a call of `train` did in all, earlier interrupted ones included."""

    steps: int
    loss: float
    """Mean loss over the last tenth of the steps."""


def train(
    model: nn.Module,
    loss: Callable[[Any], LossSum],
    source: Source,
    *,
    total_steps: int,
    config: OptimizerConfig,
    files: ModelFiles,
    state: Path,
    metrics: Path,
    label: str,
    lr_factor: Callable[[str], float] | None = None,
    annotate: Callable[[dict[str, float]], None] = lambda values: None,
) -> Trained:
    """Trains `model` in place for `total_steps` (or until the source ends), continuing from `state` if it holds one.

    `lr_factor` as in `adamw`; `annotate` may add to the metrics of a step, its seconds included, before they are written.
    Raises NonFiniteError before a step whose loss or gradient norm is not finite; the last saved state stays.
    """
    optimizer = adamw(model, config, lr_factor)
    done, standing = load_state(state, files, model, optimizer)
    log = MetricsLog(metrics, resume_step=done)
    progress = Progress(label, total_steps, done)
    saved_at = time.perf_counter()
    model.train()
    # islice asks for no batch beyond the last: PPO's source would sample a whole iteration for it.
    for micro_batches, position in islice(source(standing), max(0, total_steps - done)):
        started = time.perf_counter()
        values = _step(model, loss, micro_batches, optimizer, config, learning_rate(config, done, total_steps), done + 1)
        done += 1
        _add_speed(values, time.perf_counter() - started, next(model.parameters()))
        annotate(values)
        log.write(done, values)
        progress.update(done, f"loss {values['loss']:.3f}")
        if position is not None and done < total_steps and time.perf_counter() - saved_at >= config.checkpoint_every_s:
            save_state(state, done, files, model, optimizer, position)
            saved_at = time.perf_counter()
    progress.close()
    log.close()
    model.eval()
    return Trained(done, _late_loss(metrics))


def _step(
    model: nn.Module,
    loss: Callable[[Any], LossSum],
    micro_batches: Sequence[Any],
    optimizer: torch.optim.Optimizer,
    config: OptimizerConfig,
    lr: float,
    step: int,
) -> dict[str, float]:
    optimizer.zero_grad(set_to_none=True)
    total, count, tokens, flops = 0.0, 0, 0, 0.0
    sums: dict[str, tuple[float, float]] = {}
    bad = ""
    for number, micro in enumerate(micro_batches, 1):
        part = loss(micro)
        if part.count:
            part.total.backward()  # type: ignore[no-untyped-call]
        total, count = total + part.total.item(), count + part.count
        if not math.isfinite(total):
            bad = bad or f" micro-batch {number} of {len(micro_batches)}"
        tokens, flops = tokens + part.tokens, flops + part.flops
        for name, (value, weight) in part.sums.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + value, before[1] + weight)
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    for gradient in gradients:
        gradient /= max(1, count)
    norm = nn.utils.get_total_norm(gradients).item() if gradients else 0.0
    mean = total / max(1, count)
    if not (math.isfinite(mean) and math.isfinite(norm)):
        raise NonFiniteError(
            f"step {step}{bad}: loss {mean}, gradient norm {norm}; stopped before the step, the last saved state is kept. "
            "A lower learning rate or cleaner data usually helps"
        )
    if norm > config.clip:
        for gradient in gradients:
            gradient *= config.clip / (norm + 1e-6)
    for group in optimizer.param_groups:
        group["lr"] = lr * group[FACTOR]
    optimizer.step()
    values = {"loss": mean, "lr": lr, "grad_norm": norm, "tokens": tokens, "trained": count, "flops": flops}
    return values | {name: value / max(weight, 1e-9) for name, (value, weight) in sums.items()}


def _add_speed(values: dict[str, float], seconds: float, weight: torch.Tensor) -> None:
    values["seconds"] = seconds
    values["tokens_per_s"] = values["tokens"] / seconds
    values["flop_utilisation"] = values.pop("flops") / seconds / peak_flops(weight.device, weight.dtype)


def _late_loss(metrics: Path) -> float:
    losses = [row["loss"] for row in read_metrics(metrics) if row.get("loss") is not None]
    late = losses[-max(1, len(losses) // 10) :]
    return sum(late) / len(late) if late else 0.0
