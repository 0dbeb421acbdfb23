"""AdamW, its moments as they are saved, and the learning rate of each step."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..model.nf4 import bitsandbytes
from .config import OptimizerConfig

FACTOR = "lr_factor"
"""Of a group of weights: what the learning rate is multiplied by."""


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Rate of step 0 <= step < total_steps: linear warm-up, then constant or cosine down to final_share of the peak."""
    warmup = max(config.warmup_steps, math.ceil(config.warmup_share * total_steps))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    progress = (step - warmup) / max(1, total_steps - 1 - warmup)
    floor = config.final_share
    return config.lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def demand_optimizer(config: OptimizerConfig, device: torch.device) -> None:
    """Raises UserError when the kind of optimizer that is asked for does not run here."""
    if config.kind == "adamw":
        return
    if bitsandbytes() is None:
        raise UserError(f"optimizer.kind {config.kind} needs bitsandbytes; pip install 'llamaherd[qlora]', or give --optimizer.kind=adamw")
    if config.kind.startswith("paged") and device.type != "cuda":
        raise UserError(f"optimizer.kind {config.kind} moves memory between a GPU and its host; without a GPU give adamw or adamw-8bit")


def adamw(model: nn.Module, config: OptimizerConfig, lr_factor: Callable[[str], float] | None = None) -> torch.optim.Optimizer:
    """AdamW over all trainable weights; only matrices decay. Raises UserError as demand_optimizer does.

    `lr_factor` says by what the rate of the weight of a name is multiplied, where not all have the same.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    trained = [weight for _, weight in named]
    factors = [lr_factor(name) if lr_factor else 1.0 for name, _ in named]
    groups = [
        {"params": [weight for weight, own in zip(trained, factors, strict=True) if own == factor and (weight.ndim >= 2) == matrices],
         "weight_decay": config.weight_decay if matrices else 0.0, FACTOR: factor}
        for factor in dict.fromkeys(factors) for matrices in (True, False)
    ]  # fmt: skip
    if config.kind == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)
    demand_optimizer(config, trained[0].device)
    bits, paged = 8 if config.kind.endswith("8bit") else 32, config.kind.startswith("paged")
    made: torch.optim.Optimizer = bitsandbytes().optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, optim_bits=bits, is_paged=paged,
    )  # fmt: skip
    return made


def moments_of(optimizer: torch.optim.Optimizer, weight: Tensor) -> dict[str, Tensor]:
    """What an optimizer remembers of a weight, as tensors. The tables of bitsandbytes are the same for all weights and left out."""
    state = optimizer.state.get(weight, {})
    return {name: torch.as_tensor(value) for name, value in state.items() if not name.startswith("qmap")}


def restore_moments(optimizer: Any, weight: Tensor, moments: dict[str, Tensor]) -> None:
    """Puts saved moments back, where bitsandbytes keeps its own: in paged memory, if so."""
    if isinstance(optimizer, torch.optim.AdamW):
        optimizer.state[weight] = {name: value.to(weight.device) for name, value in moments.items()}
        return
    index, group = next((i, g) for i, g in enumerate(optimizer.param_groups) if any(weight is member for member in g["params"]))
    place = next(i for i, member in enumerate(group["params"]) if member is weight)
    optimizer.init_state(group, weight, index, place)
    for name, value in moments.items():
        if isinstance(there := optimizer.state[weight][name], Tensor):
            there.copy_(value)
        else:
            optimizer.state[weight][name] = value.item()
