import json
import random

import pytest

from llamaherd.core.artifacts import open_artifact
from llamaherd.core.config import build, dump
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_json, read_rows
from llamaherd.data.packing import PretrainRows
from llamaherd.data.shards import TokenShards
from llamaherd.stages import corpus, shards, tokenizer
from llamaherd.tokenizer.sentencepiece import Tokenizer


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def documents(tmp_path):
    """60 short facts and stories, and one document for every reason to drop one."""
    rng = random.Random(0)
    names = [f"{first}{last}" for first in ("An", "Ber", "Cla", "Do", "El", "Fi") for last in ("na", "ta", "ra", "ris", "sa")]
    cities = ("Oslo", "Rome")
    facts = [{"text": f"{name} lives in {rng.choice(cities)} and is a baker.", "source": "encyclopedia"} for name in names]
    stories = [{"text": f"Once {name} bought {rng.randrange(100)} apples and a cake.", "source": "stories"} for name in names]
    bad = [
        {"text": "  ", "source": "stories"},
        {"text": "Anna: 555 0199", "source": "phone", "url": "https://www.people.example/anna"},
        {"text": facts[0]["text"], "source": "mirror"},
        {"text": facts[1]["text"].replace(".", "!"), "source": "mirror"},
    ]
    return write(tmp_path / "documents.jsonl", [*facts, *bad, *stories])


@pytest.fixture
def built(tmp_path, documents):
    """Corpus, tokenizer and shards of the documents, in a folder."""
    turns = [{"role": "user", "content": "Where does Anna live?"}, {"role": "assistant", "content": "In Oslo."}]
    dialogues = write(tmp_path / "dialogues.jsonl", [{"messages": turns}])
    values = {"documents": [str(documents)], "filters": {"blocked_hosts": ["people.example"]}}
    corpus.run(build(corpus.CorpusConfig, values), tmp_path / "corpus", 0)
    vocabulary = {"corpus": str(tmp_path / "corpus"), "dialogues": [str(dialogues)], "tokenizer": {"vocab_size": 320}}
    tokenizer.run(build(tokenizer.TokenizerStageConfig, vocabulary), tmp_path / "tokenizer", 0)
    shards.run(shard_config(tmp_path), tmp_path / "shards", 0)
    return tmp_path


def shard_config(folder, **values):
    given = {"corpus": str(folder / "corpus"), "tokenizer": str(folder / "tokenizer"), "shard_tokens": 500}
    return build(shards.ShardsConfig, {**given, "weights": {"encyclopedia": 2}, **values})


def test_corpus(built):
    artifact = open_artifact(built / "corpus", "corpus")
    assert artifact.metrics["dropped"] == {
        "empty": 1, "unreadable_url": 0, "blocked_host": 1, "too_short": 0, "too_long": 0, "garbled": 0, "repetitive": 0,
        "exact_duplicate": 1, "near_duplicate": 1,
    }  # fmt: skip
    assert (artifact.metrics["read"], artifact.metrics["kept"]) == (64, 60)
    assert artifact.manifest["parents"]["documents.jsonl"]["path"] == str(built / "documents.jsonl")
    rows = [row for _, row in read_rows(built / "corpus" / "documents.jsonl")]
    assert len(rows) == 60
    assert {row["source"] for row in rows} == {"encyclopedia", "stories"}
    measured = read_json(built / "corpus" / "statistics.json")
    assert measured["filters"]["dropped"]["near_duplicate"] == {"mirror": 1}
    assert measured["sources"]["stories"]["documents"] == 30
    assert corpus.headline(artifact).startswith("60 of 64 documents, ")
    assert corpus.headline(artifact).endswith("dropped: empty 1, blocked host 1, exact duplicate 1, near duplicate 1")


def test_tokenizer(built):
    artifact = open_artifact(built / "tokenizer", "tokenizer")
    assert set(artifact.manifest["parents"]) == {"corpus", "dialogues.jsonl"}
    assert artifact.metrics["vocab_size"] == Tokenizer.load(built / "tokenizer").vocab_size == 320
    assert tokenizer.headline(artifact).startswith("320 pieces, ")


