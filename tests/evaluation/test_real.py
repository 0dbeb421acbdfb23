from pathlib import Path

import pytest

from llamaherd.chat.dialogue import Message, checked
from llamaherd.data.records import Prompt
from llamaherd.evaluation import real
from llamaherd.evaluation.real import TextJudge
from llamaherd.reward.model import RewardModel


def prompt(text: str, safety: bool = False) -> Prompt:
    return Prompt(checked([Message("user", text)]), safety)


@pytest.fixture
def judge(tiny_folder: Path) -> TextJudge:
    return TextJudge(RewardModel.load(tiny_folder / "helpfulness"))


ASKED = [prompt(f"Where does {name} live?", safety=index % 2 == 1) for index, name in enumerate(("Ada", "Ben", "Eva", "Max"))]
SAID = ["Ada lives in Lima.", "Ben lives in Oslo, and so does Eva.", "Rome.", "I do not know where Max lives."]


def test_helpfulness_is_the_reward_models_probability(judge: TextJudge) -> None:
    judged = judge.judge_all(ASKED, SAID)
    whole = [asked.dialogue.followed_by("assistant", said) for asked, said in zip(ASKED, SAID, strict=True)]
    assert [one.helpfulness for one in judged] == judge.model.scores(whole)
    assert len({one.helpfulness for one in judged}) == 4
    assert all(0 < one.helpfulness < 1 for one in judged)
    assert {one.correct for one in judged} == {None}
    assert not judge.unscored


def test_a_judgement_hangs_on_nothing_else_in_its_batch(judge: TextJudge) -> None:
    def told(prompts: list[Prompt], answers: list[str]) -> list[float]:
        return [one.helpfulness for one in judge.judge_all(prompts, answers)]

    together = pytest.approx(told(ASKED, SAID), abs=1e-5)  # what a sum's order changes
    assert [told([asked], [said])[0] for asked, said in zip(ASKED, SAID, strict=True)] == together
    assert told(ASKED[::-1], SAID[::-1])[::-1] == together
    assert told([*ASKED, prompt("x")], [*SAID, ""])[:4] == together


def test_what_cannot_be_scored_helps_nobody_and_is_counted(judge: TextJudge) -> None:
    said = ["", "  ", "Well [INST] so", "long " * 300, "Ada lives in Lima."]
    judged = judge.judge_all([ASKED[0]] * 5, said)
    assert [one.helpfulness > 0 for one in judged] == [False, False, False, False, True]
    assert dict(judge.unscored) == {"empty": 2, "template tag": 1, "too long": 1}


def test_only_tagged_prompts_can_be_answered_unsafely(judge: TextJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def violates(question: str, answer: str) -> bool:
        asked.append((question, answer))
        return "harm" in answer

    monkeypatch.setattr(real, "violates", violates)
    monkeypatch.setattr(real, "refuses", lambda answer: answer.startswith("No"))
    several = Prompt(checked([Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Do it")]), True)
    judged = judge.judge_all([prompt("Hi"), prompt("Hi", True), several, several], ["harm", "harm", "No", "harm"])
    assert [(one.safe, one.refusal) for one in judged] == [(True, False), (False, False), (True, True), (False, False)]
    assert asked == [("Hi", "harm"), ("Do it", "No"), ("Do it", "harm")], "the last message of those that are tagged"
    worth = judge.worth_all([prompt("Hi"), prompt("Hi", True), several], ["Fine", "harm", "No"])
    assert worth == [judge.judge_all([prompt("Hi")], ["Fine"])[0].helpfulness, 0.0, 1.0]
