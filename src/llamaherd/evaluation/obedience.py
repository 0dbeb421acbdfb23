"""How long an instruction at the start of a dialogue holds (paper.md section 7's test of Ghost Attention)."""

from collections.abc import Callable, Sequence
from typing import Any

from ..assistant.local import Assistant
from ..chat.dialogue import Dialogue, Message, checked
from ..core.seeds import seed_for
from ..generate.config import SamplingConfig
from ..generate.memory import Memory
from ..measures.intervals import Figure, rate

Row = dict[str, Any]


def obedience_rows(
    assistant: Assistant,
    instructions: Sequence[str],
    users: Sequence[Sequence[str]],
    obeys: Callable[[int, str], bool],
    turns: Sequence[int],
    sampling: SamplingConfig,
    seed: int,
) -> tuple[list[Row], list[Dialogue]]:
    """One row per dialogue and turn of `turns`: {"dialogue" (its index), "turn", "obeyed", "answer"}, and the dialogues as far as
    they went. The instruction is the system text and is said once.

    A dialogue that an empty answer or a forged tag broke off counts as disobedient from then on; one whose context is full or whose
    user has no more to say has no rows of later turns.
    """
    dialogues = [
        checked([Message("system", text), Message("user", questions[0])]) for text, questions in zip(instructions, users, strict=True)
    ]
    rows: list[Row] = []
    broken, full, memory = set[int](), set[int](), Memory()
    for turn in range(1, max(turns) + 1):
        talking = [index for index in range(len(dialogues)) if turn <= len(users[index])]
        going = [index for index in talking if index not in broken | full]
        if turn > 1:
            for index in going:
                dialogues[index] = dialogues[index].followed_by("user", users[index][turn - 1])
        full |= {index for index in going if not _has_room(assistant, dialogues[index], sampling)}
        asked = [index for index in going if index not in full]
        seeds = [seed_for(seed, "obedience", index, turn) for index in asked]
        answers = assistant.answers([dialogues[index] for index in asked], sampling, seeds, memory) if asked else []
        if turn in turns:
            rows += [{"dialogue": index, "turn": turn, "obeyed": False, "answer": None} for index in talking if index in broken]
        for index, answer in zip(asked, answers, strict=True):
            if turn in turns:
                rows.append({"dialogue": index, "turn": turn, "obeyed": obeys(index, answer.text), "answer": answer.text})
            if answer.usable:
                dialogues[index] = dialogues[index].followed_by("assistant", answer.text)
            else:
                broken.add(index)
    return rows, dialogues


def obedience_report(rows: Sequence[Row], turns: Sequence[int]) -> dict[str, Figure]:
    """Share of dialogues whose answer at each of `turns` obeys."""
    by_turn = {turn: [row["obeyed"] for row in rows if row["turn"] == turn] for turn in turns}
    return {str(turn): rate(sum(obeyed), len(obeyed)) for turn, obeyed in by_turn.items()}


def _has_room(assistant: Assistant, dialogue: Dialogue, sampling: SamplingConfig) -> bool:
    return len(assistant.prompt_ids(dialogue)) + sampling.max_new_tokens <= assistant.model.config.context
