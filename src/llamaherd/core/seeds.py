"""One seed per run, named streams from it: a stage's numbers do not depend on what ran before it."""

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_for(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one named purpose, e.g. `seed_for(run_seed, "reject", "v2", prompt_index)`."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def python_rng(seed: int, *names: str | int) -> random.Random:
    """Python's generator for one named purpose."""
    return random.Random(seed_for(seed, *names))


def torch_rng(seed: int, *names: str | int) -> "torch.Generator":
    """A CPU torch generator for one named purpose."""
    import torch

    return torch.Generator().manual_seed(seed_for(seed, *names))
