"""Instructions with answers from the public files, as dialogues to tune on; a few of them safe answers to unsafe requests."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...chat.dialogue import Dialogue, DialogueError
from ...core.files import read_rows
from ...core.seeds import python_rng
from ..importers import as_dialogue

SEED_TASKS = "instruction/alpaca_seed_tasks.jsonl"
LLAMA = "instruction/llama2_7b_chat_outputs_alpaca_eval.jsonl.gz"
HELPFUL = (
    "instruction/alpaca_en_demo.jsonl.gz", "instruction/gpteacher_roleplay.jsonl.gz", "instruction/instruction_1100.jsonl", SEED_TASKS, LLAMA,
)  # fmt: skip
SAFETY = "safety/safety_sft_instructions.jsonl.gz"
FILES = (*HELPFUL, SAFETY)
TESTED = ("helpful_base", "selfinstruct", "vicuna")
"""Parts of AlpacaEval whose prompts are of collections that something is tested on: Llama 2's answers to them are left out."""


def demonstrations(files: Mapping[str, Path], safety: int, most_characters: int, seed: int) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Dialogues in an order drawn by `seed`, and why others were left out; `safety` of them answer unsafe requests.

    `most_characters`: longer dialogues are left out.
    """
    left_out, helpful, unsafe = Counter[str](), list[dict[str, Any]](), list[dict[str, Any]]()
    for name, row in _rows(files):
        try:
            dialogue = as_dialogue(row, name)
        except DialogueError:
            left_out["breaks a rule of dialogues"] += 1
            continue
        if _characters(dialogue) > most_characters:
            left_out["too long"] += 1
        elif name == SAFETY:
            unsafe.append({**dialogue.to_row(), "safety": True})
        else:
            helpful.append(dialogue.to_row())
    rng = python_rng(seed, "demonstrations")
    rng.shuffle(unsafe)
    left_out["safety, more than wanted"] = max(0, len(unsafe) - safety)
    found = [*helpful, *unsafe[:safety]]
    rng.shuffle(found)
    return found, left_out


def _rows(files: Mapping[str, Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows in the form that `as_dialogue` takes, each with its file's name."""
    for name, path in files.items():
        for _, row in read_rows(path):
            if name == SEED_TASKS:
                yield from ((name, {"instruction": row["instruction"], **one}) for one in row["instances"])
            elif row.get("dataset") not in TESTED:
                yield name, {key: row[key] for key in ("instruction", "input", "output") if key in row}


def _characters(dialogue: Dialogue) -> int:
    return sum(len(message.content) for message in dialogue.messages)
