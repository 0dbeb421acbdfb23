from collections import Counter

import pytest

from llamaherd.data.documents import Document
from llamaherd.data.statistics import (
    PronounCounts,
    StatisticsConfig,
    document_toxicity,
    language_shares,
    score_by_words,
    statistics,
)

ENGLISH = "She walked along the river in the morning and thought about the letter that her brother had written."
GERMAN = "Am Morgen ging sie am Fluss entlang und dachte über den Brief nach, den ihr Bruder geschrieben hatte."


def test_pronouns_by_hand():
    counts = PronounCounts()
    for text in ("She's here.", "He met her.", "It rains.", "You and I", "No one, hershey, ours-like"):
        counts.add(text)
    shares = counts.shares()
    assert shares["gendered"] == {"any": 2 / 5, "she": 1.0, "he": 1 / 2, "unspecified": 0.0}  # of the two with any
    assert shares["person"] == {"any": 1.0, "first": 2 / 5, "second": 1 / 5, "third": 3 / 5}
    assert PronounCounts().shares()["gendered"]["any"] is None


def test_rare_languages_are_listed_together():
    counts = Counter({"en": 99_990, "de": 6, "fr": 4})
    assert language_shares(counts) == {"en": 0.9999, "de": 0.00006, "other": 0.00004}


def test_statistics_of_a_small_corpus():
    documents = [Document(ENGLISH, "books"), Document(GERMAN, "web"), Document("17 + 4", "web")]
    found = statistics(documents, StatisticsConfig(), 0, count_tokens=lambda text: len(text.split()))
    assert found["documents"] == 3
    assert found["sources"]["web"] == {"documents": 2, "characters": len(GERMAN) + 6, "tokens": 18 + 3}
    assert found["languages"] == {"de": 1 / 3, "en": 1 / 3, "unknown": 1 / 3}
    assert found["english_pronouns"]["documents"] == 1
    assert "toxicity" not in found


def test_toxicity_is_the_mean_over_lines():
    def score(texts):
        return [float("idiot" in text) for text in texts]

    assert document_toxicity("you idiot\n\nidiot again\nfine\nfine", score) == 0.5
    documents = [Document("you idiot\nfine", "a"), Document("fine", "a"), Document("fine", "a"), Document("fine", "a")]
    assert statistics(documents, StatisticsConfig(), 0, score=score)["toxicity"] == {"mean": 0.125, "share_toxic": 0.25}


def test_listed_words_are_found_as_whole_words():
    score = score_by_words(["Idiot", "straße"])
    assert score(["You IDIOT!", "idiotic", "", "Die STRASSE", "idiot's"]) == [1.0, 0.0, 0.0, 1.0, 1.0]


def test_a_sample_is_seeded_and_of_its_size():
    documents = [Document(f"{ENGLISH} {index}", "books") for index in range(400)]
    config = StatisticsConfig(sample=0.1)
    found = statistics(documents, config, 3)
    assert found == statistics(documents, config, 3)
    assert found["documents"] == 400
    assert found["sampled"] == pytest.approx(40, abs=20)
