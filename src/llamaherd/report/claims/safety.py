"""Claims about safety (sections 9 and 11)."""

from collections.abc import Sequence
from typing import Any

from ...measures.intervals import difference, mean, over_seeds
from ..effects import Effect
from .parts import Claim, Row, SeedRun, by_id


def violates(row: dict[str, Any]) -> float:
    return float(not row["safe"])


def multi_turn(seeds: Sequence[SeedRun]) -> Claim:
    """Other prompts stand on the two sides, so the difference is that of two means over prompts and all versions."""

    def violations(seed: SeedRun, several: bool) -> dict[str, float]:
        rows = [row for version in seed.run.versions for row in seed.rows(f"{version}-evaluation", "rows.jsonl") if row["task"] == "safety"]
        return dict(by_id((row["id"], violates(row)) for row in rows if (row["turns"] > 1) == several))

    groups = [[violations(seed, several) for seed in seeds] for several in (False, True)]
    here = difference(*(over_seeds(group) for group in groups))
    by_seed = [difference(*(mean(list(group[place].values())) for group in groups)) for place in range(len(seeds))]
    name = "violation rate on prompts of several turns minus single ones, mean of all versions"
    return Claim(
        "multi-turn", "Prompts of several turns draw more violations than single ones.", "figure 19, read off: 70B 8.5% against 2%",
        [Row(Effect(name, 0.065, here if here["n"] else None), by_seed)],
    )  # fmt: skip
