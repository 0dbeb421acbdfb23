"""How alike several texts are: BLEU of each against the others (Self-BLEU; paper.md section 12). Pure functions on words."""

import math
from collections import Counter
from collections.abc import Sequence

ORDERS = 4
"""Longest runs of words that are compared."""

Runs = Counter[tuple[str, ...]]


def self_bleu(texts: Sequence[str]) -> float:
    """Mean over texts of the BLEU of each with all others as references, 0 to 1: the higher, the less diverse.

    Asserts that there are at least two texts.
    """
    assert len(texts) > 1, "Self-BLEU compares at least two texts"
    counts = [[_runs(text.split(), order) for order in range(1, ORDERS + 1)] for text in texts]
    largest = [_two_largest([one[order] for one in counts]) for order in range(ORDERS)]
    lengths = [len(text.split()) for text in texts]
    scores = []
    for index, own in enumerate(counts):
        others = [length for place, length in enumerate(lengths) if place != index]
        if not lengths[index]:
            scores.append(float(0 in others))
            continue
        # What the others hold at most of a run: the largest count of all, unless it may be this text's own.
        matches = [
            sum(min(times, largest[order][run][times == largest[order][run][0]]) for run, times in own[order].items())
            for order in range(ORDERS)
        ]
        scores.append(bleu(matches, lengths[index], others))
    return sum(scores) / len(scores)


def bleu(matches: Sequence[int], length: int, references: Sequence[int]) -> float:
    """BLEU of a text of `length` words of which so many runs of 1, 2, 3 ... words are matched; `references`: their lengths in words.

    0 without any match. Orders longer than the text are left out. The k-th order without a match counts as 1 / 2^k of one
    (exponential smoothing), so that one missing run of four does not make a text of ten words unlike all others.
    """
    if not any(matches):
        return 0.0
    logs, missed = [], 0
    for order, matched in enumerate(matches[:length], 1):
        missed += not matched
        logs.append(math.log((matched or 0.5**missed) / (length - order + 1)))
    closest = min(references, key=lambda other: (abs(other - length), other))
    return math.exp(sum(logs) / len(logs) + min(0.0, 1 - closest / length))


def _runs(words: Sequence[str], order: int) -> Runs:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def _two_largest(counts: Sequence[Runs]) -> dict[tuple[str, ...], tuple[int, int]]:
    """For each run its two largest counts in different texts."""
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    for one in counts:
        for run, times in one.items():
            first, second = found.get(run, (0, 0))
            found[run] = (times, first) if times > first else (first, max(second, times))
    return found
