import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llamaherd.checkpoints.pth import load_pth, write_pths

from .conftest import refused

WEIGHTS = {"a.weight": torch.arange(12.0).view(3, 4), "b.weight": torch.ones(5), "c.weight": torch.zeros(2, 2)}


class Evil:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.place),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_what_is_written_torch_reads_in_every_way(dtype: torch.dtype, tmp_path: Path) -> None:
    files = [tmp_path / "one.pth", tmp_path / "two.pth"]
    shapes = {name: tuple(value.shape) for name, value in WEIGHTS.items()}
    write_pths(files, shapes, dtype, ([value.to(dtype), -value.to(dtype)] for value in WEIGHTS.values()))
    for file, sign in zip(files, (1, -1)):
        for how in ({}, {"weights_only": True}, {"weights_only": True, "mmap": True}):
            found = torch.load(file, **how)
            assert list(found) == list(WEIGHTS)
            assert all(value.equal(sign * WEIGHTS[name].to(dtype)) for name, value in found.items())
        with zipfile.ZipFile(file) as archive:
            assert archive.testzip() is None
            starts = [member.header_offset + 30 + len(member.filename) for member in archive.infolist()]
        content = file.read_bytes()
        extra = [struct.unpack_from("<H", content, start - len(name) - 2)[0] for start, name in zip(starts, archive.namelist())]
        assert all((start + size) % 64 == 0 for start, size in zip(starts, extra))
        assert all(value.equal(found[name]) for name, value in load_pth(file).items())


def test_what_torch_writes_is_read(tmp_path: Path) -> None:
    for number, value in enumerate((WEIGHTS, OrderedDict(WEIGHTS), torch.nn.Linear(3, 4).state_dict())):
        torch.save(value, tmp_path / f"{number}.pth")
        assert {name: part.tolist() for name, part in load_pth(tmp_path / f"{number}.pth").items()} == {
            name: part.tolist() for name, part in value.items()
        }


def test_a_pickle_that_would_run_code_runs_none(tmp_path: Path) -> None:
    place = tmp_path / "ran"
    torch.save({"a": Evil(place)}, tmp_path / "new.pth")
    torch.save({"a": Evil(place)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil(place)))
    (tmp_path / "protocol0.pth").write_bytes(pickle.dumps(Evil(place), protocol=0))
    assert "is not only weights: it asks for posix.mkdir, which could run code" in refused(tmp_path / "new.pth", load_pth)
    for name in ("old", "plain", "protocol0"):
        assert "is no zip of weights" in refused(tmp_path / f"{name}.pth", load_pth)
    assert not place.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_looked_through(protocol: int, tmp_path: Path) -> None:
    torch.save({"a": Evil(tmp_path / "ran")}, tmp_path / "w.pth", pickle_protocol=protocol)
    assert "which could run code" in refused(tmp_path / "w.pth", load_pth)
    assert not (tmp_path / "ran").exists()


def zipped(file: Path, members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def packed_weights() -> dict[str, bytes]:
    content = io.BytesIO()
    torch.save(WEIGHTS, content)
    with zipfile.ZipFile(content) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda members: members.update({"../evil": b"x"}), "a member called '../evil'"),
        (lambda members: members.update({"a/../../evil": b"x"}), "a member called"),
        (lambda members: members.update({"/etc/evil": b"x"}), "a member called '/etc/evil'"),
        (lambda members: members.update({"c:/evil": b"x"}), "a member called"),
        (lambda members: members.update({"loose": b"x"}), "a member called 'loose'"),
        (lambda members: members.pop("archive/data.pkl"), "no list of weights"),
        (lambda members: members.update({"other/data.pkl": b"x"}), "no list of weights, several"),
        (lambda members: members.update({"archive/data.pkl": bytes(2 << 20)}), "a very long one"),
        (lambda members: members.update({"archive/data.pkl": b"\x80\x02"}), "damaged"),
        (lambda members: members.update({"archive/data.pkl": pickle.dumps([1, 2], 2)}), "something other than weights by name"),
        (lambda members: members.update({"archive/data.pkl": pickle.dumps({1: 2}, 2)}), "something other than weights by name"),
        (lambda members: members.pop("archive/data/1"), "damaged"),
    ],
)
def test_zips_that_are_not_weights(edit: Callable[[dict[str, bytes]], object], said: str, tmp_path: Path) -> None:
    members = packed_weights()
    edit(members)
    assert said in refused(zipped(tmp_path / "w.pth", members), load_pth)


def test_packed_members_are_not_unpacked(tmp_path: Path) -> None:
    members = packed_weights() | {"archive/data/0": bytes(200 << 20)}
    file = zipped(tmp_path / "w.pth", members, zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 1 << 20
    assert "is packed; weights are stored as they are" in refused(file, load_pth)


def test_members_that_share_their_bytes(tmp_path: Path) -> None:
    file = zipped(tmp_path / "w.pth", packed_weights() | {f"archive/x{number}": bytes(10_000) for number in range(9)})
    content = bytearray(file.read_bytes())
    place = content.find(b"PK\x01\x02")
    while place >= 0:  # every entry of the table of contents claims as many bytes as it can
        struct.pack_into("<LL", content, place + 20, 100_000, 100_000)
        place = content.find(b"PK\x01\x02", place + 4)
    file.write_bytes(content)
    assert "its members are larger than the file" in refused(file, load_pth)


def test_a_table_of_contents_of_a_million_members(tmp_path: Path) -> None:
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0) + b"a/b"
    table = entry * 1_000_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, len(table), 4, 0)
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04" + table + end)
    assert "a table of contents of 49,000,000 bytes" in refused(tmp_path / "w.pth", load_pth)


@pytest.mark.parametrize("kept", [0, 3, 20, 100, 500, -1, -30])
def test_a_file_that_is_cut_short(kept: int, tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[:kept])
    refused(tmp_path / "w.pth", load_pth)


@pytest.mark.parametrize(
    "value",
    [torch.ones(3, 4).T, torch.ones(1).expand(1000, 1000), torch.ones(3, dtype=torch.int8), torch.ones(3, dtype=torch.complex64)],
    ids=["turned", "expanded", "int8", "complex"],
)
def test_tensors_that_are_no_plain_weights(value: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"a": value}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", load_pth)
    torch.save({"a": torch.ones(2).to_sparse()}, tmp_path / "w.pth")
    assert "which could run code" in refused(tmp_path / "w.pth", load_pth)


def test_a_storage_that_claims_more_than_the_file_has(tmp_path: Path) -> None:
    members = packed_weights()
    members["archive/data.pkl"] = members["archive/data.pkl"].replace(b"K\x0c", b"M\xff\xff").replace(b"K\x03K\x04", b"M\xff\xffK\x01")
    refused(zipped(tmp_path / "w.pth", members), load_pth)
