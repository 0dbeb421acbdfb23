"""What the corpus holds (section 2): sources, languages, pronouns, toxicity when a scorer is given. Nothing is removed."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import Field

from ..core.config import Config
from ..core.seeds import python_rng
from .documents import Document

Score = Callable[[Sequence[str]], Sequence[float]]
"""Toxicity of each text, 0 to 1."""

LISTED_SHARE = 0.00005
SURE = 0.5
TOXIC = 0.5
UNKNOWN = "unknown"

GENDERED = {
    "she": frozenset(("she", "her", "hers", "herself")),
    "he": frozenset(("he", "him", "his", "himself")),
    "unspecified": frozenset(("they", "them", "their", "theirs", "theirself", "themself", "themselves")),
}
PERSONS = {
    "first": frozenset(("i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves")),
    "second": frozenset(("you", "your", "yours", "yourself", "yourselves")),
    "third": frozenset(("it", "its", "itself")).union(*GENDERED.values()),
}


class StatisticsConfig(Config):
    sample: float = Field(default=1.0, gt=0, le=1)
    """Share of the documents whose language, pronouns and toxicity are looked at (the paper took a tenth for toxicity)."""
    toxic_words: tuple[str, ...] = ()
    """A line with one of these words scores 1, any other 0 (the paper's scorer is a trained classifier); none: toxicity is not measured."""


class LanguageFinder:
    """The most likely language of a text as an ISO 639 code, or "unknown" below the confidence of the paper."""

    def __init__(self) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self.languages = frozenset(map(str, self._identifier.labels))

    def __call__(self, text: str) -> str:
        language, confidence = self._identifier.classify(text)
        return str(language) if confidence >= SURE else UNKNOWN


def language_shares(languages: Counter[str]) -> dict[str, float]:
    """Share of each language, most frequent first; those below the paper's limit are one entry, "other"."""
    total = languages.total()
    ranked = sorted(languages.items(), key=lambda item: (-item[1], item[0]))
    shares = {name: count / total for name, count in ranked if count / total >= LISTED_SHARE}
    rare = sum(count for name, count in ranked if name not in shares)
    return {**shares, "other": rare / total} if rare else shares


class PronounCounts:
    """Documents with at least one pronoun of each list."""

    def __init__(self) -> None:
        self.documents = 0
        self.gendered = 0
        self.person = 0
        self.of: Counter[str] = Counter()

    def add(self, text: str) -> None:
        # "they're" counts as "they".
        words = set(re.findall(r"[^\W\d_]+", text.casefold()))
        found = [name for name, listed in {**GENDERED, **PERSONS}.items() if not words.isdisjoint(listed)]
        self.documents += 1
        self.gendered += any(name in GENDERED for name in found)
        self.person += any(name in PERSONS for name in found)
        self.of.update(found)

    def shares(self) -> dict[str, Any]:
        """Shares of documents; she, he and unspecified are shares of the documents with any of the three, as in the paper."""

        def share(count: int, whole: int) -> float | None:
            return count / whole if whole else None

        gendered = {name: share(self.of[name], self.gendered) for name in GENDERED}
        person = {name: share(self.of[name], self.documents) for name in PERSONS}
        return {
            "documents": self.documents,
            "gendered": {"any": share(self.gendered, self.documents), **gendered},
            "person": {"any": share(self.person, self.documents), **person},
        }


def score_by_words(listed: Sequence[str]) -> Score:
    """1 for a text that holds one of the listed words, whatever its case, else 0."""
    toxic = {word.casefold() for word in listed}
    return lambda texts: [float(not toxic.isdisjoint(re.findall(r"[^\W\d_]+", text.casefold()))) for text in texts]


def document_toxicity(text: str, score: Score) -> float:
    """Mean score over the lines that are not empty, as the paper scores a document."""
    scores = score([line for line in text.split("\n") if line.strip()])
    return sum(scores) / len(scores)


def statistics(
    documents: Iterable[Document],
    config: StatisticsConfig,
    seed: int,
    count_tokens: Callable[[str], int] | None = None,
    score: Score | None = None,
) -> dict[str, Any]:
    """Plain values: documents, characters (and tokens) by source; of a seeded sample the languages, the pronouns of its
    English documents, and toxicity when there is a scorer. Documents are not empty."""
    rng = python_rng(seed, "statistics")
    language_of = LanguageFinder()
    sources: dict[str, Counter[str]] = {}
    languages: Counter[str] = Counter()
    pronouns = PronounCounts()
    toxicity: list[float] = []
    for document in documents:
        counts = sources.setdefault(document.source, Counter())
        counts["documents"] += 1
        counts["characters"] += len(document.text)
        if count_tokens:
            counts["tokens"] += count_tokens(document.text)
        if rng.random() >= config.sample:
            continue
        language = language_of(document.text)
        languages[language] += 1
        if language == "en":
            pronouns.add(document.text)
        if score:
            toxicity.append(document_toxicity(document.text, score))
    total: Counter[str] = sum(sources.values(), Counter())
    result: dict[str, Any] = {
        **total, "sources": {name: dict(counts) for name, counts in sorted(sources.items())},
        "sampled": languages.total(), "languages": language_shares(languages), "english_pronouns": pronouns.shares(),
    }  # fmt: skip
    if toxicity:
        result["toxicity"] = {
            "mean": sum(toxicity) / len(toxicity),
            "share_toxic": sum(value >= TOXIC for value in toxicity) / len(toxicity),
        }
    return result
