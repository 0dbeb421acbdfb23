"""Linear layers with weights of 8 or 4 bits, for inference: a weight costs memory traffic, and so time, by its bits.

8 bits: weight[n, k] = scale[n] * q[n, k] with q in -127 to 127. 4 bits: in every group of neighbouring k,
weight[n, k] = scale * (q[n, k] - 8) + zero with q in 0 to 15. Activations keep their float type outside; inside they are rounded
to bfloat16, or for many rows of 8 bits to 15 bits.

N rows of a weight (outputs), K columns (inputs).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .transformer import Transformer

BITS = (8, 4)
GROUPS = (32, 64, 128)
"""Sizes of a group that the CPU and CUDA kernels take."""
BLOCK = 64
"""Rows of a weight of 4 bits that are packed together: N is filled up to a multiple of it, and K to one of the group. In 8 bits K is
filled up to a multiple of it: the kernel reads beyond the end of rows that are not one of 16.
"""
FEW_ROWS = 12
"""Below this many rows the 8-bit kernel, which reads weights at the speed of memory, is faster than a product of integers."""


@dataclass(frozen=True)
class Scheme:
    """How weights are held: `group` columns share a scale and a zero in 4 bits; in 8 bits a whole row shares one scale."""

    bits: int
    group: int | None = None

    def __post_init__(self) -> None:
        assert self.bits in BITS, self.bits
        assert self.group is None if self.bits == 8 else self.group in GROUPS, self.group

    def layout(self, rows: int, columns: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Type and shape of the tensors that stand for a weight [N, K]."""
        if self.group is None:
            return {"weight": (torch.int8, (rows, _up(columns, BLOCK))), "scale": (torch.float32, (rows,))}
        n, k = _up(rows, BLOCK), _up(columns, self.group)
        return {"packed": (torch.uint8, (n, k // 2)), "scale_zero": (torch.bfloat16, (k // self.group, n, 2))}


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def quantize(weight: Tensor, scheme: Scheme) -> dict[str, Tensor]:
    """The tensors of `scheme.layout` that stand for a float weight [N, K]; it has to be finite."""
    return _quantize8(weight.float()) if scheme.group is None else _quantize4(weight.float(), scheme.group)


def _quantize8(weight: Tensor) -> dict[str, Tensor]:
    scale = weight.abs().amax(1) / 127
    whole = scale > 0  # a row of zeros, or of values too small for a scale, is a row of zeros
    q = (weight / scale.where(whole, torch.ones(()))[:, None]).round_().clamp_(-127, 127)
    return {"weight": pad(q.to(torch.int8), (0, _up(weight.shape[1], BLOCK) - weight.shape[1])), "scale": scale}


def _quantize4(weight: Tensor, group: int) -> dict[str, Tensor]:
    rows, columns = weight.shape
    # Columns that fill up the last group repeat its last value, so that they do not widen its range.
    full = pad(weight[None], (0, _up(columns, group) - columns), mode="replicate")[0]
    full = pad(full, (0, 0, 0, _up(rows, BLOCK) - rows))
    grouped = full.view(full.shape[0], -1, group)
    low, high = torch.aminmax(grouped, dim=2)
    # Numbers are chosen for the scale and zero that are kept, which have bfloat16's eight bits.
    scale = ((high - low) / 15).bfloat16()
    zero = (low + 8 * scale.float()).bfloat16()
    step = scale.float().where(scale > 0, torch.ones(()))[..., None]
    q = grouped.sub(zero.float()[..., None]).div_(step).round_().add_(8).clamp_(0, 15)
    scale_zero = torch.stack([scale, zero], dim=2).transpose(0, 1).contiguous()
    return {"packed": pack(q.to(torch.uint8).view(full.shape)), "scale_zero": scale_zero}


def pack(q: Tensor, block: int = BLOCK) -> Tensor:
    """Numbers 0 to 15 [N, K] as bytes [N, K / 2]: in each block of rows and for each column, the first half of the rows in the low
    bits and the second in the high bits, row after row. It is what the CPU kernel reads where there is AVX-512; with AVX2 the
    block has 32 rows.
    """
    low, high = q.view(-1, 2, block // 2, q.shape[1]).unbind(1)
    return (low | (high << 4)).transpose(1, 2).contiguous().view(q.shape[0], q.shape[1] // 2)


def unpack(packed: Tensor) -> Tensor:
    """The numbers [N, K] in `pack`'s bytes [N, K / 2]."""
    rows, half = packed.shape
    byte = packed.view(rows // BLOCK, half * 2, BLOCK // 2)
    return torch.cat([byte & 15, byte >> 4], dim=2).transpose(1, 2).reshape(rows, half * 2)


def dequantize(tensors: Mapping[str, Tensor], scheme: Scheme, rows: int, columns: int) -> Tensor:
    """The float32 weight [N, K] that the tensors stand for."""
    if scheme.group is None:
        return tensors["weight"][:, :columns].float() * tensors["scale"][:, None]
    scale, zero = tensors["scale_zero"].float().transpose(0, 1)[..., None].unbind(2)
    q = unpack(tensors["packed"]).view(scale.shape[0], -1, scheme.group).float()
    return q.sub_(8).mul_(scale).add_(zero).view(scale.shape[0], -1)[:rows, :columns]


class QuantizedLinear(nn.Module):
    """y = x W^T for a weight that is never there as floats. Rows of x do not see each other."""

    def __init__(self, in_features: int, out_features: int, filled_columns: int):
        super().__init__()
        self.in_features, self.out_features, self.filled = in_features, out_features, filled_columns

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """[..., K] of any float type -> [..., N] of that type, without gradients."""
        rows = pad(x, (0, self.filled - self.in_features)).reshape(-1, self.filled)
        return self.product(rows)[:, : self.out_features].to(x.dtype).view(*x.shape[:-1], self.out_features)

    def product(self, rows: Tensor) -> Tensor:
        """[R, K filled up] -> [R, N or more]"""
        raise AssertionError("a layer of 8 or of 4 bits says how")


class Linear8(QuantizedLinear):
    """8 bits on the CPU."""

    weight: Tensor
    scale: Tensor
    scale_bf16: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], in_features: int, out_features: int):
        super().__init__(in_features, out_features, tensors["weight"].shape[1])
        self.register_buffer("weight", tensors["weight"])
        self.register_buffer("scale", tensors["scale"])
        # Float32 activations fall onto a path that is many times slower, and the kernel wants one type for both. A scale is
        # multiplied once for each output, so float32 ones are multiplied afterwards, and here stands one.
        self.register_buffer("scale_bf16", torch.ones(out_features, dtype=torch.bfloat16))

    def product(self, rows: Tensor) -> Tensor:
        if len(rows) >= FEW_ROWS and exact_integers():
            return integer_product(rows.float(), self.weight).mul_(self.scale)
        out: Tensor = torch.ops.aten._weight_int8pack_mm(rows.bfloat16(), self.weight, self.scale_bf16)
        return out.float().mul_(self.scale)


def integer_product(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows [R, K] float32 times a weight [N, K] of int8, in integers: a row is scaled to its largest value and written as two digits
    of 8 bits, which are rows of their own, so that nothing is lost but what 15 bits do not hold.
    """
    scale = (rows.abs().amax(1, keepdim=True) / 127).clamp_(min=torch.finfo(torch.float32).tiny)
    scaled = rows / scale
    high = scaled.round()
    low = scaled.sub_(high).mul_(254).round_()
    sums: Tensor = torch._int_mm(torch.cat([high, low]).to(torch.int8), weight.t())
    first, second = sums.float().chunk(2)
    out: Tensor = second.div_(254).add_(first).mul_(scale)
    return out


@lru_cache(maxsize=1)
def exact_integers() -> bool:
    """Whether this CPU adds products of 8 bits without running over: without VNNI instructions pairs of large ones are cut off."""
    rows, weight = (torch.full((count, 64), 127, dtype=torch.int8) for count in (2 * FEW_ROWS, 64))
    return bool((torch._int_mm(rows, weight.t()) == 64 * 127 * 127).all())


class Linear4(QuantizedLinear):
    """4 bits on the CPU."""

    packed: Tensor
    scale_zero: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], group: int, in_features: int, out_features: int):
        super().__init__(in_features, out_features, tensors["packed"].shape[1] * 2)
        self.group = group
        self.register_buffer("packed", for_this_cpu(tensors["packed"]))
        self.register_buffer("scale_zero", tensors["scale_zero"])

    def product(self, rows: Tensor) -> Tensor:
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows.bfloat16(), self.packed, self.group, self.scale_zero)
        return out


def for_this_cpu(packed: Tensor) -> Tensor:
    """`pack`'s bytes in the order of this CPU's kernel: themselves where there is AVX-512."""
    block = kernel_block()
    if block == BLOCK:
        return packed
    if block:
        return pack(unpack(packed), block)
    return _kernel_order(unpack(packed))


def _kernel_order(q: Tensor) -> Tensor:
    ordered: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q.int(), 1)
    return ordered


@lru_cache(maxsize=1)
def kernel_block() -> int | None:
    """The block of `pack` that this CPU's kernel reads; None for a kernel with another order."""
    q = torch.arange(2 * BLOCK, dtype=torch.uint8).view(BLOCK, 2) * 7 % 16
    theirs = _kernel_order(q)
    return next((block for block in (64, 32) if torch.equal(pack(q, block), theirs)), None)


class CudaLinear8(QuantizedLinear):
    """8 bits on CUDA, where no kernel multiplies them as they are: a weight becomes floats for each product."""

    weight: Tensor
    scale: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], in_features: int, out_features: int):
        super().__init__(in_features, out_features, tensors["weight"].shape[1])
        self.register_buffer("weight", tensors["weight"])
        self.register_buffer("scale", tensors["scale"])

    def product(self, rows: Tensor) -> Tensor:
        return (rows @ self.weight.to(rows.dtype).t()) * self.scale.to(rows.dtype)


class CudaLinear4(QuantizedLinear):
    """4 bits on CUDA, by torch's tinygemm kernel: bfloat16, for few rows."""

    packed: Tensor
    scale_zero: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], group: int, in_features: int, out_features: int):
        super().__init__(in_features, out_features, tensors["packed"].shape[1] * 2)
        self.group = group
        q = unpack(tensors["packed"])
        pairs = (q[:, ::2] << 4) | q[:, 1::2]
        tiles = next(count for count in (8, 4, 2) if self.filled % (16 * count) == 0)
        self.register_buffer("packed", torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), tiles))
        self.register_buffer("scale_zero", tensors["scale_zero"])

    def product(self, rows: Tensor) -> Tensor:
        out: Tensor = torch.ops.aten._weight_int4pack_mm(rows.bfloat16(), self.packed, self.group, self.scale_zero)
        return out


