"""Scoring dialogues with a reward model, line by line."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from ..chat.dialogue import parse_dialogue
from ..core.errors import UserError
from ..core.files import read_rows
from .common import rows_file, sigmoid

BATCH_LINES = 256


def run(reward_model: str, file: Path) -> Iterator[str]:
    """The file's rows as JSON with "score", the sigmoid, and "logit"; they do not depend on each other.

    Raises UserError for a model or a line that cannot be used, before the first row comes.
    """
    from ..reward.model import RewardModel

    file = rows_file(file)
    rows = list(read_rows(file))
    dialogues = [parse_dialogue(row, f"{file} line {number}", ends_with="assistant") for number, row in rows]
    model = RewardModel.load(reward_model)
    for (number, _), dialogue in zip(rows, dialogues, strict=True):
        model.ids(dialogue, f"{file} line {number}")
    for start in range(0, len(rows), BATCH_LINES):
        batch = rows[start : start + BATCH_LINES]
        for (number, row), logit in zip(batch, model.logits(dialogues[start : start + BATCH_LINES]), strict=True):
            if not math.isfinite(logit):
                raise UserError(f"{file} line {number}: the reward model's logit is {logit}; its weights overflow on this dialogue")
            yield json.dumps({**row, "score": sigmoid(logit), "logit": logit}, ensure_ascii=False, allow_nan=False)
