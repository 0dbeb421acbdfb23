"""What a chat model is asked as a judge, and which replies are verdicts."""

from collections.abc import Sequence
from typing import Any

import pytest

from llamaherd.chat.dialogue import Message, checked
from llamaherd.data.records import Prompt
from llamaherd.evaluation.judges import CRITERIA, Case, ChatJudge, RewardJudge, parse_verdict, question
from llamaherd.generate.config import SamplingConfig
from llamaherd.reward.combine import Scores

PROMPT = checked([Message("system", "Be {kind}."), Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Where is Ada?")])


@pytest.mark.parametrize(
    "text", ["A", " A\n", "A.", "(A)", "[[A]]", "**A**", "Answer: A", "Answer A", "The better one?\n\nFinal verdict: **A**", '"A"']
)
def test_replies_that_are_a_verdict(text: str) -> None:
    assert parse_verdict(text) == "A"
    assert parse_verdict(text.replace("A*", "B*").replace("A", "B") if "nswer" not in text else text.replace(" A", " B")) == "B"


@pytest.mark.parametrize(
    "text",
    ["", " ", "a", "C", "AB", "A or B", "A\nB", "A is better than B", "Both", "tie", "I cannot judge this.", "Answer:", "AAAA", "Answer A\nAnswer B\n", "A and"],
)  # fmt: skip
def test_replies_that_are_none(text: str) -> None:
    assert parse_verdict(text) is None


def test_the_question_holds_all_that_is_judged_and_the_criterion() -> None:
    asked = question(Case(PROMPT, "In Lima {0}.", "In Oslo.", "helpfulness", 0))
    [message] = asked.messages
    text = message.content
    parts = [
        "System: Be {kind}.",
        "User: Hi",
        "Assistant: Hello",
        "User: Where is Ada?",
        "In Lima {0}.",
        "In Oslo.",
        "single letter A or B",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "Choose the best of A and B" in text
    assert CRITERIA["helpfulness"] in text
    assert CRITERIA["safety"] in question(Case(PROMPT, "x", "y", "safety", 0)).messages[0].content


def test_a_local_judge_and_a_question_beyond_its_context(tiny_folder: Any) -> None:
    from llamaherd.assistant.local import Assistant

    judge = ChatJudge(Assistant.load(tiny_folder / "v0"), SamplingConfig(temperature=0.0, max_new_tokens=3))
    [said] = judge.verdicts([Case(PROMPT, "x " * 300, "y", "helpfulness", 0)])
    assert (said.verdict, said.problem) == (None, "too long")


class ByLength:
    """A reward: the longer, the better; on tagged prompts the shorter."""

    def fits(self, prompt: Prompt, answer: str) -> bool:
        return len(answer) < 10

    def scores(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Scores]:
        return [Scores(None, None, float(len(text)) * (-1 if prompt.safety else 1)) for prompt, text in zip(prompts, answers, strict=True)]


def test_reward_models_prefer_the_higher_logit() -> None:
    cases = [
        Case(PROMPT, first, second, criterion, 0)  # type: ignore[arg-type]
        for first, second, criterion in (
            ("aaa", "b", "helpfulness"), ("aaa", "b", "safety"), ("a", "b", "helpfulness"), ("a" * 20, "b", "helpfulness"), ("a", "bb", "helpfulness"),
        )
    ]  # fmt: skip
    said = RewardJudge(ByLength(), "both").verdicts(cases)
    assert [one.verdict for one in said] == ["A", "B", "tie", None, "B"]
    assert [one.problem for one in said] == [None, None, None, "too long", None]
