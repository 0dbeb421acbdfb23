"""The statistics table on dialogues whose words can be counted by hand."""

import math

import pytest

from llamaherd.chat.dialogue import Message, checked
from llamaherd.data.preference_statistics import as_text, preference_statistics, words
from llamaherd.data.records import Preference

ONE = checked([Message("user", "a b c")])
TWO = checked([Message("system", "s s"), Message("user", "a b c d e"), Message("assistant", "x"), Message("user", "f")])


def test_a_table_worked_by_hand() -> None:
    found = preference_statistics(
        [
            Preference(ONE, "p q", "r s t u", "better", "helpfulness", source="A", batch="1"),
            Preference(TWO, "p", "r", None, "helpfulness", source="B", batch="2"),
            Preference(TWO, "p q r", "s", "slightly", "safety", True, False, source="B", batch="2"),
            Preference(ONE, "p", "q", "slightly", "safety", False, True, source="B"),
        ],
        words,
    )
    assert list(found["sources"]) == ["A", "B"]
    assert list(found["batches"]) == ["1", "2", "not stated"]
    first = found["sources"]["A"]
    # prompt 3, answers of 2 and 4: an example is 3 + 3
    assert [first[key]["value"] for key in ("turns", "per_example", "per_prompt", "per_response")] == [1, 6, 3, 3]
    second = found["batches"]["2"]
    # two turns; 2 + 5 + 1 + 1 words before answers of 1 and of 2 on average; (5 + 1) / 2 words per user message
    assert [second[key]["value"] for key in ("turns", "per_example", "per_prompt", "per_response")] == [2, 10.5, 3, 1.5]
    half = 1.959963984540054 * math.sqrt(0.5) / math.sqrt(2)  # of 10 and 11
    assert second["per_example"] == pytest.approx({"value": 10.5, "low": 10.5 - half, "high": 10.5 + half, "n": 2})
    assert {name: one["value"] for name, one in found["all"]["grades"].items()} == {
        "significantly": 0, "better": 0.25, "slightly": 0.5, "negligibly": 0, "none": 0.25,
    }  # fmt: skip
    safety = dict(found["all"]["safety"])
    assert safety.pop("unlabelled") == 2
    assert {name: (one["value"], one["n"]) for name, one in safety.items()} == {
        "chosen safe, other unsafe": (0.5, 2), "both safe": (0, 2), "both unsafe": (0, 2), "chosen unsafe, other safe": (0.5, 2),
    }  # fmt: skip
    assert first["safety"]["both safe"] == {"value": None, "low": None, "high": None, "n": 0}
    assert as_text(found, "words").split("\n\n") == [
        "source  comparisons  turns  words/example  words/prompt  words/response\n"
        "A                 1    1.0            6.0           3.0             3.0\n"
        "B                 3    1.7            8.3           3.0             1.3\n"
        "all               4    1.5            7.8           3.0             1.8",
        "batch       comparisons  turns  words/example  words/prompt  words/response\n"
        "1                     1    1.0            6.0           3.0             3.0\n"
        "2                     2    2.0           10.5           3.0             1.5\n"
        "not stated            1    1.0            4.0           3.0             1.0\n"
        "all                   4    1.5            7.8           3.0             1.8",
        "grade       significantly  better  slightly  negligibly   none\n"
        "1                    0.0%  100.0%      0.0%        0.0%   0.0%\n"
        "2                    0.0%    0.0%     50.0%        0.0%  50.0%\n"
        "not stated           0.0%    0.0%    100.0%        0.0%   0.0%\n"
        "all                  0.0%   25.0%     50.0%        0.0%  25.0%",
        "safety labels  chosen safe, other unsafe  both safe  both unsafe  chosen unsafe, other safe  unlabelled\n"
        "1                                      -          -            -                          -           1\n"
        "2                                 100.0%       0.0%         0.0%                       0.0%           1\n"
        "not stated                          0.0%       0.0%         0.0%                     100.0%           0\n"
        "all                                50.0%       0.0%         0.0%                      50.0%           2",
    ]


def test_tables_that_would_be_empty_are_left_away() -> None:
    found = preference_statistics([Preference(ONE, "p", "q r", None, "helpfulness", source="A")], words)
    assert as_text(found, "tokens").count("\n\n") == 0


def test_tokens_are_counted_as_told() -> None:
    found = preference_statistics([Preference(ONE, "p", "q r", None, "helpfulness")], len)
    assert [found["all"][key]["value"] for key in ("per_example", "per_prompt", "per_response")] == [7, 5, 2]
    assert list(found["sources"]) == ["not stated"]


def test_a_source_may_have_any_name() -> None:
    found = preference_statistics([Preference(ONE, "p", "q", None, "helpfulness", source=name) for name in ("all", "b")], words)
    assert [line.split()[:2] for line in as_text(found, "words").splitlines()[1:]] == [["all", "1"], ["b", "1"], ["all", "2"]]


def test_nothing_has_no_averages() -> None:
    found = preference_statistics([], words)
    assert (found["all"]["comparisons"], found["all"]["turns"]["value"], found["sources"]) == (0, None, {})
