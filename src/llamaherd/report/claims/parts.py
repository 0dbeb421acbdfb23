"""What a claim is made of, and how its figures are read and pooled over seeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ...core.files import read_rows
from ...measures.intervals import Figure, mean, nothing, over_seeds
from ..effects import Effect
from ..figures import Chart
from ..folder import RunFolder

Values = Mapping[str, float]
"""A number for each prompt or comparison, by its id."""
Number = Callable[[Mapping[str, Any]], float | None]
"""What is read from a row; None leaves it out."""


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

    def holder(self, name: str) -> RunFolder:
        """Where an artifact stands: among those made for the claims, or in the run."""
        return self.claims if name in self.claims.artifacts else self.run

    def last(self, kind: str) -> str:
        """The last version's artifact of a kind, such as `v5-safety`."""
        return f"{self.run.last}-{kind}"

    def metric(self, name: str, *keys: str) -> Any:
        """One entry of an artifact's metrics, None where it is missing."""
        return self.holder(name).metric(name, *keys)

    def rows(self, name: str, file: str = "rows.jsonl") -> list[dict[str, Any]]:
        """Rows of an artifact's file, empty where it is missing."""
        path = self.holder(name).path / name / file
        return [row for _, row in read_rows(path)] if path.is_file() else []

    def judged(self, name: str, task: str, number: Number) -> Values:
        """A number for each prompt of a task, from an evaluation's rows of sampled answers."""
        rows = self.rows(f"{name}-{'rewards' if task == 'rewards' and name in self.run.versions else 'evaluation'}")
        return by_id((row["id"], number(row)) for row in rows if row["task"] == task and row["mode"] == "sampled")

    def tested(self, name: str, number: Number) -> Values:
        """A number for each test comparison of a reward model."""
        return by_id((row["id"], number(row)) for row in self.rows(name, "tested.jsonl"))


def by_id(numbers: Iterable[tuple[str, float | None]]) -> Values:
    """The numbers by id; the mean where an id comes twice, nothing where the number is None."""
    found: dict[str, list[float]] = {}
    for name, value in numbers:
        if value is not None:
            found.setdefault(name, []).append(float(value))
    return {name: sum(values) / len(values) for name, values in found.items()}


def less(a: Values, b: Values) -> Values:
    """b - a for each id that both have."""
    return {name: b[name] - a[name] for name in a if name in b}


def score(row: Mapping[str, Any]) -> float | None:
    """The oracle's helpfulness, or a reward model's score."""
    return row["score"]  # type: ignore[no-any-return]


def violates(row: Mapping[str, Any]) -> float:
    return float(not row["safe"])


def refuses(row: Mapping[str, Any]) -> float:
    return float(row["refusal"])


def of_domain(domain: str) -> Number:
    """The score of a reward model on prompts of its own domain."""
    return lambda row: score(row) if row["domain"] == domain else None


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


def pooled(seeds: Sequence[SeedRun], values: Callable[[SeedRun], Values]) -> Figure | None:
    """The mean of a number over prompts and seeds; None where nothing was measured."""
    here = over_seeds([values(seed) for seed in seeds])
    return here if here["n"] else None


def row(
    name: str, seeds: Sequence[SeedRun], values: Callable[[SeedRun], Values], *, paper: float | None = None,
    direction: Literal["above", "below"] = "above", threshold: float = 0.0, note: str = "",
) -> Row:  # fmt: skip
    """A figure of a claim; where it is a difference, `values` pairs it by prompt within the seed."""
    by_seed = [mean(list(found.values())) if (found := values(seed)) else nothing() for seed in seeds]
    return Row(Effect(name, paper, pooled(seeds, values), direction, threshold, note), by_seed)


def compared(
    name: str, seeds: Sequence[SeedRun], task: str, number: Number, arms: Callable[[SeedRun], tuple[str, str]], **wanted: Any
) -> Row:
    """The second model of `arms` minus the first one, on the same prompts of a task."""
    return row(name, seeds, lambda seed: less(*(seed.judged(arm, task, number) for arm in arms(seed))), **wanted)
