"""Which dialogues of a file a model is tuned on: as often as the file's share says, and of tagged ones as many as are wanted.

In one place, since whoever checks a tuning afterwards has to find the same ones.
"""

from collections.abc import Sequence
from pathlib import Path

from ..core.seeds import python_rng


def taken(count: int, tagged: Sequence[int], share: float, safety_share: float, seed: int, file: Path) -> list[int]:
    """Indices of the `count` dialogues of `file`, in the order in which they join, each as often as `share` says (0.5: a seeded half,
    2: twice). `tagged`: those that answer safety prompts, of which `safety_share` are kept; a smaller share is among a larger one.
    """
    shuffled = list(tagged)
    python_rng(seed, "safety share", file.parent.name, file.name).shuffle(shuffled)
    left_out = set(shuffled[round(safety_share * len(shuffled)) :])
    once = [index for index in range(count) if index not in left_out]
    whole, part = int(share), share - int(share)
    some = python_rng(seed, "share", file.parent.name, file.name).sample(range(len(once)), round(part * len(once)))
    return once * whole + [once[index] for index in sorted(some)]
