import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.core.errors import UserError
from llamaherd.data import shards
from llamaherd.data.shards import TokenShards, dtype_for, encode_documents, in_order, write_shards

DOCUMENTS = [[1, 10, 11, 2], [1, 20, 2], [1, 30, 31, 32, 33, 2]]
STREAM = [id for document in DOCUMENTS for id in document]


def write(folder, documents=DOCUMENTS, shard_tokens=5, dtype="uint16"):
    arrays = [np.array(document, dtype) for document in documents]
    return write_shards(folder, arrays, shard_tokens=shard_tokens, dtype=dtype, bos_id=1, tokenizer_sha256="ab")


def test_the_smallest_type_that_holds_the_vocabulary():
    assert dtype_for(32_000) == dtype_for(1 << 16) == "uint16"
    assert dtype_for((1 << 16) + 1) == "uint32"


def test_files_and_index_by_hand(tmp_path):
    write(tmp_path)
    assert (tmp_path / "shard-00000.bin").read_bytes() == bytes([1, 0, 10, 0, 11, 0, 2, 0, 1, 0])
    index = json.loads((tmp_path / "index.json").read_text())
    assert [shard["tokens"] for shard in index["shards"]] == [5, 5, 3]
    assert (index["dtype"], index["tokens"], index["documents"], index["tokenizer_sha256"]) == ("uint16", 13, 3, "ab")
    assert index["shards"][2]["sha256"] == [hashlib.sha256((tmp_path / "shard-00002.bin").read_bytes()).hexdigest()]


@pytest.mark.parametrize("shard_tokens", [1, 3, 13, 1000])
def test_every_span_across_shards(tmp_path, shard_tokens):
    write(tmp_path, shard_tokens=shard_tokens)
    opened = TokenShards(tmp_path)
    assert opened.tokens == len(STREAM)
    for start in range(len(STREAM) + 1):
        for end in range(start, len(STREAM) + 1):
            assert opened.read(start, end - start).tolist() == STREAM[start:end]
    with pytest.raises(AssertionError):
        opened.read(0, len(STREAM) + 1)


def test_large_ids(tmp_path):
    write(tmp_path, [[1, 70_000, 2]], dtype="uint32")
    assert TokenShards(tmp_path).read(0, 3).tolist() == [1, 70_000, 2]


@given(st.data())
def test_a_flipped_bit_is_found_with_file_and_offset(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "BLOCK_BYTES", 4)
        write(folder)
    path = folder / f"shard-0000{data.draw(st.integers(0, 2))}.bin"
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    start = at // 4 * 4
    with pytest.raises(UserError, match=rf"{path.name}: damaged between byte {start} and {min(start + 4, len(content))} "):
        TokenShards(folder)


def test_shortened_missing_and_contradicting_files(tmp_path):
    write(tmp_path)
    path = tmp_path / "shard-00001.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:7])
    with pytest.raises(UserError, match=r"shard-00001.bin: it ends at byte 7, expected 10 bytes"):
        TokenShards(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"shard-00001.bin: there is no such file"):
        TokenShards(tmp_path)
    path.write_bytes(whole)
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**index, "tokens": 14}))
    with pytest.raises(UserError, match="says 14 tokens, its shards have 13"):
        TokenShards(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({**index, "dtype": "int8"}))
    with pytest.raises(UserError, match=r"index.json: dtype"):
        TokenShards(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        TokenShards(tmp_path / "elsewhere")


def test_encoded_documents_in_another_order(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(shards, "BATCH_TEXTS", 2)
    texts = ["anna lives in oslo", "<s> soup </s>", "berta works", "cake", "every day"]
    sizes = encode_documents(iter(texts), tokenizer, tmp_path / "flat")
    ids = [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    assert sizes == [len(document) for document in ids]
    found = in_order(tmp_path / "flat", "uint16", sizes, [4, 1, 1, 0])
    assert [document.tolist() for document in found] == [ids[4], ids[1], ids[1], ids[0]]
    assert ids[1].count(tokenizer.bos_id) == ids[1].count(tokenizer.eos_id) == 1
