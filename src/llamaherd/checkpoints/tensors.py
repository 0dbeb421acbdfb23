"""Safetensors files, one weight at a time: headers that are checked before anything is believed, and files written as a stream.

A file is 8 bytes with the header's size, a JSON header, and the weights, each in row-major order, end to end.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.files import naming

MOST_HEADER_BYTES = 1 << 20
"""Ten times the header of the largest released Llama; a longer one would take long to read and is not a model's."""
FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
"""Types that a weight may have."""
NAMES = {dtype: name for name, dtype in FLOATS.items()}


@dataclass(frozen=True)
class Place:
    """Where a weight lies in a file."""

    file: Path
    dtype: str
    """As the file writes it: BF16, I8, ..."""
    shape: tuple[int, ...]
    start: int
    """Of its first byte in the file."""
    nbytes: int


def read_header(file: Path) -> dict[str, Place]:
    """The places of all weights, by the names in the file.

    Raises UserError that names the file when the header does not describe the file to the byte: cut short, too long, doubled
    names, places that overlap, leave gaps or lie outside, sizes that do not fit shape and type. Reads the header only.
    """

    def broken(reason: str) -> UserError:
        return UserError(f"{file}: damaged or not safetensors: {reason}; get the file again")

    size = _size(file)
    with file.open("rb") as content:
        header_bytes = int.from_bytes(content.read(8), "little")
        if size < 8 or header_bytes > size - 8:
            raise broken(f"its header claims {header_bytes:,} bytes and the file has {size:,}")
        if header_bytes > MOST_HEADER_BYTES:
            raise broken(f"its header has {header_bytes:,} bytes; expected at most {MOST_HEADER_BYTES:,}")
        text = content.read(header_bytes)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise broken(f"its header is not JSON ({str(error)[:200]})") from None
    if not isinstance(header, dict):
        raise broken("its header is no JSON object")
    header.pop("__metadata__", None)
    places = {}
    for name, entry in header.items():
        place = _place(file, entry, 8 + header_bytes)
        if place is None:
            raise broken(f"what its header says of {name[:80]!r} is no type, shape and place that fit each other")
        places[name] = place
    end = 8 + header_bytes
    for name, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if place.start != end:
            raise broken(f"{name[:80]!r} {'overlaps' if place.start < end else 'does not follow'} the weight before it")
        end += place.nbytes
    if end != size:
        raise broken(f"its header describes {end:,} bytes and the file has {size:,}")
    return places


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _place(file: Path, entry: Any, data: int) -> Place | None:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        return None
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or len(shape) > 8:
        return None
    start, end = offsets
    fits = dtype not in FLOATS or end - start == math.prod(shape) * FLOATS[dtype].itemsize
    return Place(file, dtype, tuple(shape), data + start, end - start) if fits and end >= start else None


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def read_tensor(place: Place) -> Tensor:
    """One weight in memory of its own. Raises UserError when the file has become shorter than its header said."""
    value = torch.empty(place.shape, dtype=FLOATS[place.dtype])
    with place.file.open("rb", buffering=0) as content:
        content.seek(place.start)
        fill(value, content, place.file)
    return value


def fill(value: Tensor, content: Any, file: Path) -> None:
    """Reads as many bytes as `value` has from an open file into it. Raises UserError that names the file when they are not there."""
    wanted = memoryview(bytes_of(value))
    while wanted:
        got = content.readinto(wanted)
        if not got:
            raise UserError(f"{file}: ends before its last weight; get the file again")
        wanted = wanted[got:]


def bytes_of(value: Tensor) -> Any:
    """The memory of a contiguous tensor on the CPU as a numpy array of bytes."""
    return value.detach().reshape(-1).view(torch.uint8).numpy()


def write_tensors(file: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, weight: Callable[[str], Tensor]) -> None:
    """Writes weights of one type in the order of `shapes`, each asked for when its turn comes: memory for one at a time.

    Raises OSError that names the file (a full disk, for one).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_parts(file, [len(text).to_bytes(8, "little"), text], (weight(name).to(dtype) for name in shapes))


def write_parts(file: Path, head: Iterable[bytes], values: Iterable[Tensor]) -> None:
    """Writes bytes and then tensors to a file, durably. Raises OSError that names it."""
    with naming(file), file.open("wb", buffering=0) as content:
        for part in head:
            _write(content, memoryview(part))
        for value in values:
            _write(content, memoryview(bytes_of(value.contiguous())))
            del value  # before the next one is made
        os.fsync(content.fileno())


def _write(content: Any, rest: memoryview) -> None:
    while rest:
        rest = rest[content.write(rest) :]
