"""Four-bit NormalFloat weights with double quantisation (Dettmers et al. 2023, QLoRA, sections 2 and 3), laid out as bitsandbytes
does, so that its kernels can multiply by them where it is installed; without it, a table and a plain product.

A weight is one of the sixteen CODE values times the largest magnitude in its block of 64. Those magnitudes, less their mean, are
one of the 256 LEVELS times the largest in their block of 256. Together 0.516 bytes for each weight.
"""

import sys
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

BLOCK, BLOCK2 = 64, 256
CODE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Quantiles of a normal distribution, scaled to [-1, 1], with an exact zero (QLoRA, appendix E)."""


@lru_cache(maxsize=8)
def _code(device: torch.device) -> Tensor:
    return torch.tensor(CODE, device=device)


@lru_cache(maxsize=8)
def _levels(device: torch.device) -> Tensor:
    """[256] ascending: the signed dynamic data type (Dettmers et al. 2022, section 1.3), seven decades of ever finer steps, 0 and 1."""
    values = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1)
        middles = (edges[:-1] + edges[1:]) / 2.0
        values += ((10 ** (decade - 6)) * middles).tolist()
        values += (-(10 ** (decade - 6)) * middles).tolist()
    return torch.tensor(sorted(values), device=device)


def _blocks(values: Tensor, size: int) -> Tensor:
    """[blocks, size] of a flat tensor, the last one filled up with zeros."""
    return pad(values, (0, -len(values) % size)).view(-1, size)


def _codes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the code nearest to each value over its block's magnitude, [n] uint8, half way the lower one; magnitudes [blocks]."""
    table, blocks = _code(values.device), _blocks(values, BLOCK)
    largest = blocks.abs().amax(1)
    scaled = blocks * (1.0 / largest.clamp(min=1e-38))[:, None]
    nearest = torch.bucketize(scaled, (table[:-1] + table[1:]) / 2, out_int32=True)
    return nearest.to(torch.uint8).flatten()[: len(values)], largest


def _level_indices(values: Tensor) -> tuple[Tensor, Tensor]:
    """The same for levels in their larger blocks; as in bitsandbytes' tables, values are first rounded to a grid of 65,536 steps."""
    table, blocks = _levels(values.device), _blocks(values, BLOCK2)
    largest = blocks.abs().amax(1)
    scaled = blocks * (1.0 / largest.clamp(min=1e-38))[:, None]
    grid = ((scaled + 1) * 0.5 * 65535 + 0.5).floor() / 65535 * 2 - 1
    nearest = torch.bucketize(grid, (table[:-1] + table[1:]) / 2, out_int32=True)
    return nearest.to(torch.uint8).flatten()[: len(values)], largest


class Nf4Linear(nn.Module):
    """A frozen linear layer [E, D] in 4 bits. Gradients go through it to its input; its weight has none."""

    codes: Tensor
    """[ceil(E D / 2)] uint8: two weights in a byte, the first one in the high half."""
    absmax: Tensor
    """[blocks] uint8: index into the levels."""
    absmax2: Tensor
    """[ceil(blocks / 256)] float32."""
    offset: Tensor
    """[] float32: mean of the blocks' magnitudes."""

    def __init__(self, weight: Tensor):
        """Quantises `weight` [E, D] of any float type, on its device."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        flat = weight.detach().flatten().float()
        indices, largest = _codes(flat)
        indices = pad(indices, (0, len(indices) % 2), value=CODE.index(0.0))
        offset = largest.mean()
        levels, largest2 = _level_indices(largest - offset)
        self.register_buffer("codes", indices[::2] << 4 | indices[1::2])
        self.register_buffer("absmax", levels)
        self.register_buffer("absmax2", largest2)
        self.register_buffer("offset", offset)

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers())

    def magnitudes(self) -> Tensor:
        """[blocks] float32: the first level of quantisation, out of the second."""
        blocks = _blocks(_levels(self.absmax.device)[self.absmax.int()], BLOCK2) * self.absmax2[:, None]
        return blocks.flatten()[: len(self.absmax)] + self.offset

    def dequantised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [E, D] that the layer multiplies by."""
        if kernels := self._kernels():
            return kernels.functional.dequantize_4bit(self.codes[:, None], self._state(kernels, dtype))  # type: ignore[no-any-return]
        return self.looked_up(dtype)

    def looked_up(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The same, without bitsandbytes."""
        indices = torch.stack([self.codes >> 4, self.codes & 15], dim=1).flatten()[: self.out_features * self.in_features]
        values = _blocks(_code(indices.device)[indices.int()], BLOCK) * self.magnitudes()[:, None]
        return values.flatten()[: len(indices)].view(self.out_features, self.in_features).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and (kernels := self._kernels()):
            return kernels.matmul_4bit(x, self.codes[:, None], self._state(kernels, x.dtype))  # type: ignore[no-any-return]
        out: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return out

    def _kernels(self) -> Any:
        """bitsandbytes where it can be used: rows that are no whole number of blocks come out wrong of its kernel for AVX-512 (0.50.2)."""
        return bitsandbytes() if self.in_features % BLOCK == 0 else None

    def _state(self, kernels: Any, dtype: torch.dtype) -> Any:
        """What bitsandbytes calls the same tensors."""
        state, device = kernels.functional.QuantState, self.codes.device
        levels = state(absmax=self.absmax2, code=_levels(device), blocksize=BLOCK2, dtype=torch.float32)
        shape = torch.Size((self.out_features, self.in_features))
        return state(
            absmax=self.absmax, shape=shape, code=_code(device), blocksize=BLOCK, quant_type="nf4", dtype=dtype,
            offset=self.offset, state2=levels,
        )  # fmt: skip


class _Product(torch.autograd.Function):
    """x W^T that keeps no dense weight for the way back, but makes it again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Nf4Linear) -> Tensor:
        ctx.layer = layer
        return linear(x, layer.dequantised(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient @ ctx.layer.dequantised(gradient.dtype), None


@lru_cache(maxsize=1)
def bitsandbytes() -> Any:
    """The package, or None where it is not installed."""
    # On some processors it asks a hub for kernels if the package `kernels` is there: nobody asked for that request.
    hidden = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # type: ignore[assignment]
    import logging

    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        import bitsandbytes
    except ImportError:
        return None
    finally:
        log.setLevel(before)
        del sys.modules["kernels"]
        if hidden is not None:
            sys.modules["kernels"] = hidden
    return bitsandbytes
