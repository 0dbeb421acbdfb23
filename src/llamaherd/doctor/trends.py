"""Whether numbers in time rise or fall: the test of Mann and Kendall, which asks for order alone."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

LEAST_POINTS = 5
"""With fewer even a strict rise is not sure at 95%."""


def trend(values: Sequence[float]) -> float:
    """Standard deviations by which later values are above earlier ones (below: negative), ties and continuity corrected; 0 without a trend
    or with too few values to see one (Mann 1945, Kendall 1975).
    """
    n = len(values)
    if n < LEAST_POINTS:
        return 0.0
    score = sum((later > earlier) - (later < earlier) for earlier, later in combinations(values, 2))
    ties = sum(count * (count - 1) * (2 * count + 5) for count in Counter(values).values())
    variance = (n * (n - 1) * (2 * n + 5) - ties) / 18
    return 0.0 if variance <= 0 or score == 0 else (score - math.copysign(1, score)) / math.sqrt(variance)


def ends(values: Sequence[float]) -> tuple[float, float]:
    """Means of the first and of the last quarter, of one value at least."""
    part = max(1, len(values) // 4)
    return sum(values[:part]) / part, sum(values[-part:]) / part
