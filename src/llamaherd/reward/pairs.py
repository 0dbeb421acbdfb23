"""What reward models train on: pairs with margins and safety labels, and the loss of a micro-batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..chat.dialogue import Dialogue
from ..chat.template import encode_dialogue
from ..core.artifacts import hash_of
from ..data.records import Preference
from ..losses.margins import margin_of
from ..losses.ranking import ranking_loss, safety_loss
from ..model.layout import Layout
from ..model.transformer import Scorer
from ..train.loop import LossSum
from .model import RewardModel


@dataclass(frozen=True)
class Pair:
    """One encoded comparison. Labels: 1 safe, 0 unsafe, NaN without a label."""

    chosen: list[int]
    rejected: list[int]
    margin: float
    labels: tuple[float, float]


def both_dialogues(preference: Preference) -> tuple[Dialogue, Dialogue]:
    """The prompt with the chosen and with the rejected answer."""
    return preference.prompt.followed_by("assistant", preference.chosen), preference.prompt.followed_by("assistant", preference.rejected)


def fitting(preferences: Sequence[Preference], model: RewardModel) -> list[Preference]:
    """Those whose two dialogues fit the model's context; the others are for the caller to count."""
    return [preference for preference in preferences if all(map(model.fits, both_dialogues(preference)))]


def too_long(
    preferences: Sequence[Preference], fit: Sequence[Preference], model: RewardModel, use: Literal["train", "test"]
) -> list[dict[str, Any]]:
    """What `fitting` left out, by name: the comparison's `id`, its prompt's beginning, its source, what it was for, and what is too long,
    the prompt by itself or with the longer answer, in tokens."""
    found, known, context = list[dict[str, Any]](), set(map(id, fit)), model.scorer.config.context
    for preference in preferences:
        if id(preference) in known:
            continue
        bare, *both = (
            len(encode_dialogue(dialogue, model.tokenizer).ids)
            for dialogue in (preference.prompt.followed_by("assistant", ""), *both_dialogues(preference))
        )
        found.append({
            "id": comparison_id(preference), "prompt": preference.prompt.asked[:80], "source": preference.source, "for": use,
            "too_long": "prompt" if bare > context else "answer", "tokens": max(both), "context": context,
        })  # fmt: skip
    return found


def comparison_id(preference: Preference) -> str:
    """What tells a comparison from others: the same for every model."""
    return hash_of([preference.prompt.to_row()["messages"], preference.chosen, preference.rejected])[:16]


def encode_pair(preference: Preference, model: RewardModel, margin: str) -> Pair:
    """Ids of both answers with the paper's margin for the grade. Raises UserError when one exceeds the context."""

    def label(safe: bool | None) -> float:
        return math.nan if safe is None else float(safe)

    chosen, rejected = map(model.ids, both_dialogues(preference))
    labels = label(preference.chosen_safe), label(preference.rejected_safe)
    return Pair(chosen, rejected, margin_of(margin, preference.grade), labels)


def pair_loss(scorer: Scorer, pairs: Sequence[Pair], safety_weight: float) -> LossSum:
    """Sum over pairs of the ranking loss, plus `safety_weight` times the auxiliary loss on the answers' safety labels."""
    documents = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    layout = Layout.of([len(ids) for ids in documents], scorer.device)
    tokens = torch.tensor([[token for ids in documents for token in ids]], device=scorer.device)
    scores = scorer(tokens, layout, layout.ends)
    chosen, rejected = scores[: len(pairs)], scores[len(pairs) :]
    margins = torch.tensor([pair.margin for pair in pairs], device=scorer.device)
    ranking = ranking_loss(chosen, rejected, margins)
    total = ranking
    if safety_weight:
        labels = torch.tensor([pair.labels for pair in pairs], device=scorer.device)
        total = ranking + safety_weight * safety_loss(torch.stack([chosen, rejected], dim=1), labels)
    difference = (chosen - rejected).detach()
    size = tokens.shape[1]
    mean_document = sum(length * length for length in layout.lengths) / size
    sums = {
        "reward/accuracy": (float((difference > 0).sum()), float(len(pairs))),
        "reward/ranking_loss": (ranking.item(), float(len(pairs))),
        "reward/margin": (float(difference.sum()), float(len(pairs))),
    }
    return LossSum(total, len(pairs), size, scorer.config.training_flops(size, mean_document, len(documents), 1), sums)
