"""What length and single words alone would say of a comparison: the baselines that a reward model has to beat.

Each returns 1 for a comparison in which the chosen answer is preferred, 0 where the other one is, and 0.5 where neither.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from llamaherd.data.records import Preference

WORD = re.compile(r"[a-z0-9]+(?:['’][a-z]+)?|[^\sa-z0-9]")
"""Words in lower case, and every other sign by itself."""
LEAST_PAIRS = 3
"""A word is a feature if it tells apart the answers of at least so many training comparisons."""
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Weights of half the squared norm against the sum of the losses of training comparisons."""
MOST_STEPS = 50
"""Of Newton's method, which needs about ten."""
INNER = 4
"""Parts of the training folds between which the penalty is chosen."""


def length_difference(one: Preference) -> int:
    """Characters of the chosen answer beyond those of the other."""
    return len(one.chosen) - len(one.rejected)


def agreement(difference: float) -> float:
    """1 where the score of the chosen answer is higher, 0.5 where they are equal."""
    return 0.5 + 0.5 * ((difference > 0) - (difference < 0))


def longer(tested: Sequence[Preference]) -> list[float]:
    """The longer answer is preferred."""
    return [agreement(length_difference(one)) for one in tested]


def length_as_trained(trained: Sequence[Preference], tested: Sequence[Preference]) -> list[float]:
    """The longer answer is preferred, or the shorter one, whichever people did more often in the training folds."""
    return longer(tested) if sum(longer(trained)) >= len(trained) / 2 else [1 - one for one in longer(tested)]


def counts(one: Preference) -> Counter[str]:
    """How much more often each word stands in the chosen answer than in the other."""
    found = Counter(WORD.findall(one.chosen.casefold()))
    found.subtract(WORD.findall(one.rejected.casefold()))
    return Counter({word: count for word, count in found.items() if count})


def overlap(rows: Sequence[Counter[str]], others: Sequence[Counter[str]], words: Mapping[str, int]) -> Tensor:
    """Inner products [rows, others] of the counts of `words`."""
    dense = [torch.zeros(len(some), len(words), dtype=torch.float64) for some in (rows, others)]
    for table, some in zip(dense, (rows, others), strict=True):
        for number, row in enumerate(some):
            for word, count in row.items():
                if word in words:
                    table[number, words[word]] = count
    return dense[0] @ dense[1].T


def vocabulary(rows: Sequence[Counter[str]]) -> dict[str, int]:
    pairs = Counter(word for row in rows for word in row)
    return {word: place for place, word in enumerate(sorted(word for word, count in pairs.items() if count >= LEAST_PAIRS))}


def fit(inner: Tensor, penalty: float) -> Tensor:
    """Logistic regression P(chosen is preferred) = sigmoid(x w), no constant since order means nothing, by Newton's method.

    inner [N, N]: products of the training comparisons' x. Returns how much [N] each of them adds to w (w = the sum of a x), at which
    sum(-log sigmoid(x w)) + penalty / 2 * w w is least; comparisons are fewer than words, so this is the smaller of the two problems.
    """
    one, scores, added = torch.eye(len(inner), dtype=inner.dtype), torch.zeros(len(inner), dtype=inner.dtype), torch.zeros_like(inner[0])
    for _ in range(MOST_STEPS):
        sure = torch.sigmoid(scores)
        curved = (sure * (1 - sure)).clamp_min(1e-9)
        target = curved * scores + (1 - sure)
        added = torch.linalg.solve(penalty * one + curved[:, None] * inner, target)
        before, scores = scores, inner @ added
        if (scores - before).abs().max() < 1e-6:
            break
    return added


def learned(trained: Sequence[Counter[str]], tested: Sequence[Counter[str]], penalties: Sequence[float]) -> dict[float, list[float]]:
    """What each penalty's regression says of the tested comparisons."""
    words = vocabulary(trained)
    inner, across = overlap(trained, trained, words), overlap(tested, trained, words)
    return {penalty: list(map(agreement, (across @ fit(inner, penalty)).tolist())) for penalty in penalties}


def bag_of_words(trained: Sequence[Preference], groups: Sequence[str], tested: Sequence[Preference]) -> list[float]:
    """Logistic regression on differences of word counts; its penalty is chosen between parts of the training comparisons by groups.

    `groups`: of every training comparison; those of one group are in one part.
    """
    rows, order = list(map(counts, trained)), {group: index for index, group in enumerate(dict.fromkeys(groups))}
    part = [order[group] % INNER for group in groups]
    scores = dict.fromkeys(PENALTIES, 0.0)
    for inner in range(INNER):
        kept, held = ([row for row, where in zip(rows, part, strict=True) if (where == inner) == side] for side in (False, True))
        for penalty, agreed in learned(kept, held, PENALTIES).items():
            scores[penalty] += sum(agreed)
    best = max(PENALTIES, key=lambda penalty: (scores[penalty], penalty))
    return learned(rows, list(map(counts, tested)), [best])[best]
