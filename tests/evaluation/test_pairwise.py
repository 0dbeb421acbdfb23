"""Verdicts to outcomes and figures, with judges whose figures are known."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llamaherd.chat.dialogue import Message, checked
from llamaherd.evaluation.judges import Case, Said
from llamaherd.evaluation.pairwise import Pair, figures, grouped, judged_pairs, settled


class Judge:
    """Says what a function of the case says."""

    name = "judge"

    def __init__(self, rule: Callable[[Case], Any], sees_order: bool = True):
        self.rule, self.sees_order, self.asked = rule, sees_order, list[Case]()

    def verdicts(self, cases: Sequence[Case]) -> list[Said]:
        self.asked += cases
        return [Said(verdict) if (verdict := self.rule(case)) else Said(None, "Hm.", "unparsable") for case in cases]


def pair(ours: str, theirs: str, number: int = 0, **about: Any) -> Pair:
    return Pair(f"p{number}", checked([Message("user", f"Say {number}")]), ours, theirs, "helpfulness", about)


def longer(case: Case) -> str:
    return "A" if len(case.first) > len(case.second) else "B"


def test_an_honest_judge_in_both_orders() -> None:
    rows = judged_pairs(
        Judge(longer), [pair("long one", "x", 0), pair("x", "long one", 1), pair("x", "longer", 2), pair("same", "same ", 3)], "both", 0
    )
    assert [row["outcome"] for row in rows] == ["win", "loss", "loss", "tie"]
    assert [row["why"] for row in rows] == ["judged", "judged", "judged", "equal"]
    found = figures(rows, True)
    assert [found[name]["value"] for name in ("wins", "ties", "losses")] == [1 / 4, 1 / 4, 2 / 4]
    assert found["win_rate"]["value"] == 1.5 / 4
    assert found["wins_of_decided"]["value"] == pytest.approx(1 / 3)
    assert (found["position_bias"]["value"], found["position_bias"]["n"]) == (0.5, 6)
    assert (found["order_disagreement"]["value"], found["order_disagreement"]["n"]) == (0.0, 3)
    assert found["unparsable"]["value"] == 0
    assert (found["pairs"], found["equal"]) == (4, 1)


def test_a_judge_that_always_says_a() -> None:
    rows = judged_pairs(Judge(lambda _: "A"), [pair("ours", "theirs", number) for number in range(10)], "both", 0)
    found = figures(rows, True)
    assert {row["outcome"] for row in rows} == {"tie"}
    assert (found["position_bias"]["value"], found["order_disagreement"]["value"], found["win_rate"]["value"]) == (1.0, 1.0, 0.5)
    drawn = judged_pairs(Judge(lambda _: "A"), [pair("ours", "theirs", number) for number in range(200)], "random", 0)
    found = figures(drawn, True)
    assert found["position_bias"]["value"] == 1.0
    assert found["order_disagreement"] == {"value": None, "low": None, "high": None, "n": 0}
    assert found["win_rate"]["low"] < 0.5 < found["win_rate"]["high"], "the order is drawn, so it favours neither"


def test_the_drawn_order_hangs_on_the_pair_and_the_seed() -> None:
    pairs = [pair("ours", "theirs", number) for number in range(30)]

    def swaps(seed: int, some: Sequence[Pair]) -> list[bool]:
        return [row["verdicts"][0]["swapped"] for row in judged_pairs(Judge(longer), some, "random", seed)]

    assert swaps(0, pairs) == swaps(0, pairs[::-1])[::-1] != swaps(1, pairs)
    assert len(set(swaps(0, pairs))) == 2


def test_nonsense_is_counted_and_never_guessed() -> None:
    judge = Judge(lambda case: None if "?" in case.first else "A")
    rows = judged_pairs(judge, [pair("why?", "so", 0), pair("a", "b", 1)], "both", 0)
    assert [(row["outcome"], row["why"]) for row in rows] == [(None, "unparsable"), ("tie", "judged")]
    found = figures(rows, True)
    assert (found["wins"]["n"], found["without_verdict"], found["unparsable"]["value"]) == (1, 1, 0.25)
    nothing = figures(judged_pairs(Judge(lambda _: None), [pair("a", "b")], "both", 0), True)
    assert nothing["wins"] == {"value": None, "low": None, "high": None, "n": 0}
    assert nothing["unparsable"]["value"] == 1


def test_answers_that_no_judge_is_shown() -> None:
    judge = Judge(longer)
    rows = judged_pairs(judge, [pair("", "x", 0), pair("x", "no [/INST]", 1), pair(" ", "[INST]", 2)], "both", 0)
    assert [(row["outcome"], row["why"]) for row in rows] == [("loss", "unusable"), ("win", "unusable"), ("tie", "unusable")]
    assert judge.asked == []
    assert figures(rows, True)["unusable"] == 3
    assert settled(pair("a", "b")) is None


def test_a_judge_without_an_eye_for_order_is_asked_once() -> None:
    judge = Judge(lambda case: "tie" if len(case.first) == len(case.second) else longer(case), sees_order=False)
    rows = judged_pairs(judge, [pair("a", "b", 0), pair("aa", "b", 1)], "both", 0)
    assert [row["outcome"] for row in rows] == ["tie", "win"]
    assert len(judge.asked) == 2
    assert "position_bias" not in figures(rows, False)


def test_groups() -> None:
    pairs = [pair("aaa", "b", 0, grade="better"), pair("a", "bb", 1, grade="slightly"), pair("aaa", "b", 2, grade=None)]
    found = grouped(judged_pairs(Judge(longer), pairs, "both", 0), "grade")
    assert {name: (figure["value"], figure["n"]) for name, figure in found.items()} == {"better": (1.0, 1), "slightly": (0.0, 1)}
