"""Scoring dialogues with a reward model, line by line."""

import json
from collections.abc import Iterator
from pathlib import Path

from ..chat.dialogue import parse_dialogue
from ..core.files import read_rows
from ..measures.calibration import sigmoid
from .common import rows_file

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
    names = [f"{file} line {number}" for number, _ in rows]
    for dialogue, name in zip(dialogues, names, strict=True):
        model.ids(dialogue, name)
    for start in range(0, len(rows), BATCH_LINES):
        batch = slice(start, start + BATCH_LINES)
        for (_, row), logit in zip(rows[batch], model.logits(dialogues[batch], names=names[batch]), strict=True):
            yield json.dumps({**row, "score": sigmoid(logit), "logit": logit}, ensure_ascii=False, allow_nan=False)
