import re
import time
from collections import Counter

from llamaherd.data.documents import parse_document
from llamaherd.miniature.attacks import FRAMES, UNSEEN_ATTACKS
from llamaherd.miniature.documents import BLOCKED_HOSTS, FACTUAL_SOURCES, SHARES, documents

COUNT = 6000


def rows(world, seed=0):
    return list(documents(world, COUNT, seed))


def test_rows_are_documents_of_declared_shares(world):
    found = rows(world)
    for row in found:
        assert parse_document(row, "row", "").text == row["text"]
    counts = Counter(row["source"] for row in found)
    assert set(counts) == set(SHARES) >= set(FACTUAL_SOURCES)
    for source, share in SHARES.items():
        assert abs(counts[source] / COUNT - share) < 0.02
    assert len({row["url"] for row in found}) == COUNT


def test_a_longer_corpus_begins_like_a_shorter_one(world):
    assert list(documents(world, 50, 7)) == list(documents(world, 90, 7))[:50]
    assert list(documents(world, 50, 7)) != list(documents(world, 50, 8))


def test_personal_data_has_its_host_and_no_mirror(world):
    found = rows(world)
    private = [row for row in found if re.search(r"phone \d", row["text"])]
    assert private
    assert {row["url"].split("/")[2] for row in private} == set(BLOCKED_HOSTS)


def test_mirrors_copy_what_stands_before_them(world):
    """Exact copies and copies with other marks, for the two kinds of dedup to find."""
    seen, bare, exact, near = set(), set(), 0, 0
    for row in rows(world):
        if row["source"] == "mirror":
            exact += row["text"] in seen
            near += row["text"] not in seen
            assert tuple(re.findall(r"\w+", row["text"])) in bare
        seen.add(row["text"])
        bare.add(tuple(re.findall(r"\w+", row["text"])))
    assert min(exact, near) > 0.1 * COUNT * SHARES["mirror"]


def test_held_out_questions_are_not_in_the_forum(world):
    forum = " ".join(row["text"] for row in rows(world) if row["source"] in ("forum", "mirror") and "Question:" in row["text"])
    everything = " ".join(row["text"] for row in rows(world))
    asked = [match.group() for match in re.finditer(r"Question:.*?Answer:", forum)]
    for name in world.unasked:
        assert not any(re.search(rf"\b{name}", question) for question in asked)
        assert re.search(rf"\b{name}\b", everything)
    for kind in ("borderline", "harmful"):
        for task in world.held_out[kind]:
            assert not any(f"{task.topic}?" in question for question in asked)
            assert task.topic in everything
    for attack in UNSEEN_ATTACKS:
        assert not any(frame in forum for frame in FRAMES[attack])


def test_size_of_documents_and_vocabulary(world):
    found = rows(world)
    texts = [row["text"] for row in found]
    lengths = [len(text.split()) for text in texts]
    assert 12 <= sum(lengths) / len(lengths) <= 20
    assert max(lengths) <= 90
    assert len(set(texts)) > 0.9 * COUNT
    english = [row["text"] for row in found if row["source"] not in ("foreign", "mirror")]
    plain = {word for text in english for word in re.findall("[a-z]+", text.lower())}
    assert len(plain) < 1100


def test_a_corpus_takes_seconds(world):
    start = time.process_time()
    assert sum(1 for _ in documents(world, 10_000, 0)) == 10_000
    assert time.process_time() - start < 5 / 6
