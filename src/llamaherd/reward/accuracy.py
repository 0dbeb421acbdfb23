"""How often a reward model prefers what the annotator preferred: in all, by grade, by batch, on its own and the other domain."""

from collections.abc import Sequence
from typing import Any

from ..data.records import DOMAINS, GRADES, Domain, Preference
from ..measures.intervals import Figure, rate
from .model import RewardModel


def agreement(model: RewardModel, preferences: Sequence[Preference]) -> list[bool]:
    """For each comparison, whether the model scores the chosen answer higher (equal scores do not count as agreement)."""
    chosen = model.logits([preference.prompt.followed_by("assistant", preference.chosen) for preference in preferences])
    rejected = model.logits([preference.prompt.followed_by("assistant", preference.rejected) for preference in preferences])
    return [better > worse for better, worse in zip(chosen, rejected, strict=True)]


def _share(agrees: Sequence[bool], which: Sequence[bool]) -> Figure:
    chosen = [agree for agree, counts in zip(agrees, which, strict=True) if counts]
    return rate(sum(chosen), len(chosen))


def accuracy_report(model: RewardModel, preferences: Sequence[Preference], domain: Domain) -> dict[str, Any]:
    """{"own": {"all", each grade}, "other": {...}, "by_batch": {batch: figure of its own domain}} as rates with intervals."""
    report: dict[str, Any] = {}
    agrees = agreement(model, preferences) if preferences else []
    for name in ("own", "other"):
        inside = [(preference.domain == domain) == (name == "own") for preference in preferences]
        report[name] = {"all": _share(agrees, inside)}
        for grade in GRADES:
            graded = [there and preference.grade == grade for there, preference in zip(inside, preferences, strict=True)]
            report[name][grade] = _share(agrees, graded)
    own = [preference.domain == domain for preference in preferences]
    batches = sorted({preference.batch for preference in preferences if preference.batch is not None})
    report["by_batch"] = {
        batch: _share(agrees, [there and preference.batch == batch for there, preference in zip(own, preferences, strict=True)])
        for batch in batches
    }
    assert domain in DOMAINS
    return report
