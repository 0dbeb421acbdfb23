"""Duplicates: exact ones by a hash of the normalised text, near ones by MinHash (library rensa) and then exact Jaccard.

The first document stays. Shingles are runs of words, padded at both ends so that every word lies in the same number k
of them: replacing one of n words leaves a Jaccard similarity of (n - 1) / (n + 2k - 1). At the default settings two
sentences that differ in one fact are therefore never merged, while long documents that differ in a few words are.
"""

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice

from pydantic import Field

from ..core.config import Config
from .documents import Document, Tally

EXACT, NEAR = "exact_duplicate", "near_duplicate"
"""Names on the tally."""
MINHASHES = 256
LEAST_RECALL = 0.99
"""A pair at the threshold becomes a candidate at least this often; more similar ones more often."""
BATCH_DOCUMENTS = 4096
MARKS = ".,;:!?\"'“”‘’«»()…"
"""Sentence marks at the ends of words are formatting; other symbols (a minus, a percent sign) may carry the fact."""
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Scripts written without spaces: Thai, Lao, Burmese, Khmer, kana, Han. Each character counts as a word."""
_WORD = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")


class DedupConfig(Config):
    near: bool = True
    """Whether near duplicates go too; exact ones always do."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of the shingles from which two documents are near duplicates."""
    shingle_words: int = Field(default=5, ge=1)
    """Words in a shingle; more make a single changed word weigh more."""


def normalised(text: str) -> str:
    """Text without differences of case, white space and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words_of(text: str) -> list[str]:
    """Normalised words without sentence marks at their ends; a word of symbols alone stays, but not at the ends of the text."""
    words = []
    for word in _WORD.findall(re.sub(r"^[\W_]+ | [\W_]+$", "", normalised(text))):
        bare = word.strip(MARKS)
        words.append(bare if any(letter.isalnum() for letter in bare) else word)
    return words


def shingles(text: str, size: int) -> list[str]:
    """The distinct runs of `size` words, padded at both ends, in order of appearance."""
    padding = [""] * (size - 1)
    words = [*padding, *words_of(text), *padding]
    return list(dict.fromkeys(" ".join(words[start : start + size]) for start in range(len(words) - size + 1)))


def jaccard(first: Iterable[int] | Iterable[str], second: Iterable[int] | Iterable[str]) -> float:
    """Size of the intersection over size of the union."""
    one, other = set(first), set(second)
    return len(one & other) / len(one | other)


def bands_for(threshold: float) -> int:
    """Fewest bands of the MinHashes with which a pair at the threshold is found with LEAST_RECALL."""
    bands = 1
    while bands < MINHASHES and 1 - (1 - threshold ** (MINHASHES // bands)) ** bands < LEAST_RECALL:
        bands *= 2
    return bands


def without_exact(documents: Iterable[Document], tally: Tally) -> Iterator[Document]:
    """The first document of each normalised text; keeps a digest of every one in memory."""
    seen: set[bytes] = set()
    for document in documents:
        digest = hashlib.blake2b(normalised(document.text).encode(), digest_size=16).digest()
        if digest in seen:
            tally.drop(EXACT, document)
        else:
            seen.add(digest)
            yield document


def without_near(documents: Iterable[Document], config: DedupConfig, tally: Tally) -> Iterator[Document]:
    """Documents that are not within the threshold of an earlier kept one; keeps shingle hashes and MinHashes in memory."""
    import rensa

    index = rensa.RMinHashLSH(config.threshold, MINHASHES, bands_for(config.threshold))
    kept: list[array[int]] = []
    stream = iter(documents)
    while batch := list(islice(stream, BATCH_DOCUMENTS)):
        sets = [shingles(document.text, config.shingle_words) for document in batch]
        sketches = rensa.RMinHash.from_token_sets(sets, MINHASHES, 0)
        for document, hashes, sketch in zip(batch, rensa.RMinHash.hash_token_sets(sets), sketches):
            if any(jaccard(hashes, kept[candidate]) >= config.threshold for candidate in index.query(sketch)):
                tally.drop(NEAR, document)
                continue
            index.insert(len(kept), sketch)
            kept.append(array("Q", hashes))
            yield document


def deduplicated(documents: Iterable[Document], config: DedupConfig, tally: Tally) -> Iterator[Document]:
    """Documents without exact and, if asked for, near duplicates, in their order."""
    rest = without_exact(documents, tally)
    return without_near(rest, config, tally) if config.near else rest
