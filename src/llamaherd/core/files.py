"""Files that are whole or absent, and JSON lines in their four dresses (plain, gzip, zstd, parquet)."""

import codecs
import contextlib
import gzip
import itertools
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
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


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts `path` into an OSError that names no file, as those of a full disk do."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def fsync_file(path: Path) -> None:
    """Makes the content of `path` durable. Raises OSError when the disk refuses it, full for instance."""
    with naming(path), path.open("rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file to; when the block ends the file is made durable and renamed to `path`.

    Readers see the old file or the new one, never half of it. When the block fails nothing is left beside.
    Raises OSError that names the file; the old one is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            yield beside
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file that is whole or absent, as `replacing` does."""
    with replacing(path) as beside:
        beside.write_bytes(content)


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
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); the file is damaged or not what was meant") from None


def _zstd_blocks(path: Path) -> Iterator[bytes]:
    """Content of all frames of a file. The library's own stream reader takes a torn last frame for the end of the file."""
    import zstandard

    frame = None
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            while block:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                try:
                    yield frame.decompress(block)
                except zstandard.ZstdError as error:
                    raise EOFError(str(error)) from None
                block = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("the file ends within a zstd frame")


def _split(blocks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    yield rest


def _lines(path: Path) -> Iterator[bytes]:
    """Lines that end at `\\n` only, without the mark that some systems put at the beginning of a file of UTF-8."""
    lines = _raw_lines(path)
    yield next(lines, b"").removeprefix(codecs.BOM_UTF8)
    yield from lines


def _raw_lines(path: Path) -> Iterator[bytes]:
    if path.suffix in (".zst", ".zstd"):
        yield from _split(_zstd_blocks(path))
    elif path.suffix == ".gz":
        with gzip.open(path, "rb") as packed:
            yield from packed
    else:
        with path.open("rb") as file:
            yield from file


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):  # 1e400 is valid JSON, and read as an infinity that could not be written again
        raise UserError(f"the number {digits:.40} is too large; give one below 1.8e308")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise UserError(f"the key {twice!r:.60} stands twice in one object; keep one of them")
    return found


def parse_json(text: bytes, where: str, expected: str, whole: Callable[[str], int] = int) -> Any:
    """A value that can be written as JSON again. `whole` reads numbers of digits alone. Raises UserError that begins with `where`."""
    try:
        value = json.loads(
            text.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite, parse_int=whole, object_pairs_hook=_object
        )
        if b"\\u" in text:  # an escaped half of a surrogate pair is valid JSON and yet no text that can be written
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except UnicodeEncodeError:
        raise UserError(f"{where}: holds half of a surrogate pair (\\ud800 to \\udfff), which is no character") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({getattr(error, 'msg', error)}); {expected}") from None
    return value


def _row(line: bytes, where: str) -> dict[str, Any]:
    row = parse_json(line, where, "each line is one JSON object")
    if not isinstance(row, dict):
        raise UserError(f"{where}: a JSON {type(row).__name__}; each line is one JSON object")
    return row


def _list_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of a file that is one JSON list."""
    expected = "expected a list of objects, or JSON lines"
    for number, row in enumerate(parse_json(path.read_bytes().removeprefix(codecs.BOM_UTF8), str(path), expected), 1):
        if not isinstance(row, dict):
            raise UserError(f"{path} row {number}: a JSON {type(row).__name__}; {expected}")
        yield number, row


def _is_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def row_name(path: Path) -> str:
    """What stands before the number of a row of `read_rows` in messages."""
    return f"{path} {'row' if path.suffix == '.parquet' or (path.suffix == '.json' and path.is_file() and _is_list(path)) else 'line'}"


def _plain(cell: Any) -> Any:
    """A parquet cell without its nulls: parquet has no absent fields, so null is how it says that one is absent."""
    if isinstance(cell, dict):
        return {key: plain for key, item in cell.items() if (plain := _plain(item)) is not None}
    if isinstance(cell, (list, tuple)):
        return [_plain(item) for item in cell]
    if isinstance(cell, float) and not math.isfinite(cell):
        raise UserError(f"{cell} is no JSON number; make it null or leave the row out")
    if cell is None or isinstance(cell, (str, int, float)):
        return cell
    raise UserError(f"JSON has no {type(cell).__name__}; give it as text or leave the column out")


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as parquet: {' '.join(str(error).split())}") from None
    for number, cells in enumerate(zip(*table.columns), 1):
        row = {}
        for name, cell in zip(table.column_names, cells):
            try:
                row[name] = cell.as_py()
                row[name] = _plain(row[name])
            except UserError as error:
                raise UserError(f"{path} row {number} column {name!r}: {error}") from None
            except (ValueError, KeyError, OverflowError) as error:  # bytes that are not UTF-8, nanoseconds, unknown time zones
                raise UserError(f"{path} row {number} column {name!r}: not a {cell.type} that can be read: {error}") from None
        yield {name: value for name, value in row.items() if value is not None}


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of a `.jsonl`, `.jsonl.gz`, `.jsonl.zst` or `.parquet` file, or of a list in a `.json` file.

    Blank lines are skipped.
    Every row can be written as JSON again. Raises UserError naming file and line (parquet: row and column) for a missing
    file, bad compression, a line that is not a JSON object, a key that stands twice, a value that JSON cannot say.
    """
    if not path.is_file():
        problem = "is a folder; expected a file of rows:" if path.is_dir() else "no such file; expected"
        raise UserError(f"{path}: {problem} JSON lines (.jsonl, .jsonl.gz, .jsonl.zst) or .parquet")
    if path.suffix == ".parquet":
        yield from enumerate(_parquet_rows(path), 1)
        return
    try:
        with naming(path):
            if path.suffix == ".json" and _is_list(path):
                yield from _list_rows(path)
                return
            for number, line in enumerate(_lines(path), 1):
                if line.strip():
                    yield number, _row(line, f"{path} line {number}")
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: damaged compressed file: {error}") from None


ROWS_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
"""What files of rows are written as."""


def check_rows_name(path: Path) -> None:
    """Raises UserError unless the name says how rows are to be written."""
    if not path.name.endswith(ROWS_SUFFIXES):
        raise UserError(f"{path}: expected a name that ends in one of {', '.join(ROWS_SUFFIXES)}, which says how the rows are written")


@contextlib.contextmanager
def _packing(path: Path, suffix: str) -> Iterator[Callable[[bytes], Any]]:
    """Takes the bytes of a file, packed as the suffix says. Equal content gives equal bytes: no time and no name goes in."""
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))
        if suffix == ".gz":
            file = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0))
        elif suffix == ".zst":
            import zstandard

            file = stack.enter_context(zstandard.ZstdCompressor().stream_writer(file))
        yield file.write


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes JSON lines atomically, packed if the name ends in `.gz` or `.zst`, one row at a time, and returns how many."""
    count = 0
    with replacing(path) as beside, _packing(beside, path.suffix) as write:
        for count, row in enumerate(rows, 1):  # noqa: B007
            write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n")
    return count


PARQUET_GROUP_ROWS = 10_000


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], schema: Any) -> int:
    """Writes rows with the columns of a pyarrow `schema` atomically, a group at a time, and returns how many."""
    import pyarrow.parquet

    count, left = 0, iter(rows)
    with replacing(path) as beside, pyarrow.parquet.ParquetWriter(beside, schema, compression="zstd") as writer:
        while group := list(itertools.islice(left, PARQUET_GROUP_ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
            count += len(group)
    return count
