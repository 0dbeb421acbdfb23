import datetime
import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from llamaherd.core.errors import UserError
from llamaherd.data.documents import Document, Tally, parse_document, read_documents

ROW = {"text": "A cat.", "source": "forum", "url": "https://forum.example/1", "language": "en"}


def test_the_same_documents_from_every_file_form(tmp_path):
    line = json.dumps(ROW).encode() + b"\n"
    (tmp_path / "a.jsonl").write_bytes(line)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(line))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW]), tmp_path / "a.parquet")
    found = list(read_documents(tmp_path / name for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet")))
    assert found == [Document("A cat.", "forum", "https://forum.example/1", {"language": "en"})] * 4
    assert found[0].to_row() == ROW


def test_a_document_without_source_is_of_its_file(tmp_path):
    (tmp_path / "stories.jsonl").write_text('{"text": "Once."}\n')
    assert next(read_documents([tmp_path / "stories.jsonl"])).source == "stories"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"content": "x"}', ["line 2", '"text"', "content"]),
        ('{"text": 3}', ["line 2", '"text"']),
        ('{"text": "x", "source": ""}', ["line 2", '"source"']),
        ('{"text": "x", "url": 5}', ["line 2", '"url"']),
        ('{"text": "x", "score": NaN}', ["line 2", "JSON"]),
        ('{"text": "x", "source": "\\ud800"}', ["line 2", "surrogate"]),
        ("{text", ["line 2", "not JSON"]),
    ],
)
def test_bad_lines_are_named(tmp_path, line, words):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(UserError) as caught:
        list(read_documents([path]))
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in [str(path), *words])


def test_null_is_no_source_and_no_url(tmp_path):
    assert parse_document({"text": "x", "source": None, "url": None}, "here", "s") == Document("x", "s")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW, {"text": "x"}]), tmp_path / "a.parquet")
    assert list(read_documents([tmp_path / "a.parquet"]))[1] == Document("x", "a")


def test_what_parquet_has_and_json_has_not(tmp_path):
    for value in (datetime.date(2023, 7, 18), float("nan")):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": "x", "field": value}]), tmp_path / "a.parquet")
        with pytest.raises(UserError, match="a.parquet row 1 column 'field': "):
            list(read_documents([tmp_path / "a.parquet"]))


def test_the_tally_says_why_nothing_is_left(tmp_path):
    tally = Tally(["empty", "blocked_host", "too_long"])
    for source in ("a", "a", "b"):
        tally.read[source] += 1
        tally.drop("empty" if source == "a" else "blocked_host", Document("", source))
    assert tally.kept == 0
    assert tally.to_dict()["dropped"] == {"empty": {"a": 2}, "blocked_host": {"b": 1}, "too_long": {}}
    with pytest.raises(UserError, match=r"x.jsonl: no document is left of 3 read: empty dropped 2, blocked_host dropped 1$"):
        tally.demand_some([tmp_path / "x.jsonl"])
    with pytest.raises(UserError, match="there were none"):
        Tally().demand_some([tmp_path / "x.jsonl"])