def test_shards_hold_each_document_as_often_as_weighted(built):
    artifact, words = open_artifact(built / "shards", "shards"), Tokenizer.load(built / "shards")
    stream = TokenShards(built / "shards")
    assert stream.index.tokenizer_sha256 == Tokenizer.load(built / "tokenizer").hash
    assert len(stream.index.shards) > 1
    ids = stream.read(0, stream.tokens).tolist()
    starts = [index for index, id in enumerate(ids) if id == words.bos_id]
    found = [ids[start + 1 : end - 1] for start, end in zip(starts, [*starts[1:], len(ids)])]
    rows = [row for _, row in read_rows(built / "corpus" / "documents.jsonl")]
    expected = [row["text"] for row in rows for _ in range(2 if row["source"] == "encyclopedia" else 1)]
    assert sorted(map(words.decode, found)) == sorted(expected)
    assert list(map(words.decode, found)) != expected  # shuffled
    assert artifact.metrics["sources"]["encyclopedia"]["mixed_documents"] == 60
    assert shards.headline(artifact).startswith(f"{stream.tokens:,} tokens of 90 documents: encyclopedia ")
    rows_once = PretrainRows(stream, 32, 0)
    predicted = sum(len(piece) - 1 for index in range(rows_once.rows_per_epoch) for piece in rows_once.row(index))
    assert predicted == stream.tokens - 90  # all but the BOS ids


def test_the_same_inputs_give_the_same_bytes_and_another_seed_another_order(built):
    again = shards.run(shard_config(built), built / "again", 0)
    assert again.hash == open_artifact(built / "shards").hash
    assert shards.run(shard_config(built), built / "other", 1).hash != again.hash


def test_a_parent_is_the_artifact_that_holds_the_input(built):
    config = build(corpus.CorpusConfig, {"documents": [str(built / "corpus" / "documents.jsonl")]})
    artifact = corpus.run(config, built / "second", 0)
    (parent,) = artifact.manifest["parents"].values()
    assert parent["hash"] == open_artifact(built / "corpus").hash
    assert artifact.metrics["kept"] == 60


def test_bad_weights(built):
    with pytest.raises(UserError, match=r"weights.stories: given -1, expected greater than or equal to 0"):
        shard_config(built, weights={"stories": -1})
    with pytest.raises(UserError, match="did you mean 'stories'"):
        shards.run(shard_config(built, weights={"storys": 2}), built / "wrong", 0)
    with pytest.raises(UserError, match="leave no document"):
        shards.run(shard_config(built, weights={"stories": 0, "encyclopedia": 0}), built / "none", 0)


def test_a_corpus_with_no_document_left(tmp_path):
    path = write(tmp_path / "d.jsonl", [{"text": ""}, {"text": "Anna: 555", "url": "http://people.example"}])
    config = build(corpus.CorpusConfig, {"documents": [str(path)], "filters": {"blocked_hosts": ["people.example"]}})
    with pytest.raises(UserError, match=r"d.jsonl: no document is left of 2 read: empty dropped 1, blocked_host dropped 1"):
        corpus.run(config, tmp_path / "corpus", 0)
    assert not (tmp_path / "corpus").exists()


def test_missing_inputs_are_found_before_anything_is_written(tmp_path):
    config = build(corpus.CorpusConfig, {"documents": [str(tmp_path / "absent.jsonl")]})
    with pytest.raises(UserError, match=r"absent.jsonl"):
        corpus.run(config, tmp_path / "corpus", 0)
    assert list(tmp_path.iterdir()) == []


def test_near_duplicates_can_stay(documents, tmp_path):
    config = build(corpus.CorpusConfig, {"documents": [str(documents)], "dedup": {"near": False}})
    metrics = corpus.run(config, tmp_path / "corpus", 0).metrics
    assert metrics["dropped"]["exact_duplicate"] == 1
    assert "near_duplicate" not in metrics["dropped"]
    assert build(corpus.CorpusConfig, dump(config)) == config
