"""The pretraining mixture (section 2): the most factual sources are up-sampled, by a weight per source."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import UserError, did_you_mean
from ..core.seeds import python_rng


def copies_of(sources: Sequence[str], weights: Mapping[str, float], seed: int) -> list[int]:
    """How often each document is read in one epoch, by the source of each.

    Weight 2 is every document twice; 1.5 every one once and a seeded half of them once more; a source without weight
    has 1. Raises UserError for the weight of a source that no document has.
    """
    known = sorted(set(sources))
    for name in weights:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"weights.{name}: no document has this source{hint}; there are {', '.join(known)}")
    copies = [int(weights.get(source, 1.0)) for source in sources]
    for name, weight in sorted(weights.items()):
        members = [index for index, source in enumerate(sources) if source == name]
        for index in python_rng(seed, "mixture", name).sample(members, round(weight % 1 * len(members))):
            copies[index] += 1
    return copies


def mixture_statistics(sources: Sequence[str], tokens: Sequence[int], copies: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Documents and tokens of each source before and after, with its share of all tokens (0 to 1)."""
    rows: dict[str, dict[str, Any]] = {}
    for source, size, count in zip(sources, tokens, copies, strict=True):
        row = rows.setdefault(source, {"documents": 0, "tokens": 0, "mixed_documents": 0, "mixed_tokens": 0})
        row["documents"] += 1
        row["tokens"] += size
        row["mixed_documents"] += count
        row["mixed_tokens"] += count * size
    total, mixed = (sum(row[key] for row in rows.values()) for key in ("tokens", "mixed_tokens"))
    for row in rows.values():
        row["share"] = row["tokens"] / total
        row["mixed_share"] = row["mixed_tokens"] / mixed if mixed else 0.0
    return dict(sorted(rows.items()))
