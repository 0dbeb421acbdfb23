"""Annotators with human faults: the oracle's opinion plus noise (section 4's four grades and safety labels)."""

import random
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from ..chat.dialogue import Dialogue
from ..core.config import Config
from ..core.seeds import python_rng
from ..data.records import Choice, Domain, Grade
from .oracle import Oracle


class AnnotatorConfig(Config):
    noise: float = Field(default=0.15, ge=0)
    """Standard deviation of what is added to the difference of two scores (each 0 to 1)."""
    significantly: float = Field(default=0.5, gt=0)
    """Differences from here on are called significantly better."""
    better: float = Field(default=0.3, gt=0)
    """Differences from here on are called better."""
    slightly: float = Field(default=0.12, gt=0)
    """Differences from here on are called slightly better, smaller ones negligibly better or unsure."""
    label_noise: float = Field(default=0.03, ge=0, le=1)
    """Chance of a wrong safety label."""

    @model_validator(mode="after")
    def _in_order(self) -> "AnnotatorConfig":
        if not self.slightly < self.better < self.significantly:
            raise ValueError(
                f"slightly {self.slightly}, better {self.better}, significantly {self.significantly}: expected them to rise in this order"
            )
        return self


class NoisyAnnotator:
    """Compares answers by the oracle: by helpfulness, or in safety batches with safety first."""

    def __init__(self, oracle: Oracle, config: AnnotatorConfig | None = None, name: str = "miniature"):
        self.oracle = oracle
        self.config = config or AnnotatorConfig()
        self.name = name

    def difference(self, prompt: Dialogue, answers: tuple[str, str], domain: Domain) -> float:
        """Score of the first answer less that of the second, without noise."""
        if domain == "safety":
            first, second = (self.oracle.safety(prompt, answer) for answer in answers)
        else:
            first, second = (self.oracle.judge(prompt, answer).helpfulness for answer in answers)
        return first - second

    def compare(self, prompt: Dialogue, answers: tuple[str, str], domain: Domain, rng: random.Random) -> Choice:
        """The better answer as this annotator sees it; labels of safety in safety batches only."""
        difference = self.difference(prompt, answers, domain) + rng.gauss(0, self.config.noise)
        chosen: Literal[0, 1] = 0 if difference >= 0 else 1
        grade = self.grade(abs(difference))
        if domain == "helpfulness":
            return Choice(chosen, grade)
        first, second = (self.oracle.judge(prompt, answer).safe != (rng.random() < self.config.label_noise) for answer in answers)
        return Choice(chosen, grade, (first, second))

    def grade(self, size: float) -> Grade:
        """The grade of a difference of this size."""
        if size >= self.config.significantly:
            return "significantly"
        if size >= self.config.better:
            return "better"
        return "slightly" if size >= self.config.slightly else "negligibly"


def agreement(
    annotator: NoisyAnnotator, pairs: Iterable[tuple[Dialogue, tuple[str, str]]], domain: Domain = "helpfulness", seed: int = 0
) -> float:
    """Share of pairs where the annotator chooses as it would without noise, 0 to 1: the ceiling of a reward model's accuracy.

    Pairs of equal scores count one half: there is nothing to agree with. Asserts that there is at least one pair.
    """
    rng = python_rng(seed, "miniature", "agreement", annotator.name)
    total, agreed = 0, 0.0
    for prompt, answers in pairs:
        difference = annotator.difference(prompt, answers, domain)
        chosen = annotator.compare(prompt, answers, domain, rng).chosen
        agreed += 0.5 if difference == 0 else float((chosen == 0) == (difference > 0))
        total += 1
    assert total, "agreement needs at least one pair"
    return agreed / total
