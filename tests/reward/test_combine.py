import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.data.records import Prompt
from llamaherd.reward.combine import GATE, Alone, Combination, Scores, gated

EDGE = math.log(0.15 / 0.85)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


@pytest.mark.parametrize(
    ("safety_logit", "is_safety", "expected"),
    [
        (3.0, False, "helpfulness"),
        (3.0, True, "safety"),
        (-3.0, False, "safety"),
        (-3.0, True, "safety"),
        (EDGE, False, "helpfulness"),  # below the threshold, not at it
        (math.nextafter(EDGE, -1e9), False, "safety"),
        (EDGE, True, "safety"),
    ],
)
def test_which_score_counts(safety_logit: float, is_safety: bool, expected: str) -> None:
    found = gated(1.25, safety_logit, is_safety)
    assert found == (1.25 if expected == "helpfulness" else safety_logit)


@given(helpful=st.floats(-12, 12), safe=st.floats(-12, 12), tagged=st.booleans())
def test_is_the_logit_of_the_papers_formula(helpful: float, safe: float, tagged: bool) -> None:
    if abs(sigmoid(safe) - GATE) < 1e-9:
        return
    chosen = sigmoid(safe) if tagged or sigmoid(safe) < 0.15 else sigmoid(helpful)
    assert gated(helpful, safe, tagged) == pytest.approx(math.log(chosen / (1 - chosen)), abs=1e-6)


class Fixed:
    """A reward model that says what a table says of an answer."""

    def __init__(self, table: dict[str, float], longest: int = 99):
        self.table, self.longest = table, longest

    def logits(self, dialogues: list[Dialogue]) -> list[float]:
        return [self.table[dialogue.last.content] for dialogue in dialogues]

    def fits(self, dialogue: Dialogue) -> bool:
        return len(dialogue.last.content) <= self.longest


def test_answers_are_judged_with_their_own_prompts_tag() -> None:
    helpful, safe = Fixed({"a": 2.0, "b": 4.0}), Fixed({"a": 1.0, "b": -4.0}, longest=3)
    rewards = Combination(helpful, safe)  # type: ignore[arg-type]
    prompts = [Prompt(checked([Message("user", "Hello")]), tagged) for tagged in (False, True, False, True)]
    assert rewards.logits(prompts, ["a", "a", "b", "b"]) == [2.0, 1.0, -4.0, -4.0]
    assert rewards.fits(prompts[0], "abc")
    assert not rewards.fits(prompts[0], "abcd")


def test_one_model_alone() -> None:
    prompts = [Prompt(checked([Message("user", "x")]), True)]
    assert Alone("safety", Fixed({"a": 1.0})).scores(prompts, ["a"]) == [Scores(None, 1.0, 1.0)]  # type: ignore[arg-type]
    assert Alone("helpfulness", Fixed({"a": 1.0})).scores(prompts, ["a"]) == [Scores(1.0, None, 1.0)]  # type: ignore[arg-type]
