import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llamaherd.checkpoints.tensors import MOST_HEADER_BYTES, read_header, read_tensor, write_tensors
from llamaherd.core.errors import UserError

from .conftest import refused

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def raw(path: Path, header: Any, data: bytes = bytes(16), claimed: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if claimed is None else claimed) + text + data)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_what_is_written_the_library_reads_and_the_other_way_round(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 5).to(dtype), "b": torch.randn(7).to(dtype), "c": torch.randn(5, 4).to(dtype).T}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    write_tensors(tmp_path / "ours", shapes, dtype, tensors.__getitem__)
    assert all(value.equal(tensors[name]) for name, value in load_file(tmp_path / "ours").items())
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "theirs")
    for file in ("ours", "theirs"):
        places = read_header(tmp_path / file)
        assert places.keys() == tensors.keys()
        assert all(read_tensor(place).equal(tensors[name]) for name, place in places.items())


def test_a_full_disk_names_the_file(tmp_path: Path, small_files: Any) -> None:
    with small_files(1000), pytest.raises(OSError) as found:
        write_tensors(tmp_path / "w", {"a": (1000,)}, torch.float32, lambda name: torch.ones(1000))
    assert found.value.filename == str(tmp_path / "w")


@pytest.mark.parametrize(
    ("header", "claimed", "said"),
    [
        ({"a": F32}, 1 << 63, "its header claims 9,223,372,036,854,775,808 bytes and the file has"),
        ({"a": F32}, (1 << 64) - 1, "its header claims"),
        ({"a": F32}, 100, "its header claims 100 bytes"),
        (b"", None, "its header is not JSON"),
        (b"[1]", None, "its header is no JSON object"),
        (b"[" * 100_000, None, "its header is not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", None, "its header is not JSON"),
        (b"\xff\xfe", None, "its header is not JSON"),
        (b'{"a": {}, "a": {}}', None, "a name stands twice"),
        ({"a": F32, "b": F32}, None, "'b' overlaps"),
        ({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, None, "'b' overlaps"),
        ({"a": {**F32, "data_offsets": [8, 16]}}, None, "'a' does not follow"),
        ({"a": F32}, None, "its header describes"),
        ({"a": F32, "b": {**F32, "data_offsets": [8, 16]}, "c": {**F32, "data_offsets": [16, 24]}}, None, "its header describes"),
        ({"a": {**F32, "data_offsets": [1 << 62, (1 << 62) + 8]}}, None, "'a' does not follow"),
        ({"a": {**F32, "data_offsets": [8, 0]}}, None, "no type, shape and place that fit"),
        ({"a": {**F32, "data_offsets": [-8, 0]}}, None, "no type, shape and place that fit"),
        ({"a": {**F32, "data_offsets": [0.0, 8.0]}}, None, "no type, shape and place that fit"),
        ({"a": {**F32, "shape": [4]}}, None, "no type, shape and place that fit"),
        ({"a": {**F32, "shape": [1 << 62, 1 << 62]}}, None, "no type, shape and place that fit"),
        ({"a": {**F32, "shape": [True, 2]}}, None, "no type, shape and place that fit"),
        ({"a": {**F32, "shape": [1] * 100}}, None, "no type, shape and place that fit"),
        ({"a": {**F32, "dtype": "F64"}}, None, "no type, shape and place that fit"),
        ({"a": {**F32, "more": 1}}, None, "no type, shape and place that fit"),
        ({"a": 3}, None, "no type, shape and place that fit"),
    ],
)
def test_a_header_that_lies_is_refused_at_once(header: Any, claimed: int | None, said: str, tmp_path: Path) -> None:
    assert said in refused(raw(tmp_path / "w.safetensors", header, claimed=claimed), read_header)


def test_a_million_entries_are_not_even_parsed(tmp_path: Path) -> None:
    entries = ",".join(f'"t{number}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for number in range(1_000_000))
    file = raw(tmp_path / "w.safetensors", f"{{{entries}}}".encode(), b"")
    assert f"expected at most {MOST_HEADER_BYTES:,}" in refused(file, read_header)


def test_the_largest_header_that_is_read_is_read_in_time(tmp_path: Path) -> None:
    entry = '"{}":{{"dtype":"F32","shape":[0],"data_offsets":[1,0]}}'
    text = "{" + ",".join(entry.format(f"t{number:05}") for number in range(18_000)) + "}"
    assert MOST_HEADER_BYTES * 0.9 < len(text) < MOST_HEADER_BYTES
    assert "no type, shape and place" in refused(raw(tmp_path / "w.safetensors", text.encode(), b""), read_header)


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path: Path) -> None:
    file = raw(tmp_path / "w.safetensors", {"a": F32}, bytes(8))
    place = read_header(file)["a"]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="ends before its last weight"):
        read_tensor(place)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.safetensors", read_header)
