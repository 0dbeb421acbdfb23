"""Figures with 95% intervals: rates, means, differences, and whether an effect shows. Pure functions on numbers.

A figure of nothing (n = 0) is `{"value": None, "low": None, "high": None, "n": 0}`: measured on nobody, not zero.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:  # loaded where it is used: settings stand beside stages, and help need not wait for it
    import numpy as np

Verdict = Literal["shown", "not shown", "undecided"]

Z_95 = 1.959963984540054
"""Two-sided 95% point of the normal distribution."""
RESAMPLES = 2000
BLOCK_DRAWS = 1_000_000
"""Draws held in memory at a time."""
FEWEST = 10
"""Below this many observations no verdict: a bootstrap of a handful of values is narrower than the truth."""


class Figure(TypedDict):
    """How every measured figure is written to JSON."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def figure(value: float, low: float, high: float, n: int) -> Figure:
    """A figure and its 95% interval from n observations."""
    assert math.isfinite(value), value
    assert low <= high, (low, high)
    assert n > 0, n
    return {"value": float(value), "low": float(low), "high": float(high), "n": int(n)}


def nothing() -> Figure:
    """The figure of no observations."""
    return {"value": None, "low": None, "high": None, "n": 0}


def rate(successes: float, n: int) -> Figure:
    """successes / n (half a success for a tie) with Wilson's score interval, which stays inside 0 to 1 and has width also at 0 and n successes."""
    assert 0 <= successes <= n, (successes, n)
    if n == 0:
        return nothing()
    p, z2 = successes / n, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return figure(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n)


def pooled(rates: Iterable[Figure]) -> Figure:
    """The rate of all observations behind several rates together."""
    known = [(one["value"] * one["n"], one["n"]) for one in rates if one["value"] is not None]
    return rate(sum(successes for successes, _ in known), sum(n for _, n in known))


def mean(values: "Sequence[float] | np.typing.NDArray[np.float64]", seed: int = 0) -> Figure:
    """Mean with the percentile interval of a seeded bootstrap over the values. Equal values have an interval of no width."""
    import numpy as np

    sample = np.asarray(values, dtype=np.float64)
    assert sample.ndim == 1, sample.shape
    assert np.isfinite(sample).all(), "a mean of numbers that are not all finite"
    if not len(sample):
        return nothing()
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK_DRAWS // len(sample))
    means = [
        sample[rng.integers(0, len(sample), (min(rows, RESAMPLES - done), len(sample)))].mean(axis=1) for done in range(0, RESAMPLES, rows)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return figure(sample.mean(), low, high, len(sample))


def mean_of_sums(total: float, squares: float, n: int) -> Figure:
    """Mean with the normal interval, from the sums of n values and of their squares: for more values than a bootstrap should hold."""
    if n == 0:
        return nothing()
    spread = math.sqrt(max(0.0, squares - total * total / n) / max(1, n - 1))
    half = Z_95 * spread / math.sqrt(n)
    return figure(total / n, total / n - half, total / n + half, n)


def paired_difference(a: "Sequence[float] | np.typing.NDArray[np.float64]", b: "Sequence[float] | np.ndarray", seed: int = 0) -> Figure:
    """Mean of b - a over the same prompts in the same order, bootstrapped over prompts."""
    import numpy as np

    assert len(a) == len(b), (len(a), len(b))
    return mean(np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64), seed)


def over_seeds(seeds: Sequence[Mapping[str, float]], seed: int = 0) -> Figure:
    """Mean over seeds of each seed's mean over prompts, bootstrapped over prompts; `seeds` holds a value for each prompt's id.

    A prompt that several seeds were asked is drawn for all of them at once: three seeds do not make three prompts of one.
    So n counts different prompts. Seeds without any value are left out.
    """
    vectors = [{prompt: (value,) for prompt, value in values.items()} for values in seeds]
    return of_means_over_seeds(vectors, lambda means: means[0], seed)


