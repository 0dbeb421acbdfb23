"""NF4 against bitsandbytes on the CPU, with and without its kernels."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from llamaherd.core.seeds import torch_rng
from llamaherd.model import nf4
from llamaherd.model.nf4 import BLOCK, CODE, Nf4Linear

SHAPES = [(128, 64), (130, 66), (11, 13), (700, 384)]


def weight_of(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(*shape, generator=torch_rng(0, "weight")) * 0.05).to(dtype)


@pytest.fixture
def kernels() -> object:
    return pytest.importorskip("bitsandbytes")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_codes_and_values_are_bitsandbytes_s(kernels, shape: tuple[int, int], dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    weight = weight_of(shape, dtype)
    layer = Nf4Linear(weight)
    codes, state = kernels.functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    assert layer.codes.equal(codes.flatten())
    assert layer.absmax.equal(state.absmax)
    assert layer.absmax2.equal(state.state2.absmax)
    assert layer.offset.equal(state.offset)
    values = kernels.functional.dequantize_4bit(codes, state)
    assert layer.looked_up(dtype).equal(values)
    assert layer.dequantised(dtype).equal(values)


@pytest.mark.parametrize("width", [16, 32, 48, 64, 96, 128, 160, 256])
def test_values_do_not_depend_on_what_is_installed(width: int) -> None:
    """Of rows that are no whole number of blocks, bitsandbytes' kernel for AVX-512 makes other values."""
    layer = Nf4Linear(weight_of((32, width)))
    assert layer.dequantised().equal(layer.looked_up())


def test_second_level_levels_over_many_blocks(kernels) -> None:  # type: ignore[no-untyped-def]
    """Rounding to the levels meets near-ties only now and then: many magnitudes of many sizes."""
    values = torch.randn(256 * 1500, generator=torch_rng(0, "levels")) * torch.logspace(-4, 2, 256 * 1500)
    theirs, state = kernels.functional.quantize_blockwise(values, blocksize=256)
    indices, largest = nf4._level_indices(values)
    assert indices.equal(theirs)
    assert largest.equal(state.absmax)
    assert nf4._levels(values.device).equal(state.code)


def test_a_block_worked_by_hand() -> None:
    """One block whose largest magnitude is 2: weights are that times a code, kept exactly; one magnitude is its own mean."""
    wanted = torch.tensor([2.0, -2.0, 0.0, 2 * CODE[3], 2 * CODE[12]])
    row = torch.cat([wanted, torch.zeros(BLOCK - 5)])[None]
    layer = Nf4Linear(row)
    assert layer.codes[:3].tolist() == [15 << 4 | 0, 7 << 4 | 3, 12 << 4 | 7]
    assert layer.offset == 2.0
    assert layer.looked_up()[0, :5].equal(wanted)


@pytest.mark.parametrize("special", ["zeros", "one block of zeros", "large", "small"])
def test_special_weights_stay_finite(special: str) -> None:
    weight = weight_of((8, 128))
    if special == "zeros":
        weight.zero_()
    if special == "one block of zeros":
        weight[2] = 0
    weight *= {"large": 1e20, "small": 1e-20}.get(special, 1.0)
    values = Nf4Linear(weight).looked_up()
    assert values.isfinite().all()
    assert (values - weight).abs().max() <= 0.2 * weight.abs().max()


def test_bytes_for_each_weight() -> None:
    layer = Nf4Linear(weight_of((1024, 1024)))
    assert layer.nbytes / 2**20 == pytest.approx(0.5 + 1 / 64 + 4 / (64 * 256), abs=1e-5)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 0


@pytest.mark.parametrize("installed", [True, False])
def test_products_and_gradients_are_those_of_the_dequantised_weight(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not installed:
        monkeypatch.setattr(nf4, "bitsandbytes", lambda: None)
    layer = Nf4Linear(weight_of((48, 80)))
    plain = torch.nn.Linear(80, 48, bias=False)
    plain.weight.data = layer.looked_up()
    results = []
    for module in (layer, plain):
        x = torch.randn(3, 7, 80, generator=torch_rng(1, "x")).requires_grad_()
        y = module(x)
        (y * torch.arange(48)).sum().backward()
        results.append((y, x.grad))
    assert results[0][0].equal(results[1][0])
    assert results[0][1] is not None
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-6)


def test_no_dense_weight_is_kept_for_the_way_back() -> None:
    layer, kept = Nf4Linear(weight_of((256, 512))), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        layer(torch.randn(2, 512, requires_grad=True)).sum().backward()
    assert max(kept, default=0) < 256 * 512


def test_bitsandbytes_asks_no_hub() -> None:
    """A package `kernels` that is installed is not given the chance, and is there afterwards."""
    code = (
        "import sys, types\n"
        "trap = types.ModuleType('kernels')\n"
        "trap.get_kernel = lambda *names, **more: sys.exit('asked a hub')\n"
        "sys.modules['kernels'] = trap\n"
        "from llamaherd.model.nf4 import bitsandbytes\n"
        "assert bitsandbytes() is not None\n"
        "assert sys.modules['kernels'] is trap\n"
    )
    pytest.importorskip("bitsandbytes")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
