"""Low-rank adapters (Hu et al. 2021, section 4): any linear layer W may carry small changes scale * B A under names, of which one or
none is at work. The layer itself is neither copied nor changed, so a base carries many adapters for the memory of the adapters.

D width of a layer's input, E of its output, r rank.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from ..core.errors import UserError
from ..core.seeds import torch_rng
from .config import BLOCK_LINEARS, LoraConfig
from .transformer import Trunk

Changes = Mapping[str, tuple[Tensor, Tensor]]
"""Layer (`layers.0.attention.wq`) -> A [r, D] and B [E, r]."""


class Change(nn.Module):
    """What one adapter adds to one layer."""

    def __init__(self, a: Tensor, b: Tensor, scale: float, dropout: float):
        super().__init__()
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)
        self.scale, self.dropout = scale, dropout

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        """out [.., E] and what x [.., D] adds to it, in the precision of A and B, which is kept higher than that of a 16-bit base."""
        few = linear(dropout(x.to(self.a.dtype), self.dropout, self.training), self.a) * self.scale
        if out.dtype != few.dtype:
            return (out + linear(few, self.b)).to(out.dtype)
        # Scaled while it is small and added as it is multiplied: nothing else of the size of `out` is made.
        return torch.addmm(out.flatten(0, -2), few.flatten(0, -2), self.b.mT).view(out.shape)

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """scale * B A, [E, D] in float32."""
        return (self.b.float() @ self.a.float()) * self.scale


class LoraLinear(nn.Module):
    """A linear layer of any kind, and the changes of named adapters to it; `active` names the one at work."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base
        self.changes = nn.ModuleDict()
        self.active: str | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.active is None or self.active not in self.changes:
            plain: Tensor = self.base(x)
            return plain
        change = self.changes[self.active]
        assert isinstance(change, Change)
        if type(self.base) is nn.Linear and self.base.weight.dtype == change.a.dtype and not (self.training and change.dropout):
            out: Tensor = _Changed.apply(x, self.base.weight, change.a, change.b, change.scale)  # type: ignore[no-untyped-call]
            return out
        out = self.base(x)
        changed: Tensor = change(x, out)
        return changed


class _Changed(torch.autograd.Function):
    """x (W + scale B A)^T with W frozen, each product added to the one before in its place, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.T
        ctx.save_for_backward(flat, low, weight, a, b)
        ctx.scale = scale
        return (flat @ weight.T).addmm_(low, b.T, alpha=scale).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None, None]:  # type: ignore[override]
        flat, low, weight, a, b = ctx.saved_tensors
        outer = gradient.reshape(-1, gradient.shape[-1])
        # r columns: products run several times as fast where these follow each other in memory, or stand as rows.
        inner = (outer @ b.T.contiguous().T).mul_(ctx.scale)
        to_x = (outer @ weight).addmm_(inner, a).view(*gradient.shape[:-1], -1) if ctx.needs_input_grad[0] else None
        to_a = inner.T @ flat if ctx.needs_input_grad[2] else None
        to_b = (low.T @ outer).T.mul(ctx.scale) if ctx.needs_input_grad[3] else None
        return to_x, None, to_a, to_b, None


def linear_layers(model: Trunk, names: tuple[str, ...] = (*BLOCK_LINEARS, "output")) -> dict[str, Any]:
    """The linear layers of these names, by their path in the model; a layer with adapters is that layer."""
    found = {path: module for path, module in model.named_modules() if path.rpartition(".")[2] in names}
    return {path: module for path, module in found.items() if not isinstance(module, nn.ModuleList)}


def shape_of(layer: nn.Module) -> tuple[int, int]:
    """(E, D) of a linear layer, with adapters or without."""
    plain = layer.base if isinstance(layer, LoraLinear) else layer
    return plain.out_features, plain.in_features  # type: ignore[return-value]


def new_changes(model: Trunk, config: LoraConfig, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter that changes nothing yet: A uniform within 1 / sqrt(D), as PEFT's Kaiming rule comes to, B zero."""
    changes = {}
    for path, layer in linear_layers(model, config.names).items():
        outputs, inputs = shape_of(layer)
        a = (torch.rand(config.r, inputs, generator=torch_rng(seed, "lora", path)) * 2 - 1) / math.sqrt(inputs)
        changes[path] = (a, torch.zeros(outputs, config.r))
    return changes


def add_adapter(model: Trunk, name: str, changes: Changes, scale: float, dropout: float = 0.0) -> None:
    """Lays an adapter over a model in place, freezes everything else in it and puts the adapter to work.

    Raises UserError for a name that is taken or unfit, and for changes that do not fit the model's layers.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or hasattr(nn.ModuleDict, name):
        raise UserError(f"adapter name {name!r}: expected letters, digits, - and _, such as --adapter french=DIR")
    if name in adapters(model):
        raise UserError(f"two adapters are called {name!r}; give each its own name")
    check_fit(model, changes, f"adapter {name!r}")
    model.requires_grad_(False)
    for path, (a, b) in changes.items():
        parent, _, last = path.rpartition(".")
        holder, layer = model.get_submodule(parent), model.get_submodule(path)
        if not isinstance(layer, LoraLinear):
            layer = LoraLinear(layer).train(layer.training)
            setattr(holder, last, layer)
        device = model.device
        layer.changes[name] = Change(a.to(device, copy=True), b.to(device, copy=True), scale, dropout).train(layer.training)
    switch(model, name)


def check_fit(model: Trunk, changes: Changes, what: str) -> None:
    """Raises UserError in one line when A and B do not belong to layers of this model."""
    layers = linear_layers(model)
    for path, (a, b) in changes.items():
        if path not in layers:
            raise UserError(
                f"{what} changes {path}, which a model of {model.config.layers} layers does not have; it was made for another base"
            )
        outputs, inputs = shape_of(layers[path])
        if a.shape != (b.shape[1], inputs) or b.shape[0] != outputs:
            raise UserError(
                f"{what}: {path} has A {list(a.shape)} and B {list(b.shape)}, the base's layer is {[outputs, inputs]}; "
                "it was made for another base"
            )
    if "output" in changes and model.config.tied:
        raise UserError(f"{what} changes the vocabulary head, which this model shares with its embedding; leave `output` out")


def adapters(model: Trunk) -> list[str]:
    """Names of the adapters that a model carries, in the order in which they came."""
    layers = (module for module in model.modules() if isinstance(module, LoraLinear))
    return list(dict.fromkeys(name for layer in layers for name in layer.changes))


def switch(model: Trunk, name: str | None) -> None:
    """Puts one adapter to work, or none. Raises UserError when the model does not carry it."""
    if name is not None and name not in adapters(model):
        raise UserError(f"no adapter {name!r}; there are {', '.join(adapters(model)) or 'none'}")
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.active = name


def changes_of(model: Trunk, name: str) -> dict[str, Change]:
    """What an adapter adds, by layer."""
    found = {}
    for path, layer in linear_layers(model).items():
        if isinstance(layer, LoraLinear) and name in layer.changes:
            change = layer.changes[name]
            assert isinstance(change, Change)
            found[path] = change
    return found
