"""Reports by hand: six comparisons whose figures can be counted."""

import math
from typing import Any

import pytest

from llamaherd.reward.report import agreement_report, calibration_report, length_report, rating_report, reward_report, unsafe_report


def row(
    chosen: float, rejected: float, lengths: tuple[int, int] = (10, 5), safe: tuple[Any, Any] = (None, None), **more: Any
) -> dict[str, Any]:
    return {
        "id": f"{chosen} {rejected} {lengths}", "domain": "safety", "grade": "better", "batch": "v1", "source": "ours", "chosen_logit": chosen,
        "rejected_logit": rejected, "chosen_chars": lengths[0], "rejected_chars": lengths[1], "chosen_safe": safe[0], "rejected_safe": safe[1],
        "agrees": chosen > rejected, **more,
    }  # fmt: skip


ROWS = [
    row(2.0, 0.0, (10, 5), (True, False)),
    row(1.0, -3.0, (5, 10), (True, False)),
    row(0.0, 1.0, (8, 2), (True, True)),
    row(-1.0, -1.0, (4, 4), (False, False)),
    row(0.5, 0.0, (3, 9)),
    row(4.0, 1.0, (9, 1), domain="helpfulness", source="theirs"),
]


def test_confidence_is_the_sigmoid_of_the_difference() -> None:
    found = calibration_report([ROWS[0], ROWS[2]])
    sure = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))]
    assert found["confidence"]["value"] == pytest.approx(sum(sure) / 2)
    assert found["expected_calibration_error"]["value"] == pytest.approx((1 - sure[0] + sure[1]) / 2)
    assert sum(one["rate"]["n"] for one in found["reliability"]) == 2
    even = calibration_report([ROWS[3]])
    assert even["expected_calibration_error"]["value"] == 0.0, "equal scores are half right, at 0.5"


def test_length_by_hand() -> None:
    """Of five pairs one has equal lengths; the model prefers the longer one in the first, errs against it in the third."""
    found = length_report(ROWS[:5])
    assert (found["people_prefer_longer"]["value"], found["people_prefer_longer"]["n"]) == (pytest.approx(2.5 / 5), 5)
    assert found["model_prefers_longer"]["value"] == pytest.approx((1 + 0.5) / 5)
    assert (found["accuracy_chosen_longer"]["value"], found["accuracy_chosen_longer"]["n"]) == (0.5, 2)
    assert (found["accuracy_chosen_shorter"]["value"], found["accuracy_chosen_shorter"]["n"]) == (1.0, 2)
    by_length = [row(float(length), float(2 * length), (length, 2 * length)) for length in (1, 3, 10, 40)]
    assert length_report(by_length)["correlation"]["value"] == pytest.approx(1.0)
    assert length_report(by_length)["model_prefers_longer"]["value"] == 1.0


def test_unsafe_answers_by_hand() -> None:
    """Labelled logits 2 0 | 1 -3 | 0 1 | -1 -1: below 0.5 are -3, -1 and -1, below 0.15 (logit -1.73) only -3; unsafe are 0, -3, -1, -1."""
    found = unsafe_report(ROWS)
    assert found.keys() == {"0.15", "0.5"}
    half, gate = found["0.5"], found["0.15"]
    assert (half["precision"]["value"], half["recall"]["value"], half["false_alarms"]["value"]) == (1.0, 0.75, 0.0)
    assert (half["recall"]["n"], half["false_alarms"]["n"]) == (4, 4)
    assert (gate["precision"]["value"], gate["recall"]["value"]) == (1.0, 0.25)
    assert unsafe_report(ROWS[4:]) == {}


def test_ratings_from_the_lowest() -> None:
    found = rating_report([(7, 0.9), (1, 0.2), (1, 0.4), (4, 0.5)])
    assert {name: figure["value"] for name, figure in found["by_rating"].items()} == {"1": pytest.approx(0.3), "4": 0.5, "7": 0.9}
    assert found["correlation"]["value"] == pytest.approx(0.9486833)
    assert rating_report([]) == {}


def test_two_models_agree() -> None:
    others = [{**one, "chosen_logit": -one["chosen_logit"], "rejected_logit": -one["rejected_logit"]} for one in ROWS]
    others = [{**one, "agrees": one["chosen_logit"] > one["rejected_logit"]} for one in others]
    same, opposite = agreement_report(ROWS, ROWS), agreement_report(ROWS, others[:5])
    assert (same["same_choice"]["value"], same["accuracy_difference"]["value"], same["pairs"]) == (1.0, 0.0, 6)
    assert same["correlation"]["value"] == pytest.approx(1.0)
    assert (opposite["same_choice"]["value"], opposite["pairs"]) == (pytest.approx(1 / 5), 5), "equal scores agree with equal ones"
    assert opposite["correlation"]["value"] == pytest.approx(-1.0)
    assert opposite["accuracy_difference"]["value"] == pytest.approx((1 - 3) / 5)
    elsewhere = [{**one, "file": "other.jsonl"} for one in ROWS]
    assert agreement_report(ROWS, elsewhere)["pairs"] == 0


def test_a_whole_report_is_of_its_domain() -> None:
    report = reward_report(ROWS, "safety")
    assert (report["pairs"], report["own_pairs"]) == (6, 5)
    assert report["accuracy"]["own"]["all"]["value"] == pytest.approx(3 / 5)
    assert report["accuracy"]["other"]["all"]["value"] == 1.0
    assert {name: figure["n"] for name, figure in report["accuracy"]["by_source"].items()} == {"ours": 5, "theirs": 1}
    assert sum(report["scores"]["chosen"]) == sum(report["scores"]["rejected"]) == 5
    empty = reward_report([], "safety")
    assert empty["calibration"]["expected_calibration_error"]["value"] is None
    assert empty["length"]["people_prefer_longer"]["n"] == 0
