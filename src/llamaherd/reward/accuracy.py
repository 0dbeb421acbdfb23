"""How often a reward model prefers what the annotator preferred: in all, by grade, by batch, on its own and the other domain."""

from collections.abc import Callable, Sequence
from typing import Any

from ..data.records import GRADES, Domain, Preference
from ..measures.intervals import Figure, rate
from .model import RewardModel
from .pairs import both_dialogues


def agreement(model: RewardModel, preferences: Sequence[Preference]) -> list[bool]:
    """For each comparison, whether the model scores the chosen answer higher (equal scores do not count as agreement)."""
    pairs = [both_dialogues(preference) for preference in preferences]
    chosen, rejected = (model.logits([pair[side] for pair in pairs]) for side in (0, 1))
    return [better > worse for better, worse in zip(chosen, rejected, strict=True)]


def accuracy_report(model: RewardModel, preferences: Sequence[Preference], domain: Domain) -> dict[str, Any]:
    """{"own": {"all", each grade}, "other": {...}, "by_batch": {batch: figure of its own domain}} as rates with intervals."""
    agrees = agreement(model, preferences)

    def share(counts: Callable[[Preference], bool]) -> Figure:
        chosen = [agree for agree, preference in zip(agrees, preferences, strict=True) if counts(preference)]
        return rate(sum(chosen), len(chosen))

    def by_grade(own: bool) -> dict[str, Figure]:
        graded = {grade: share(lambda row, grade=grade: (row.domain == domain) == own and row.grade == grade) for grade in GRADES}  # type: ignore[misc]
        return {"all": share(lambda row: (row.domain == domain) == own), **graded}

    batches = sorted({preference.batch for preference in preferences if preference.batch is not None})
    by_batch = {batch: share(lambda row, batch=batch: row.domain == domain and row.batch == batch) for batch in batches}  # type: ignore[misc]
    return {"own": by_grade(True), "other": by_grade(False), "by_batch": by_batch}