def of_means_over_seeds(
    seeds: Sequence[Mapping[str, Sequence[float]]], statistic: "Callable[[np.typing.NDArray[np.float64]], float]", seed: int = 0
) -> Figure:
    """`statistic` of the means over prompts and seeds of several values [K], which each prompt has; drawn and counted as in `over_seeds`."""
    import numpy as np

    measured = [values for values in seeds if values]
    if not measured:
        return nothing()
    prompts = sorted({prompt for values in measured for prompt in values})
    width = len(next(iter(measured[0].values())))
    known = np.array([[prompt in values for prompt in prompts] for values in measured], dtype=np.float64)
    table = np.array([[values.get(prompt, (0.0,) * width) for prompt in prompts] for values in measured], dtype=np.float64)
    assert np.isfinite(table).all(), "a mean of numbers that are not all finite"
    rng, even = np.random.default_rng(seed), np.full(len(prompts), 1 / len(prompts))
    rows = max(1, BLOCK_DRAWS // len(prompts))
    blocks = [rng.multinomial(len(prompts), even, min(rows, RESAMPLES - done)) for done in range(0, RESAMPLES, rows)]
    drawn = [statistic(means) for times in blocks for means in _weighted(times, table, known)]
    value = statistic(_weighted(np.ones((1, len(prompts))), table, known)[0])
    # Sums of differences leave 1e-18 where there is nothing.
    value, low, high = (round(float(one), 12) for one in (value, *np.percentile(drawn, [2.5, 97.5])))
    return figure(value, min(low, value), max(high, value), len(prompts))


def _weighted(
    times: "np.typing.NDArray[Any]", table: "np.typing.NDArray[Any]", known: "np.typing.NDArray[Any]"
) -> "np.typing.NDArray[Any]":
    """[R, K] means over seeds of [S, P, K], where each prompt counts `times` [R, P]; a seed none of whose prompts was drawn is left out."""
    import numpy as np

    counts, sums = (times @ known.T)[:, :, None], np.einsum("rp,spk->rsk", times, table)
    means: np.typing.NDArray[Any] = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return np.asarray(np.nanmean(means, axis=1))


def win_rate(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Figure:
    """Share of prompts, in the same order, whose b is above its a; ties count half. Bootstrapped over prompts."""
    assert len(a) == len(b), (len(a), len(b))
    return mean([0.5 + 0.5 * ((theirs > ours) - (theirs < ours)) for ours, theirs in zip(a, b, strict=True)], seed)


def difference(a: Figure, b: Figure) -> Figure:
    """b - a of two figures, from their own intervals (Newcombe 1998, method 10). n is the smaller one's.

    Exact pairing is lost: on the same prompts, where the two usually rise and fall together, the interval is too wide.
    """
    if a["value"] is None or a["low"] is None or a["high"] is None or b["value"] is None or b["low"] is None or b["high"] is None:
        return nothing()
    value = b["value"] - a["value"]
    below = math.hypot(b["value"] - b["low"], a["high"] - a["value"])
    above = math.hypot(b["high"] - b["value"], a["value"] - a["low"])
    return figure(value, value - below, value + above, min(a["n"], b["n"]))


def averaged(figures: Sequence[Figure]) -> Figure:
    """Mean of figures that were measured apart, from their own intervals as in `difference`; n is their sum. Empty ones are left out."""
    found = [
        (one["value"], one["low"], one["high"])
        for one in figures
        if one["value"] is not None and one["low"] is not None and one["high"] is not None
    ]
    if not found:
        return nothing()
    value = sum(middle for middle, _, _ in found) / len(found)
    below = math.hypot(*(middle - low for middle, low, _ in found)) / len(found)
    above = math.hypot(*(high - middle for middle, _, high in found)) / len(found)
    return figure(value, value - below, value + above, sum(one["n"] for one in figures))


def scaled(one: Figure, factor: float) -> Figure:
    """A figure times a factor of at least 0."""
    assert factor >= 0, factor
    if one["value"] is None or one["low"] is None or one["high"] is None:
        return nothing()
    return figure(one["value"] * factor, one["low"] * factor, one["high"] * factor, one["n"])


def effect(one: Figure | None, direction: Literal["above", "below"] = "above", threshold: float = 0.0) -> Verdict:
    """ "shown" if the whole interval lies beyond the threshold in that direction, "not shown" if none of it, else "undecided".

    Undecided also without a figure, and with too few observations for an interval to mean anything.
    """
    if one is None or one["low"] is None or one["high"] is None or one["n"] < FEWEST:
        return "undecided"
    low, high = one["low"] - threshold, one["high"] - threshold
    if direction == "below":
        low, high = -high, -low
    return "shown" if low > 0 else "not shown" if high <= 0 else "undecided"
