"""Weights of 8 and 4 bits: numbers worked by hand, bounds on errors, layers against their dequantised weights."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llamaherd.model.quantized import (
    FEW_ROWS,
    GROUPS,
    Linear8,
    Scheme,
    dequantize,
    for_this_cpu,
    integer_product,
    linear_names,
    pack,
    quantize,
    quantize_model,
    quantized_linear,
    unpack,
)
from llamaherd.model.transformer import Transformer

SCHEMES = [Scheme(8), *(Scheme(4, group) for group in GROUPS)]
by_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_eight_bits_by_hand() -> None:
    weight = torch.tensor([[127.0, -3.4, 0.5, 2.5], [0.0, 0.0, 0.0, 0.0], [-0.254, 0.127, 0.001, 0.0]])
    made = quantize(weight, Scheme(8))
    assert made["weight"][:, :4].tolist() == [[127, -3, 0, 2], [0, 0, 0, 0], [-127, 64, 0, 0]]
    assert made["weight"][:, 4:].count_nonzero() == 0, "columns that fill up"
    torch.testing.assert_close(made["scale"], torch.tensor([1.0, 0.0, 0.002]))


def test_four_bits_by_hand() -> None:
    """0 to 15 in steps of one are exact: scale 1, zero 8. Minus 1 to 1.8125 has scale 0.1875 and zero 0.5, exact in bfloat16 too."""
    first = torch.arange(16.0).repeat(2)
    second = (torch.arange(16.0) * 0.1875 - 1).repeat(2)
    scheme = Scheme(4, 32)
    made = quantize(torch.stack([torch.cat([first, second]), torch.full((64,), 3.0)]), scheme)
    assert made["scale_zero"][:, 0].tolist() == [[1.0, 8.0], [0.1875, 0.5]]
    assert unpack(made["packed"])[0].tolist() == list(range(16)) * 4
    back = dequantize(made, scheme, 2, 64)
    assert torch.equal(back[0], torch.cat([first, second]))
    assert torch.equal(back[1], torch.full((64,), 3.0)), "a constant group is its zero"


def test_packing_by_hand() -> None:
    """Of 64 rows, row r and row r + 32 share byte r of their column."""
    q = torch.zeros(64, 2, dtype=torch.uint8)
    q[5, 1], q[37, 1] = 7, 12
    packed = pack(q)
    assert packed.shape == (64, 1)
    assert packed.flatten().nonzero().tolist() == [[32 + 5]]
    assert packed.flatten()[37] == 12 * 16 + 7


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 20), st.integers(0, 2**31))
def test_packing_loses_nothing(blocks: int, pairs: int, seed: int) -> None:
    q = torch.randint(0, 16, (64 * blocks, 2 * pairs), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(unpack(pack(q)), q)


def test_packing_is_the_kernels() -> None:
    q = torch.randint(0, 16, (192, 64), dtype=torch.uint8)
    assert torch.equal(for_this_cpu(pack(q)), torch.ops.aten._convert_weight_to_int4pack_for_cpu(q.int(), 1))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 140), st.sampled_from(SCHEMES), st.floats(-20, 8), st.floats(-3, 3), st.integers(0, 2**31))
def test_errors_keep_their_bounds(rows: int, columns: int, scheme: Scheme, log_size: float, shift: float, seed: int) -> None:
    """8 bits: half a step. 4 bits: half a step, and what bfloat16 rounds off the scale (over 15 steps) and the zero."""
    weight = (normal(rows, columns, seed=seed) + shift) * 2.0**log_size
    made = quantize(weight, scheme)
    assert {name: (value.dtype, tuple(value.shape)) for name, value in made.items()} == scheme.layout(rows, columns)
    off = (dequantize(made, scheme, rows, columns) - weight).abs()
    if scheme.group is None:
        assert (off <= made["scale"][:, None] * 0.5001).all()
        return
    scale, zero = made["scale_zero"].float().transpose(0, 1).repeat_interleave(scheme.group, 1)[:rows, :columns].unbind(2)
    assert (off <= scale * (0.5 + 15 / 256) + zero.abs() / 256).all()


@by_scheme
def test_errors_of_normal_weights(scheme: Scheme) -> None:
    """What docs/quantisation.md states."""
    weight = normal(512, 1024)
    bounds = {Scheme(8): 0.009, Scheme(4, 32): 0.080, Scheme(4, 64): 0.092, Scheme(4, 128): 0.102}
    found = error(dequantize(quantize(weight, scheme), scheme, 512, 1024), weight)
    assert 0.8 * bounds[scheme] < found < bounds[scheme]


@by_scheme
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (32, 64), (172, 64), (64, 172), (5, 7), (128, 320)])
def test_a_layer_multiplies_its_dequantised_weight(scheme: Scheme, rows: int, columns: int) -> None:
    made = quantize(normal(rows, columns), scheme)
    layer = quantized_linear(made, scheme, columns, rows)
    wanted = dequantize(made, scheme, rows, columns)
    for count in (1, 3, FEW_ROWS - 1, FEW_ROWS, 40):
        x = normal(count, columns, seed=count)
        out = layer(x)
        assert out.shape == (count, rows)
        assert out.dtype == torch.float32
        assert error(out, x @ wanted.T) < 0.006, "bfloat16 has eight bits"
    assert layer(x.view(4, 10, columns).bfloat16()).shape == (4, 10, rows)
    assert layer(x.bfloat16()).dtype == torch.bfloat16


@by_scheme
def test_a_row_does_not_depend_on_the_others(scheme: Scheme) -> None:
    """To the bit, as long as there are either few rows or many."""
    layer = quantized_linear(quantize(normal(128, 256), scheme), scheme, 256, 128)
    x = normal(40, 256)
    x[7] *= 1000
    few = torch.cat([layer(x[index : index + 1]) for index in range(11)])
    assert torch.equal(layer(x[:11]), few)
    assert torch.equal(layer(x[:5]), few[:5])
    assert torch.equal(layer(x)[:20], layer(x[:20]))


def test_integers_are_nearly_exact() -> None:
    """15 bits of the largest value in a row; a row of zeros stays one."""
    x, weight = normal(20, 512) * torch.logspace(-6, 6, 20)[:, None], torch.randint(-127, 128, (64, 512), dtype=torch.int8)
    x[3] = 0
    out, wanted = integer_product(x, weight), x.double() @ weight.double().T
    assert torch.equal(out[3], torch.zeros(64))
    assert ((out - wanted).norm(dim=1) / wanted.norm(dim=1).clamp(min=1e-9)).max() < 2e-4


def test_without_exact_integers_the_kernel_takes_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamaherd.model.quantized.exact_integers", lambda: False)
    made = quantize(normal(64, 128), Scheme(8))
    layer = Linear8(made, 128, 64)
    x = normal(30, 128)
    assert torch.equal(layer(x)[:5], layer(x[:5]))
    assert error(layer(x), x @ dequantize(made, Scheme(8), 64, 128).T) < 0.006


@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_lesser_cpus(capability: str) -> None:
    """Their kernels read another order, and their integers may run over."""
    code = (
        "import torch; from llamaherd.model.quantized import *\n"
        "torch.manual_seed(0); w, x = torch.randn(96, 172), torch.randn(20, 172)\n"
        "for s in (Scheme(8), Scheme(4, 32), Scheme(4, 128)):\n"
        "    t = quantize(w, s); y = x @ dequantize(t, s, 96, 172).T\n"
        "    for n in (1, 20):\n"
        "        e = (quantized_linear(t, s, 172, 96)(x[:n]) - y[:n]).norm() / y[:n].norm()\n"
        "        assert e < 0.006, (s, n, e)\n"
    )
    there = os.environ | {"ATEN_CPU_CAPABILITY": capability, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=there, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@by_scheme
def test_a_quantised_model_predicts_as_its_dequantised_one(tiny_model: Transformer, scheme: Scheme) -> None:
    names = linear_names(tiny_model)
    assert len(names) == 7 * tiny_model.config.layers + 1
    tokens = torch.randint(0, tiny_model.config.vocab_size, (1, 30), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        floats = tiny_model(tokens)
        made = {name: quantize(tiny_model.get_submodule(name).weight, scheme) for name in names}  # type: ignore[arg-type]
        for name in names:
            weight = tiny_model.get_submodule(name).weight
            weight.copy_(dequantize(made[name], scheme, *weight.shape))  # type: ignore[operator, misc, arg-type]
        wanted = tiny_model(tokens)
        found = quantize_model(tiny_model, scheme)(tokens)
    assert linear_names(tiny_model) == []
    assert error(found, wanted) < 0.03
    assert error(found, wanted) < error(floats, wanted) or scheme.bits == 8
