"""How far scores can be taken at their word: calibration, what a threshold finds, and what scores go along with. Pure functions on numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .intervals import BLOCK_DRAWS, RESAMPLES, Figure, figure, nothing, rate

Numbers = np.typing.NDArray[np.float64]

CONFIDENCE_BINS = 10
"""Equal parts of 0.5 to 1, which is what the probability of the likelier of two outcomes can be."""


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), written so that no exponential overflows."""
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)


def reliability(confidences: Sequence[float], hits: Sequence[float], bins: int = CONFIDENCE_BINS) -> list[dict[str, Any]]:
    """A reliability diagram: for each part of 0.5 to 1 `low`, `high`, the mean `confidence` in it (None where it is empty) and the `rate`
    of hits (0, 1, or a half for what was not decided)."""
    places, edges = _places(confidences, bins), np.linspace(0.5, 1.0, bins + 1)
    found = []
    for place in range(bins):
        inside = places == place
        mean = float(np.asarray(confidences)[inside].mean()) if inside.any() else None
        hit = rate(float(np.asarray(hits)[inside].sum()), int(inside.sum()))
        found.append({"low": float(edges[place]), "high": float(edges[place + 1]), "confidence": mean, "rate": hit})
    return found


def expected_calibration_error(confidences: Sequence[float], hits: Sequence[float], bins: int = CONFIDENCE_BINS) -> Figure:
    """Mean over observations of |rate of hits - mean confidence| of the part of 0.5 to 1 they are in (Guo et al. 2017), 0 to 1.

    Few observations in a part make it larger than it is: chance alone moves their rate off their confidence.
    """
    places = _places(confidences, bins)
    gaps = np.asarray(hits, dtype=np.float64) - np.asarray(confidences, dtype=np.float64)
    members = np.eye(bins)[places] * gaps[:, None]

    def of(drawn: np.typing.NDArray[np.int64]) -> Numbers:
        # |sum of gaps| of each part, over all observations: the counts of the parts cancel.
        return np.asarray(np.abs(members[drawn].sum(axis=1)).sum(axis=1) / drawn.shape[1])

    return bootstrapped(len(gaps), of, width=bins)


def _places(confidences: Sequence[float], bins: int) -> np.typing.NDArray[np.int64]:
    values = np.asarray(confidences, dtype=np.float64)
    assert values.ndim == 1, values.shape
    assert not len(values) or (values.min() >= 0.5 and values.max() <= 1), "confidences lie between 0.5 and 1"
    return np.minimum(((values - 0.5) * 2 * bins).astype(np.int64), bins - 1)


def threshold_report(scores: Sequence[float], positives: Sequence[bool], threshold: float) -> dict[str, Figure]:
    """What "below `threshold`" finds of the positives: `precision` of what it calls positive, `recall` of them, and `false_alarms`, the
    share of the others that it calls so too."""
    called = [score < threshold for score in scores]
    true = sum(call and positive for call, positive in zip(called, positives, strict=True))
    real = sum(positives)
    return {
        "precision": rate(true, sum(called)), "recall": rate(true, real), "false_alarms": rate(sum(called) - true, len(called) - real),
    }  # fmt: skip


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> Figure:
    """Spearman's: the correlation of ranks, equal values sharing theirs; -1 to 1, nothing where one side is constant.

    Its interval is bootstrapped over observations, whose ranks stay those among all.
    """
    assert len(a) == len(b), (len(a), len(b))
    if len(set(a)) < 2 or len(set(b)) < 2:
        return nothing()
    x, y = (np.asarray(_ranks(values)) for values in (a, b))
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()

    def of(drawn: np.typing.NDArray[np.int64]) -> Numbers:
        left, right = x[drawn], y[drawn]
        left, right = left - left.mean(axis=1, keepdims=True), right - right.mean(axis=1, keepdims=True)
        spread = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
        return np.asarray(np.divide((left * right).sum(axis=1), spread, out=np.zeros(len(drawn)), where=spread > 0))

    return bootstrapped(len(x), of)


def _ranks(values: Sequence[float]) -> Numbers:
    """Ranks from 0; equal values get the mean of theirs."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    return np.asarray((last - (counts - 1) / 2)[inverse])


def bootstrapped(n: int, statistic: Callable[[np.typing.NDArray[np.int64]], Numbers], width: int = 1, seed: int = 0) -> Figure:
    """A statistic of n observations with the percentile interval of a seeded bootstrap. `statistic`: indices [R, n] -> values [R];
    `width`: numbers that it holds for each index."""
    if not n:
        return nothing()
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK_DRAWS // (n * width))
    drawn = np.concatenate([statistic(rng.integers(0, n, (min(rows, RESAMPLES - done), n))) for done in range(0, RESAMPLES, rows)])
    # Reordered sums leave 1e-17 of difference where there is none.
    value, low, high = (round(float(one), 12) for one in (statistic(np.arange(n)[None])[0], *np.percentile(drawn, [2.5, 97.5])))
    return figure(value, min(low, value), max(high, value), n)


def histogram(values: Sequence[float], bins: int = 20) -> list[int]:
    """How many of the values, 0 to 1, fall into each of so many equal parts; 1 belongs to the last."""
    counts = [0] * bins
    for value in values:
        counts[min(int(value * bins), bins - 1)] += 1
    return counts


def by_bin(levels: Sequence[float], values: Sequence[float], most: int = 10) -> Mapping[str, list[float]]:
    """Values gathered by level: by each different one where there are at most `most`, else by as many equal parts of their range."""
    found: dict[str, list[float]] = {}
    different = sorted(set(levels))
    if len(different) <= most:
        for level in different:
            found[f"{level:g}"] = [value for at, value in zip(levels, values, strict=True) if at == level]
        return found
    edges = np.linspace(different[0], different[-1], most + 1)
    places = np.minimum(np.searchsorted(edges, levels, side="right") - 1, most - 1)
    for place in range(most):
        name = f"{edges[place]:.3g} to {edges[place + 1]:.3g}"
        if inside := [value for at, value in zip(places, values, strict=True) if at == place]:
            found[name] = inside
    return found