def quantized_linear(tensors: Mapping[str, Tensor], scheme: Scheme, in_features: int, out_features: int) -> QuantizedLinear:
    """The layer for the tensors of a weight [N, K], on the device where they are; on the CPU it keeps them without a copy."""
    cuda = next(iter(tensors.values())).is_cuda
    if scheme.group is None:
        return (CudaLinear8 if cuda else Linear8)(tensors, in_features, out_features)
    return (CudaLinear4 if cuda else Linear4)(tensors, scheme.group, in_features, out_features)


def linear_names(model: nn.Module) -> list[str]:
    """Names of the linear layers, the head included, in model order: what is quantised. Embeddings and norms are not."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def replace_linears(model: nn.Module, layer: Callable[[str, nn.Linear], QuantizedLinear]) -> None:
    """Puts `layer(name, old)` in the place of every linear layer."""
    for name in linear_names(model):
        old = model.get_submodule(name)
        assert isinstance(old, nn.Linear)
        holder, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(holder), attribute, layer(name, old))


def quantize_model(model: Transformer, scheme: Scheme) -> Transformer:
    """The model itself, its linear layers quantised in memory. A tied head becomes a layer of its own; the embedding stays."""
    replace_linears(
        model, lambda _, old: quantized_linear(quantize(old.weight.detach(), scheme), scheme, old.in_features, old.out_features)
    )
    return model
