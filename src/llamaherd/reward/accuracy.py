"""How often a reward model prefers what the annotator preferred: in all, by grade, by batch, on its own and the other domain."""

from collections.abc import Sequence
from typing import Any

from ..core.artifacts import hash_of
from ..data.records import GRADES, Domain, Preference
from ..measures.intervals import Figure, rate
from .model import RewardModel
from .pairs import both_dialogues

Row = dict[str, Any]


def comparison_rows(model: RewardModel, preferences: Sequence[Preference]) -> list[Row]:
    """One row per comparison: `id` (the same for every model), domain, grade, batch, both answers' logits and safety labels, and
    whether the model `agrees`: scores the chosen answer higher (equal scores do not count)."""
    pairs = [both_dialogues(preference) for preference in preferences]
    chosen, rejected = (model.logits([pair[side] for pair in pairs]) for side in (0, 1))
    return [
        {
            "id": hash_of([row.prompt.to_row()["messages"], row.chosen, row.rejected])[:16],
            "domain": row.domain, "grade": row.grade, "batch": row.batch, "chosen_logit": better, "rejected_logit": worse,
            "chosen_safe": row.chosen_safe, "rejected_safe": row.rejected_safe, "agrees": better > worse,
        }
        for row, better, worse in zip(preferences, chosen, rejected, strict=True)
    ]  # fmt: skip


def accuracy_report(rows: Sequence[Row], domain: Domain) -> dict[str, Any]:
    """{"own": {"all", each grade}, "other": {...}, "by_batch": {batch: figure of its own domain}} as rates with intervals."""
    own, other = ([row for row in rows if (row["domain"] == domain) == same] for same in (True, False))
    batches = sorted({row["batch"] for row in rows if row["batch"] is not None})
    by_batch = {batch: _share([row for row in own if row["batch"] == batch]) for batch in batches}
    return {"own": _by_grade(own), "other": _by_grade(other), "by_batch": by_batch}


def _by_grade(rows: Sequence[Row]) -> dict[str, Figure]:
    return {"all": _share(rows), **{grade: _share([row for row in rows if row["grade"] == grade]) for grade in GRADES}}


def _share(rows: Sequence[Row]) -> Figure:
    return rate(sum(row["agrees"] for row in rows), len(rows))
