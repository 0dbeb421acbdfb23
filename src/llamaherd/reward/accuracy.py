"""How often a reward model prefers what the annotator preferred: in all, by grade, by batch, on its own and the other domain."""

from collections.abc import Sequence
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
    judged = list(zip(preferences, agreement(model, preferences), strict=True))
    own = [(row, agrees) for row, agrees in judged if row.domain == domain]
    other = [(row, agrees) for row, agrees in judged if row.domain != domain]
    batches = sorted({row.batch for row in preferences if row.batch is not None})
    by_batch = {batch: _share([agrees for row, agrees in own if row.batch == batch]) for batch in batches}
    return {"own": _by_grade(own), "other": _by_grade(other), "by_batch": by_batch}


def _by_grade(judged: Sequence[tuple[Preference, bool]]) -> dict[str, Figure]:
    found = {"all": _share([agrees for _, agrees in judged])}
    for grade in GRADES:
        found[grade] = _share([agrees for row, agrees in judged if row.grade == grade])
    return found


def _share(agrees: Sequence[bool]) -> Figure:
    return rate(sum(agrees), len(agrees))
