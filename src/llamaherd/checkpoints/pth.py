"""PyTorch's `.pth` files of weights: a zip that holds a pickle and the weights' bytes. The only place that reads a pickle.

Nothing is unpickled before the zip is seen to be plain (stored members inside the file, none compressed) and the pickle to
name nothing but what puts tensors together; then torch reads it with `weights_only=True`, mapped, so that no weight is in
memory before it is asked for. Files are written without a pickler: the few instructions that such a pickle has are spelt out.
"""

import math
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from pickletools import genops
from typing import BinaryIO

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.files import naming
from .tensors import bytes_of

MOST_DIRECTORY_BYTES, MOST_PICKLE_BYTES = 4 << 20, 1 << 20
"""Several times what the largest shard of the largest Llama takes; longer ones would take long to read and are not a model's."""
END, END_LARGE, LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
"""The last record of a zip; the one that stands in for it in large files, and where that lies."""
HARMLESS = {
    "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Char", "Byte", "Short", "Int", "Long", "Bool")),
    *(f"torch Complex{kind}Storage" for kind in ("Float", "Double")),
}  # fmt: skip
"""All that a pickle of tensors names. None of it does anything but put a tensor together."""
NAMING = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
"""Instructions that fetch or make something by its name. Files of weights have the first only."""
ALIGNED = 64
"""Bytes: weights begin at multiples of this, as in torch's own files, so that they can be mapped."""
STORAGES = {torch.float32: "Float", torch.float64: "Double", torch.float16: "Half", torch.bfloat16: "BFloat16"}


def load_pth(file: Path, ignored: str = "") -> dict[str, Tensor]:
    """The weights in a file by name, mapped: a weight takes memory when it is read, and the mapping lasts as long as any of them.

    Raises UserError that names the file for anything but contiguous float tensors that lie inside it; `ignored` may be another.
    """
    with _damage(file):
        _demand_weights_only(file)
        found = torch.load(file, weights_only=True, mmap=True, map_location="cpu")
    if not isinstance(found, dict) or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()):
        raise UserError(f"{file}: holds something other than weights by name; expected a shard of Meta's")
    found.pop(ignored, None)
    for name, value in found.items():
        if value.dtype not in STORAGES or not value.is_contiguous():
            raise UserError(
                f"{file}: {name[:80]} is not a plain float tensor ({value.dtype}, strides {value.stride()}); get the file again"
            )
    return {name: value.detach() for name, value in found.items()}


class _damage:
    """Puts what the readers of zips and pickles say of a damaged file into one line that names it."""

    KINDS = (
        RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, EOFError, OSError,
        zipfile.BadZipFile, struct.error, torch.serialization.pickle.UnpicklingError,  # type: ignore[attr-defined]
    )  # fmt: skip

    def __init__(self, file: Path):
        self.file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, self.KINDS) and not isinstance(error, UserError):
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{self.file}: damaged or not a file of weights: {reason}; get the file again") from None


def _demand_weights_only(file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as content:
        if content.read(4) != b"PK\x03\x04":
            raise UserError(
                f"{file}: is no zip of weights (an old or foreign pickle, perhaps), and is not read, since a pickle could run code; "
                "save it with torch.save of PyTorch 1.6 or later, or as safetensors"
            )
        directory_bytes = _directory_bytes(content, size)
    if directory_bytes > MOST_DIRECTORY_BYTES:
        raise ValueError(f"a table of contents of {directory_bytes:,} bytes; expected at most {MOST_DIRECTORY_BYTES:,}")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            parts = member.filename.split("/")
            if len(parts) < 2 or {"", ".", ".."} & set(parts) or "\\" in member.filename or ":" in parts[0]:
                raise ValueError(f"it holds a member called {member.filename[:80]!r}")
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size or member.flag_bits & 1:
                raise ValueError(f"{member.filename[:80]!r} is packed; weights are stored as they are")
        if sum(member.file_size for member in members) > size or any(member.header_offset > size for member in members):
            raise ValueError("its members are larger than the file")
        pickles = [member for member in members if member.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > MOST_PICKLE_BYTES:
            raise ValueError("it has no list of weights, several, or a very long one")
        instructions = archive.read(pickles[0])
    for instruction, argument, _ in genops(instructions):
        if instruction.name in NAMING and argument not in HARMLESS:
            asked = str(argument or instruction.name).replace(" ", ".")[:80]
            raise UserError(
                f"{file}: is not only weights: it asks for {asked}, which could run code; nothing was run. Get safetensors instead"
            )


def _directory_bytes(content: BinaryIO, size: int) -> int:
    """How long a zip's table of contents is, from its last records."""
    content.seek(max(0, size - END.size))
    signature, _, _, _, entries, directory_bytes, _, comment = END.unpack(content.read())
    if signature != b"PK\x05\x06" or comment:
        raise ValueError("it ends before its table of contents")
    if entries == 0xFFFF or directory_bytes == 0xFFFFFFFF:
        content.seek(max(0, size - END.size - LOCATOR.size))
        content.seek(min(LOCATOR.unpack(content.read(LOCATOR.size))[2], size))
        directory_bytes = END_LARGE.unpack(content.read(END_LARGE.size))[8]
    return int(directory_bytes)


def write_pths(
    files: Sequence[Path], shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, weights: Iterable[Sequence[Tensor]]
) -> None:
    """Writes files side by side, each with weights of the same names and shapes.

    `weights` gives, in the order of `shapes`, what of each weight goes to each file: memory for one weight at a time. Raises
    OSError that names the file (a full disk, for one).
    """
    with ExitStack() as stack:
        archives = []
        for file in files:
            stack.enter_context(naming(file))
            archives.append(stack.enter_context(zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)))
            for name, content in (("data.pkl", _pickled(shapes, dtype)), ("byteorder", b"little"), ("version", b"3\n")):
                _store(archives[-1], f"{file.stem}/{name}", memoryview(content))
        for index, parts in enumerate(weights):
            for file, archive, part in zip(files, archives, parts, strict=True):
                _store(archive, f"{file.stem}/data/{index}", memoryview(bytes_of(part.contiguous())))
            del parts, part  # before the next ones are made


def _store(archive: zipfile.ZipFile, name: str, content: memoryview) -> None:
    member = zipfile.ZipInfo(name)
    member.file_size = content.nbytes
    large = content.nbytes * 1.05 > zipfile.ZIP64_LIMIT  # zipfile's own rule for twenty bytes more in the member's header
    assert archive.fp is not None
    used = archive.fp.tell() + 30 + len(name) + 4 + 20 * large
    padding = -used % ALIGNED
    member.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    with archive.open(member, "w") as place:
        place.write(content)


def _pickled(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> bytes:
    """The pickle (protocol 2) of a dict of tensors whose storages are members 0, 1, ... of the zip."""
    tensors = []
    for index, (name, shape) in enumerate(shapes.items()):
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        storage = b"(" + _text("storage") + _global("torch", f"{STORAGES[dtype]}Storage") + _text(str(index)) + _text("cpu")
        storage += _number(math.prod(shape)) + b"tQ"
        rest = _number(0) + _numbers(shape) + _numbers(strides) + b"\x89" + _global("collections", "OrderedDict") + b")R"
        tensors.append(_text(name) + _global("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + rest + b"tR")
    return b"\x80\x02}(" + b"".join(tensors) + b"u."


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _number(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def _numbers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"
