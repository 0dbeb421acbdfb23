"""Files that are whole or absent, and JSON lines in their four dresses (plain, gzip, zstd, parquet)."""

import contextlib
import gzip
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import UserError


def fsync_folder(folder: Path) -> None:
    """Makes renames inside `folder` durable where the system offers it (Windows has no such call)."""
    with contextlib.suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes beside the place, then renames: readers see the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises UserError that names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}); the file is damaged or not what was meant") from None


def _lines(path: Path) -> Iterator[str]:
    """Lines that end at `\\n` only, decoded strictly."""
    stream: Any
    if path.suffix == ".gz":
        stream = gzip.open(path, "rb")  # noqa: SIM115
    elif path.suffix in (".zst", ".zstd"):
        import zstandard

        stream = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(path.open("rb"), closefd=True))
    else:
        stream = path.open("rb")
    with stream:
        for number, line in enumerate(stream, 1):
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path} line {number}: not UTF-8 ({error.reason} at byte {error.start})") from None


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of a `.jsonl`, `.jsonl.gz`, `.jsonl.zst` or `.parquet` file; blank lines are skipped.

    Raises UserError naming file and line for a missing file, bad compression, a line that is not a JSON object.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected JSON lines (.jsonl, .jsonl.gz, .jsonl.zst) or .parquet")
    if path.suffix == ".parquet":
        import pyarrow.parquet

        try:
            rows = pyarrow.parquet.read_table(path).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise UserError(f"{path}: cannot be read as parquet: {error}") from None
        yield from enumerate(rows, 1)
        return
    try:
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise UserError(f"{path} line {number}: not JSON ({getattr(error, 'msg', error)}); each line is one JSON object") from None
            if not isinstance(row, dict):
                raise UserError(f"{path} line {number}: a JSON {type(row).__name__}; each line is one JSON object")
            yield number, row
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{path}: damaged compressed file: {error}") from None


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes JSON lines atomically and returns how many."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    write_text(path, "".join(line + "\n" for line in lines))
    return len(lines)
