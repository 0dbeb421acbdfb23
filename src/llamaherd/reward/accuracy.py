"""How often a reward model prefers what the annotator preferred: in all, by grade, by batch, by source, on its own and the other domain."""

from collections.abc import Sequence
from typing import Any

from ..data.records import GRADES, Domain, Preference
from ..measures.intervals import Figure, rate
from .model import RewardModel
from .pairs import both_dialogues, comparison_id

Row = dict[str, Any]


def comparison_rows(model: RewardModel, preferences: Sequence[Preference]) -> list[Row]:
    """One row per comparison: `id` (the same for every model), domain, grade, batch, source, both answers' logits, safety labels and
    lengths in characters, and whether the model `agrees`: scores the chosen answer higher (equal scores do not count).

    Raises UserError, with its prompt, for a comparison that the model scores as no finite number.
    """
    pairs = [both_dialogues(preference) for preference in preferences]
    names = [f"comparison {number} ({row.prompt.asked[:60]!r})" for number, row in enumerate(preferences, 1)]
    chosen, rejected = (model.logits([pair[side] for pair in pairs], names=names) for side in (0, 1))
    return [
        {
            "id": comparison_id(row),
            "domain": row.domain, "grade": row.grade, "batch": row.batch, "source": row.source, "chosen_logit": better, "rejected_logit": worse,
            "chosen_safe": row.chosen_safe, "rejected_safe": row.rejected_safe,
            "chosen_chars": len(row.chosen), "rejected_chars": len(row.rejected), "agrees": better > worse,
        }
        for row, better, worse in zip(preferences, chosen, rejected, strict=True)
    ]  # fmt: skip


def accuracy_report(rows: Sequence[Row], domain: Domain) -> dict[str, Any]:
    """{"own": {"all", each grade}, "other": {...}, "by_batch": {batch: figure of its own domain}, "by_source": {source: figure of both}} as
    rates with intervals; "by_file" too where rows say from which file they are."""
    own, other = ([row for row in rows if (row["domain"] == domain) == same] for same in (True, False))
    batches = sorted({row["batch"] for row in rows if row["batch"] is not None})
    by_batch = {batch: _share([row for row in own if row["batch"] == batch]) for batch in batches}
    sets = {"by_source": "source", "by_file": "file"}
    by_set = {name: _by(key, rows) for name, key in sets.items() if any(row.get(key) is not None for row in rows)}
    return {"own": _by_grade(own), "other": _by_grade(other), "by_batch": by_batch, **by_set}


def _by(key: str, rows: Sequence[Row]) -> dict[str, Figure]:
    names = dict.fromkeys(row[key] for row in rows if row.get(key) is not None)
    return {name or "not named": _share([row for row in rows if row.get(key) == name]) for name in names}


def _by_grade(rows: Sequence[Row]) -> dict[str, Figure]:
    return {"all": _share(rows), **{grade: _share([row for row in rows if row["grade"] == grade]) for grade in GRADES}}


def _share(rows: Sequence[Row]) -> Figure:
    return rate(sum(row["agrees"] for row in rows), len(rows))
