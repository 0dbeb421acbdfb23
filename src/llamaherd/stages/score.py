"""Scoring dialogues with a reward model, line by line."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from ..chat.dialogue import parse_dialogue
from ..core.files import read_rows

BATCH_LINES = 256


def run(reward_model: str, file: Path) -> Iterator[str]:
    """The file's rows as JSON with "score", the sigmoid, and "logit". Raises UserError before the first line is printed."""
    from ..reward.model import RewardModel

    rows = list(read_rows(file))
    dialogues = [parse_dialogue(row, f"{file} line {number}", ends_with="assistant") for number, row in rows]
    model = RewardModel.load(reward_model)
    for (number, _), dialogue in zip(rows, dialogues, strict=True):
        model.ids(dialogue, f"{file} line {number}")
    for start in range(0, len(rows), BATCH_LINES):
        logits = model.logits(dialogues[start : start + BATCH_LINES])
        for (_, row), logit in zip(rows[start:], logits):
            yield json.dumps({**row, "score": 1 / (1 + math.exp(-logit)), "logit": logit}, ensure_ascii=False)
