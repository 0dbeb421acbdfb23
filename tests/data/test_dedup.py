import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.core.files import read_rows
from llamaherd.data.dedup import LEAST_RECALL, MINHASHES, DedupConfig, bands_for, deduplicated, jaccard, shingles, words_of
from llamaherd.data.documents import Document, Tally

ANNA = "Anna lives in Oslo. She works as a baker, likes to paint, has a grey cat and eats soup every evening."


def survivors(*texts, **settings):
    tally = Tally()
    kept = deduplicated([Document(text, "s") for text in texts], DedupConfig(**settings), tally)
    return [texts.index(document.text) for document in kept], tally.counts()


def test_exact_duplicates_ignore_case_space_and_unicode_form():
    kept, counts = survivors("The café  is\nopen", "the cafe\u0301 is open", "The café is closed", near=False)
    assert (kept, counts) == ([0, 2], {"exact_duplicate": 1})


def test_words_lose_sentence_marks_and_keep_symbols():
    assert words_of('He said: "It\'s 3.5 - not -2!" (yes...)') == ["he", "said", "it's", "3.5", "-", "not", "-2", "yes"]
    assert words_of("a != b") == ["a", "!=", "b"]
    assert words_of("* - a - b: -2 --- ") == ["a", "-", "b", "-2"]
    assert words_of("猫が好き cats") == ["猫", "が", "好", "き", "cats"]


def test_every_word_is_in_the_same_number_of_shingles():
    assert shingles("a b", 3) == ["  a", " a b", "a b ", "b  "]
    assert shingles("a b a b a b", 1) == ["a", "b"]


@given(st.integers(1, 60), st.integers(1, 6), st.data())
def test_one_replaced_word_costs_what_the_docstring_says(count, size, data):
    words = [f"w{index}" for index in range(count)]
    changed = list(words)
    changed[data.draw(st.integers(0, count - 1))] = "other"
    similarity = jaccard(shingles(" ".join(words), size), shingles(" ".join(changed), size))
    assert similarity == pytest.approx((count - 1) / (count + 2 * size - 1))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Anna lives in Oslo.", "Anna lives in Rome."),
        (ANNA, ANNA.replace("Oslo", "Rome")),
        (ANNA, ANNA.replace("Anna", "Berta")),
        (ANNA, ANNA.replace("soup", "cake")),
        (ANNA, ANNA.replace("evening", "morning")),
        ("What is 2 + 2? It is 4.", "What is 2 * 2? It is 4."),
        ("The answer is -1.", "The answer is 1."),
        ("奥斯陆很美", "罗马城很美"),
    ],
)
def test_short_documents_that_differ_in_a_fact_both_stay(one, other):
    assert survivors(one, other) == ([0, 1], {})


@pytest.mark.parametrize(
    "copy",
    [
        ANNA.replace(",", ""),
        ANNA.replace(".", " !").replace(" !", "!").upper(),
        f'"{ANNA}"',
        f"- {ANNA} -",
    ],
)
def test_short_copies_in_other_dress_are_found(copy):
    assert survivors(ANNA, copy) == ([0], {"near_duplicate": 1})


def test_long_documents_with_a_new_footer_are_found():
    text = " ".join(f"word{index}" for index in range(120))
    assert survivors(text, text + " read more at our mirror") == ([0], {"near_duplicate": 1})


def test_the_threshold_is_the_exact_jaccard():
    one, other = "a b c d e f g h", "a b c d e f g x"
    similarity = jaccard(shingles(one, 2), shingles(other, 2))
    assert similarity == 7 / 11
    assert survivors(one, other, threshold=7 / 11, shingle_words=2)[0] == [0]
    assert survivors(one, other, threshold=7 / 11 + 1e-9, shingle_words=2)[0] == [0, 1]


def test_against_all_pairs_compared():
    rng = random.Random(0)
    texts = []
    for _ in range(60):
        words = [str(rng.randrange(1000)) for _ in range(80)]
        texts.append(" ".join(words))
        for _ in range(2):
            words[rng.randrange(80)] = str(rng.randrange(1000, 2000))
            texts.append(" ".join(words))
    kept: list[int] = []
    for index, text in enumerate(texts):
        if all(jaccard(shingles(text, 5), shingles(texts[other], 5)) < 0.8 for other in kept):
            kept.append(index)
    assert survivors(*texts) == (kept, {"near_duplicate": len(texts) - len(kept)})
    assert 60 <= len(kept) < len(texts)


def test_bands_find_what_they_promise():
    for threshold in (0.5, 0.7, 0.8, 0.95, 1.0):
        bands = bands_for(threshold)
        assert MINHASHES % bands == 0
        assert 1 - (1 - threshold ** (MINHASHES // bands)) ** bands >= LEAST_RECALL


def test_public_web_pages_are_not_each_others_duplicates(public_data):
    texts = [row["text"] for _, row in read_rows(public_data("pretrain/c4_demo.jsonl.gz"))]
    assert survivors(*texts, *texts)[0] == list(range(len(texts)))
