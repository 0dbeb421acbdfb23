"""What a claim is made of, and how its figures are read and pooled over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ...core.files import read_rows
from ...measures.intervals import Figure, mean, nothing, over_seeds
from ..effects import Effect
from ..figures import Chart
from ..folder import RunFolder, dig

Values = Mapping[str, float]
"""A number for each prompt or comparison, by its id."""


@dataclass(frozen=True)
class SeedRun:
    """One seed: its run, and what was made for the claims in the run's folder `claims`."""

    path: Path

    @cached_property
    def run(self) -> RunFolder:
        return RunFolder(self.path)

    @cached_property
    def claims(self) -> RunFolder:
        return RunFolder(self.path / "claims")

    def name(self, kind: str) -> str:
        """The last version's artifact of a kind, such as `v5-safety`."""
        return f"{self.run.last}-{kind}"

    def metric(self, name: str, *keys: str) -> Any:
        """One entry of the metrics of an artifact, made for the claims or the run's own; None where it is missing."""
        folder = self.claims if name in self.claims.artifacts else self.run
        return dig(folder.artifacts[name].metrics, *keys) if name in folder.artifacts else None

    def rows(self, name: str, file: str) -> list[dict[str, Any]]:
        """Rows of an artifact's file, empty where it is missing."""
        folder = self.claims if name in self.claims.artifacts else self.run
        path = folder.path / name / file
        return [row for _, row in read_rows(path)] if path.is_file() else []

    def judged(self, name: str, task: str, number: Callable[[dict[str, Any]], float | None], mode: str = "sampled") -> Values:
        """A number for each prompt of a task, from the judged answers of an evaluation; rows whose number is None are left out."""
        return by_id((row["id"], number(row)) for row in self.rows(name, "rows.jsonl") if (row["task"], row["mode"]) == (task, mode))

    def tested(self, name: str, number: Callable[[dict[str, Any]], float | None]) -> Values:
        """A number for each test comparison of a reward model."""
        return by_id((row["id"], number(row)) for row in self.rows(name, "tested.jsonl"))


def by_id(numbers: Any) -> Values:
    """(id, number) pairs by id; the mean where an id comes twice, nothing where the number is None."""
    found: dict[str, list[float]] = {}
    for name, value in numbers:
        if value is not None:
            found.setdefault(name, []).append(float(value))
    return {name: sum(values) / len(values) for name, values in found.items()}


def less(a: Values, b: Values) -> Values:
    """b - a for each id that both have."""
    return {name: b[name] - a[name] for name in a if name in b}


@dataclass(frozen=True)
class Row:
    """One figure of a claim, pooled over seeds, with its verdict; `by_seed` are the seeds' own figures."""

    effect: Effect
    by_seed: Sequence[Figure]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper. `paper`: what the paper prints of it, in words; charts stand on the page only."""

    id: str
    sentence: str
    paper: str
    rows: Sequence[Row]
    charts: Sequence[Chart] = ()


Measure = Callable[[Sequence[SeedRun]], Claim]


def row(
    name: str, seeds: Sequence[SeedRun], values: Callable[[SeedRun], Values], *, paper: float | None = None,
    direction: Literal["above", "below"] = "above", threshold: float = 0.0, note: str = "",
) -> Row:  # fmt: skip
    """The mean of a number over prompts and seeds; where it is a difference, it is paired by prompt and seed."""
    by_seed = [values(seed) for seed in seeds]
    here = over_seeds(by_seed)
    return Row(
        Effect(name, paper, here if here["n"] else None, direction, threshold, note),
        [mean(list(found.values())) if found else nothing() for found in by_seed],
    )
