"""Whatever names a model has."""

import json
from pathlib import Path

import pytest

from llamaherd.core.errors import UserError
from llamaherd.model.config import PRESETS
from llamaherd.plan.machine import machine, parse_bytes
from llamaherd.plan.target import target


def test_a_preset_a_folder_and_a_config_are_the_same_shape(tiny_folder: Path) -> None:
    assert target("llama2-70b").shape is PRESETS["llama2-70b"]
    of_folder, of_file = target(str(tiny_folder / "v0")), target(str(tiny_folder / "v0" / "config.json"))
    assert of_folder.shape == of_file.shape
    assert of_folder.path == tiny_folder / "v0"
    assert of_file.path is None


def test_a_config_alone_is_enough_and_of_a_quantised_model_says_its_bits(tiny_folder: Path, tmp_path: Path) -> None:
    raw = json.loads((tiny_folder / "v0" / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(raw | {"quantization_config": {"quant_method": "llamaherd", "bits": 4, "group": 32}}))
    assert target(str(tmp_path)).bits == 4
    (tmp_path / "config.json").write_text(json.dumps(raw | {"quantization_config": {"quant_method": "gptq", "bits": 4}}))
    with pytest.raises(UserError, match="quantised"):
        target(str(tmp_path))


@pytest.mark.parametrize(
    ("spec", "told"),
    [("llama2-8b", "did you mean 'llama2-7b'"), ("nowhere/model", "expected a folder"), ("runs/none:v1", "no such folder")],
)
def test_an_unknown_model(spec: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        target(spec)
    assert "\n" not in str(error.value)


def test_sizes() -> None:
    assert parse_bytes("24GB") == 24 * 10**9
    assert parse_bytes("1.5 GiB") == 1.5 * 2**30
    assert parse_bytes("800mb") == parse_bytes("800M") == 800 * 10**6
    for wrong in ("much", "0GB", "-1GB", "12 parsecs", ""):
        with pytest.raises(UserError, match="expected a size"):
            parse_bytes(wrong)


def test_devices() -> None:
    with pytest.raises(UserError, match="expected cpu or cuda"):
        machine("tpu", None, False)
    assert machine("cuda", "24GB", False).on_gpu
