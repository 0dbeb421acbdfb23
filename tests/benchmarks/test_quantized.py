import re

import pytest
import torch

from benchmarks import quantized
from llamaherd.model.quantized import Scheme, dequantize

PARTS = pytest.mark.parametrize("kind", ["int8", "int4"])


@PARTS
def test_random_weights_are_normal_enough(kind: str) -> None:
    """Mean 0 and DEVIATION, so that activations stay finite in all kinds."""
    scheme = quantized.KINDS[kind]
    assert scheme
    weight = dequantize(quantized.random_tensors(scheme, 256, 512), scheme, 256, 512)
    assert float(weight.std()) == pytest.approx(quantized.DEVIATION, rel=0.05)
    assert abs(float(weight.mean())) < 0.002


def test_bytes_of_a_token_are_those_of_the_linear_layers() -> None:
    config = quantized.SHAPES["tiny"]
    assert quantized.weight_bytes(quantized.random_model(config, None)) == 4 * (config.trunk_parameters + config.vocab_size * config.dim)
    bits = (
        quantized.weight_bytes(quantized.random_model(config, Scheme(4, 64)))
        * 8
        / (config.trunk_parameters + config.vocab_size * config.dim)
    )
    assert 4.5 <= bits < 5.3


@PARTS
def test_a_random_model_predicts_finite_numbers(kind: str) -> None:
    model = quantized.random_model(quantized.SHAPES["tiny"], quantized.KINDS[kind])
    assert model(torch.tensor([[3, 4, 5]])).isfinite().all()


def test_the_whole_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMAHERD_LLAMA_CPP_PYTHON", raising=False)
    monkeypatch.setattr(quantized, "read_bandwidth", lambda: 1e10)
    quantized.main(["--shape", "tiny", "--turns", "2", "--tokens", "3"])
    rows = [line for line in capsys.readouterr().out.splitlines() if re.match(r"\| (float32|int8|int4) ", line)]
    assert len(rows) == 3
    assert all(float(row.split("|")[3]) > 0 for row in rows)
