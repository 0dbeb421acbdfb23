"""Files: the old one or the new one, never half; JSON lines in every dress, and what damages them."""

import codecs
import datetime
import decimal
import gzip
import json
import math
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaherd.core.errors import UserError
from llamaherd.core.files import fsync_file, naming, read_json, read_rows, write_bytes, write_json, write_rows, write_text

ROWS = [{"a": 1, "text": "one\u2028two\u0085three\x0b\x1c"}, {"a": 2.5, "text": "\U0001f411\r\n"}, {"a": None, "text": ""}]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def in_two_frames(content: bytes) -> bytes:
    half = len(content) // 2
    return b"".join(zstandard.ZstdCompressor().compress(part) for part in (content[:half], content[half:]))


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".jsonl": bytes,
    ".jsonl.gz": gzip.compress,
    ".jsonl.zst": lambda content: zstandard.ZstdCompressor().compress(content),
    ".frames.zst": in_two_frames,
}


@pytest.mark.parametrize("suffix", PACK)
def test_rows_are_read_from_every_dress(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(PACK[suffix](lines(ROWS)))
    assert list(read_rows(path)) == list(enumerate(ROWS, 1))


def test_parquet_holds_the_same_fields(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert list(read_rows(path)) == list(enumerate([*ROWS[:2], {"text": ""}], 1))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read as parquet"):
        list(read_rows(path))


def parquet(folder: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "rows.parquet")
    return folder / "rows.parquet"


def test_null_is_how_parquet_says_absent(tmp_path: Path) -> None:
    path = parquet(tmp_path, a=[None, 1], parts=[[{"x": None, "y": [None]}], None])
    assert [row for _, row in read_rows(path)] == [{"parts": [{"y": [None]}]}, {"a": 1}]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (math.nan, "nan is no JSON number"),
        (math.inf, "inf is no JSON number"),
        ([{"deep": [-math.inf]}], "-inf is no JSON number"),
        (datetime.datetime(2023, 7, 18), "JSON has no datetime"),
        (datetime.date(2023, 7, 18), "JSON has no date"),
        (b"x", "JSON has no bytes"),
        (decimal.Decimal("1.5"), "JSON has no Decimal"),
        (pyarrow.scalar(1, pyarrow.timestamp("ns")), "imestamp"),
        (pyarrow.scalar(1, pyarrow.timestamp("s", tz="Mars/Crater")), "Mars/Crater"),
        (pyarrow.scalar(b"\xff").cast(pyarrow.string(), safe=False), "not a string that can be read"),
    ],
    ids=range(10),
)
def test_a_cell_that_json_cannot_say_is_named(tmp_path: Path, second: Any, said: str) -> None:
    kind = second.type if isinstance(second, pyarrow.Scalar) else None
    path = parquet(tmp_path, text=["a", "b"], mine=pyarrow.array([None, second], kind))
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(f"{path} row 2 column 'mine': ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_parquet_column_that_stands_twice(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"]), path)
    with pytest.raises(UserError, match=r"^[^\n]*cannot be read as parquet[^\n]*$"):
        list(read_rows(path))


VALUES = st.text() | st.integers() | st.none() | st.lists(st.text())


