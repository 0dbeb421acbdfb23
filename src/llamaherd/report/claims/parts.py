"""What a claim is made of, and how its figures are read and pooled over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ...measures.intervals import Figure, mean, nothing, over_seeds
from ..drawing import slug
from ..effects import Effect, arrow, differences
from ..figures import Chart
from ..folder import RunFolder, per_prompt

Values = Mapping[str, float]
"""A number for each prompt, comparison or document, by its id."""
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
        """The run itself where the claims needed nothing beyond it."""
        return RunFolder(self.path / "claims") if any(self.path.glob("claims/*/manifest.json")) else self.run

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
        """Rows of an artifact's file, none where it is missing."""
        return self.holder(name).rows(name, file)

    def judged(self, model: str, number: Number, **where: Any) -> Values:
        """A number for each prompt that a model was asked, from the rows of its evaluations whose fields are as in `where`."""
        rows = [row for kind in ("evaluation", "rewards") for row in self.rows(f"{model}-{kind}")]
        return per_prompt(rows, number, mode="sampled", **where)

    def tested(self, model: str, number: Number, **where: Any) -> Values:
        """A number for each test comparison of a reward model."""
        return per_prompt(self.rows(model, "tested.jsonl"), number, **where)


Arms = Callable[[SeedRun], tuple[str, str]]
"""The two models that a seed compares, by the names of their artifacts."""


def score(row: Mapping[str, Any]) -> float | None:
    """The oracle's helpfulness, or a reward model's score."""
    return row["score"]  # type: ignore[no-any-return]


def violates(row: Mapping[str, Any]) -> float:
    return float(not row["safe"])


def refuses(row: Mapping[str, Any]) -> float:
    return float(row["refusal"])


def agrees(row: Mapping[str, Any]) -> float:
    return float(row["agrees"])


@dataclass(frozen=True)
class Row:
    """One figure of a claim, pooled over seeds, with its verdict; `by_seed` are the seeds' own figures."""

    effect: Effect
    by_seed: Sequence[Figure]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper. `paper`: what the paper prints of it, in words; charts stand on the page only."""

    title: str
    sentence: str
    paper: str
    rows: Sequence[Row]
    charts: Sequence[Chart] = ()

    @property
    def id(self) -> str:
        """`Hot PPO` -> `hot-ppo`."""
        return slug(self.title)

    @property
    def effects(self) -> list[Effect]:
        return [row.effect for row in self.rows]


Measure = Callable[[Sequence[SeedRun]], Claim]


def pooled(values: Sequence[Values]) -> Figure | None:
    """The mean of a number over prompts and seeds; None where nothing was measured."""
    here = over_seeds(values)
    return here if here["n"] else None


def row(
    name: str, brief: str, by_seed: Sequence[Values], *, said: str = "", paper: float | None = None,
    direction: Literal["above", "below"] = "above", threshold: float = 0.0, note: str = "",
) -> Row:  # fmt: skip
    """A figure of a claim from each seed's numbers."""
    own = [mean(list(values.values())) if values else nothing() for values in by_seed]
    return Row(Effect(name, paper, pooled(by_seed), direction, threshold, note, brief=brief, said=said), own)


def paired_row(name: str, brief: str, arms: Sequence[tuple[Values, Values]], **wanted: Any) -> Row:
    """The second side minus the first one, paired by id within each seed."""
    both = [{key for key in first if key in second} for first, second in arms]
    means = [pooled([{key: arm[side][key] for key in sorted(keys)} for arm, keys in zip(arms, both, strict=True)]) for side in (0, 1)]
    return row(name, brief, [differences(first, second) for first, second in arms], said=arrow(*means), **wanted)


def compared(name: str, brief: str, seeds: Sequence[SeedRun], arms: Arms, number: Number, where: Mapping[str, Any], **wanted: Any) -> Row:
    """The answers of the second model of `arms` minus those of the first one, on the same prompts."""
    sides = [tuple(seed.judged(model, number, **where) for model in arms(seed)) for seed in seeds]
    return paired_row(name, brief, sides, **wanted)  # type: ignore[arg-type]


def compared_rewards(name: str, brief: str, seeds: Sequence[SeedRun], arms: Arms, number: Number, **wanted: Any) -> Row:
    """The second reward model of `arms` minus the first one, on the same test comparisons of domain `domain`."""
    where = {key: wanted.pop(key) for key in ("domain", "grade") if key in wanted}
    sides = [tuple(seed.tested(model, number, **where) for model in arms(seed)) for seed in seeds]
    return paired_row(name, brief, sides, **wanted)  # type: ignore[arg-type]
