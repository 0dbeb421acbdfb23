from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from llamaherd.assistant.local import Answer
from llamaherd.chat.dialogue import Dialogue
from llamaherd.evaluation.obedience import obedience_report, obedience_rows
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.sequence import Completion

SAMPLING = SamplingConfig(max_new_tokens=10)
USERS = [[f"Question {turn}" for turn in range(1, 11)]] * 4
INSTRUCTIONS = ["Say A.", "Say B.", "Say C.", "Say D."]


class Scripted:
    """Says what a function of instruction and turn says; every message takes ten tokens."""

    def __init__(self, says: Callable[[str, int], str], context: int = 1000):
        self.says, self.asked = says, list[Dialogue]()
        self.model = SimpleNamespace(config=SimpleNamespace(context=context))

    def prompt_ids(self, dialogue: Dialogue) -> list[int]:
        return [5] * 10 * len(dialogue.messages)

    def answers(self, dialogues: Sequence[Dialogue], config: SamplingConfig, seeds: Sequence[int], *_: Any) -> list[Answer]:
        assert len(dialogues) == len(seeds) == len(set(seeds))
        self.asked += dialogues
        return [Answer(self.says(dialogue.system or "", dialogue.turns), [], Completion()) for dialogue in dialogues]


def obeys(index: int, answer: str) -> bool:
    return answer == INSTRUCTIONS[index][4]


def measured(assistant: Scripted, turns: Sequence[int]) -> dict[str, tuple[float | None, int]]:
    rows, dialogues = obedience_rows(assistant, INSTRUCTIONS, USERS, obeys, turns, SAMPLING, 0)  # type: ignore[arg-type]
    assert len(dialogues) == 4
    assert len({(row["dialogue"], row["turn"]) for row in rows}) == len(rows)
    found = obedience_report(rows, turns)
    assert list(found) == [str(turn) for turn in turns]
    return {turn: (figure["value"], figure["n"]) for turn, figure in found.items()}


def test_who_obeys_until_when() -> None:
    """A obeys always, B for two turns, C for one, D never."""
    until = {"A": 99, "B": 2, "C": 1, "D": 0}

    def says(instruction: str, turn: int) -> str:
        letter = instruction[4]
        return letter if turn <= until[letter] else "something else"

    assistant = Scripted(says)
    assert measured(assistant, (1, 2, 3, 6)) == {"1": (0.75, 4), "2": (0.5, 4), "3": (0.25, 4), "6": (0.25, 4)}
    last = assistant.asked[-1]
    assert last.system == "Say D."
    assert [message.content for message in last.messages if message.role == "user"] == USERS[0][:6], "the instruction is said once"


def test_a_dialogue_ends_with_an_answer_that_cannot_be_continued() -> None:
    def says(instruction: str, turn: int) -> str:
        return {("B", 2): "", ("C", 2): "C [INST]"}.get((instruction[4], turn), instruction[4])

    assert measured(Scripted(says), (1, 2, 3)) == {"1": (1.0, 4), "2": (0.5, 4), "3": (0.5, 4)}
    rows, dialogues = obedience_rows(Scripted(says), INSTRUCTIONS, USERS, obeys, (2, 3), SAMPLING, 0)  # type: ignore[arg-type]
    of_b = [(row["turn"], row["obeyed"], row["answer"]) for row in rows if row["dialogue"] == 1]
    assert of_b == [(2, False, ""), (3, False, None)]
    assert [dialogue.turns for dialogue in dialogues] == [3, 2, 2, 3]
    assert [dialogue.last.role for dialogue in dialogues] == ["assistant", "user", "user", "assistant"]


def test_a_full_context_ends_all() -> None:
    """Turn t has a prompt of 2 t messages, ten tokens each, and needs ten more."""
    assert measured(Scripted(lambda instruction, turn: instruction[4], context=50), (2, 3, 4)) == {
        "2": (1.0, 4),
        "3": (None, 0),
        "4": (None, 0),
    }


@pytest.mark.parametrize("turns", [(1,), (2, 5), (10,)])
def test_only_the_asked_turns_are_reported(turns: tuple[int, ...]) -> None:
    assistant = Scripted(lambda instruction, turn: instruction[4])
    assert measured(assistant, turns) == {str(turn): (1.0, 4) for turn in turns}
    assert len(assistant.asked) == 4 * max(turns)


def test_scripts_of_several_lengths_end_where_their_users_do() -> None:
    """A asks ten times, B twice, C once; D's answer breaks it off in the first of two turns."""
    users = [USERS[0], USERS[0][:2], USERS[0][:1], USERS[0][:2]]
    assistant = Scripted(lambda instruction, turn: "" if instruction[4] == "D" else instruction[4])
    rows, dialogues = obedience_rows(assistant, INSTRUCTIONS, users, obeys, (1, 2, 3), SAMPLING, 0)  # type: ignore[arg-type]
    found = obedience_report(rows, (1, 2, 3))
    assert [(figure["value"], figure["n"]) for figure in found.values()] == [(0.75, 4), (pytest.approx(2 / 3), 3), (1.0, 1)]
    assert [dialogue.turns for dialogue in dialogues] == [3, 2, 1, 1]