@given(rows=st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3)))
@settings(max_examples=50, deadline=None)
def test_any_rows_come_back(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for suffix, packed in PACK.items():
            path = Path(folder) / f"rows{suffix}"
            assert write_rows(path, iter(rows)) == len(rows)
            assert [row for _, row in read_rows(path)] == rows
            assert suffix == ".jsonl" or path.read_bytes()[:2] == packed(b"")[:2], "packed as its name says"
        content = (Path(folder) / "rows.jsonl.gz").read_bytes()
        write_rows(Path(folder) / "again.jsonl.gz", rows)
        assert (Path(folder) / "again.jsonl.gz").read_bytes() == content, "neither time nor name goes in"


def test_large_rows_cross_the_block_limits(tmp_path: Path) -> None:
    rows = [{"text": "x" * length} for length in (0, 3_000_000, 1, 1_048_577)]
    (tmp_path / "rows.zst").write_bytes(PACK[".jsonl.zst"](lines(rows)))
    assert [row for _, row in read_rows(tmp_path / "rows.zst")] == rows


def test_blank_lines_count_and_a_last_line_needs_no_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\r\n\n   \n{"a": 2}')
    assert list(read_rows(path)) == [(1, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize("suffix", PACK)
def test_a_mark_before_the_first_line_is_no_part_of_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(PACK[suffix](codecs.BOM_UTF8 + lines([{"a": 1}, {"a": "\ufeff"}])))
    assert list(read_rows(path)) == [(1, {"a": 1}), (2, {"a": "\ufeff"})]
    (tmp_path / "list.json").write_bytes(codecs.BOM_UTF8 + b'[{"a": 1}]')
    assert list(read_rows(tmp_path / "list.json")) == [(1, {"a": 1})]


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"{", "not JSON"),
        (b"[1]", "a JSON list"),
        (b'"x"', "a JSON str"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": 1e400}', "the number 1e400 is too large"),
        (b'{"a": [{"b": -1.5E999}]}', "the number -1.5E999 is too large"),
        (b'{"a": "A", "b": 1, "a": "B"}', "the key 'a' stands twice"),
        (b'{"a": [{"b": 1, "b": 1}]}', "the key 'b' stands twice"),
        (b'{"a": "\\ud83d"}', "surrogate"),
        (b'{"a": "\xe9"}', "not UTF-8"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, suffix: str, bad: bytes, said: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(PACK[suffix](b'{"a": "\\ud83d\\udc11"}\n\n' + bad + b"\n"))
    with pytest.raises(UserError, match=said) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(f"{path} line 3: ")


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".frames.zst"])
def test_torn_or_damaged_compression_is_never_taken_for_the_end(tmp_path: Path, suffix: str) -> None:
    whole = PACK[suffix](lines([{"text": str(number**7)} for number in range(3000)]))
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"no such format\n", bytes(flipped)):
        path = tmp_path / f"rows{suffix}"
        path.write_bytes(damaged)
        with pytest.raises(UserError) as caught:
            list(read_rows(path))
        assert str(path) in str(caught.value)


def test_missing_files_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; expected JSON lines"):
        list(read_rows(tmp_path / "absent.jsonl"))
    with pytest.raises(UserError, match="is a folder; expected a file of rows: JSON lines"):
        list(read_rows(tmp_path))
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "absent.json")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"", b"[" * 100_000, b"1" * 5000])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match="x.json: not JSON"):
        read_json(tmp_path / "x.json")


def test_json_round_trip_makes_parents_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.json"
    write_json(path, {"é": [1, None]})
    write_json(path, {"é": 2})
    assert read_json(path) == {"é": 2}
    assert os.listdir(path.parent) == ["x.json"]


def test_what_json_cannot_hold_is_refused_before_the_file_is_touched(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", 1)
    for value in (float("nan"), float("inf"), object()):
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == 1


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(OSError, match="No space left on device") as caught:
            write_text(path, "new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path: Path, small_files: Callable[[int], AbstractContextManager[None]]) -> None:
    path = tmp_path / "x.bin"
    write_bytes(path, b"old")
    with small_files(4096):
        with pytest.raises(OSError) as caught:
            write_bytes(path, bytes(100_000))
        with pytest.raises(OSError):
            write_rows(path, [{"text": "x" * 5000}])
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        write_text(tmp_path / "file" / "x.txt", "new")
    assert str(tmp_path / "file") in str(caught.value)


def test_an_error_keeps_the_file_it_names_already(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        fsync_file(tmp_path / "absent")
    assert caught.value.filename == str(tmp_path / "absent")
    with pytest.raises(OSError, match=r"^first of all$"), naming(tmp_path):
        raise OSError("first of all")
