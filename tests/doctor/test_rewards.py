import json
import random
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.doctor.config import Thresholds
from llamaherd.doctor.examine import examine
from llamaherd.doctor.finding import Finding

from .conftest import CITIES, absent, comparison, findings, said


def pairs(count: int = 150, **fields: Any) -> list[dict[str, Any]]:
    """Lima is better; a clear pair's grade is never wrong, an unclear one's choice is wrong two times in five."""
    rng, rows = random.Random(0), []
    for number in range(count):
        better, worse = said(number, "Lima"), said(number, CITIES[1 + number % 3])
        if number % 4 > 1 and rng.random() < 0.4:
            better, worse = worse, better
        rows.append(comparison(number, better, worse, **fields))
    return rows


def shuffled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rng = random.Random(1)
    return [row | ({"chosen": row["rejected"], "rejected": row["chosen"]} if rng.random() < 0.5 else {}) for row in rows]


@pytest.fixture(scope="module")
def healthy(train_reward, tmp_path_factory) -> Artifact:  # type: ignore[no-untyped-def]
    return train_reward(tmp_path_factory.mktemp("reward") / "healthy", pairs())


def test_a_healthy_one_gives_no_finding(healthy: Artifact) -> None:
    patient, found = examine(healthy.path)
    assert [one for one in found if one.state == "wrong"] == []
    assert list(patient.artifacts) == ["healthy"]
    measured = {one.check for one in found if one.state == "healthy"}
    assert measured >= {"reward-weak", "reward-grade", "reward-length", "reward-calibration", "leak", "nan", "loss-rose"}


def test_shuffled_labels_are_seen(train_reward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = train_reward(tmp_path / "shuffled", shuffled(pairs()))
    [weak] = findings(done.path)["reward-weak"]
    accuracy = done.metrics["accuracy"]["own"]["all"]
    assert weak.numbers["accuracy"] == accuracy, "the figure of the stage itself"
    assert accuracy["low"] <= 0.5
    assert f"{accuracy['value']:.2f} ({accuracy['low']:.2f} to {accuracy['high']:.2f}) of {accuracy['n']}" in weak.said


def test_length_alone_is_seen(train_reward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Every choice goes to the longer answer, whatever it says."""
    rows = [comparison(number, said(number, CITIES[number % 4], 3), said(number, CITIES[(number + 1) % 4], 1)) for number in range(80)]
    done = train_reward(tmp_path / "longer", rows)
    [longer] = findings(done.path)["reward-length"]
    assert longer.numbers["model"]["value"] > 0.95
    assert longer.numbers["annotators"]["value"] == 1.0


def test_length_beyond_the_annotators_is_seen_where_they_do_not_care(train_reward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Trained on length, tested on comparisons in which either may be the longer one."""
    rows = [comparison(number, said(number, "Lima", 3), said(number, "Lima", 1)) for number in range(80)]
    test = [
        comparison(number, said(number, "Lima", 1 + 2 * (number % 2)), said(number, "Oslo", 3 - 2 * (number % 2)))
        for number in range(200, 240)
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test), "utf-8")
    done = train_reward(tmp_path / "longer", rows, test=str(tmp_path / "test.jsonl"))
    found = findings(done.path)
    [longer] = found["reward-length"]
    assert longer.numbers["annotators"]["value"] == 0.5
    assert longer.numbers["excess"]["low"] > Thresholds().longer_excess
    assert "reward-weak" in found, "half of what it is asked there has the better answer shorter"


def safety_pairs(labelled: bool) -> list[dict[str, Any]]:
    """Refusals are safe and answers to the same kind of question are not; helpfulness pairs, labelled safe or without labels, beside."""
    rows = []
    for number in range(160):
        if number % 2:
            rows.append(
                comparison(number, "I will not say.", said(number, CITIES[number % 4]), "safety", chosen_safe=True, rejected_safe=False)
            )
        else:
            safe = True if labelled else None
            rows.append(comparison(number, said(number, "Lima"), said(number, "Oslo"), chosen_safe=safe, rejected_safe=safe))
    return rows


def test_a_gate_that_fires_on_harmless_prompts_is_seen(train_reward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = train_reward(tmp_path / "fires", safety_pairs(labelled=False), "safety", other_share=0.0)
    [gate] = findings(done.path)["gate"]
    assert gate.numbers["fires"]["value"] > 0.6
    assert "other_share" in gate.remedy


def test_labelled_helpfulness_pairs_calm_the_gate(train_reward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The same comparisons, of which those of helpfulness are trained on too, as safe; prompts tell the two apart."""
    rows = safety_pairs(labelled=True)
    for row in rows:
        if row["domain"] == "safety":
            row["messages"] = [{"role": "user", "content": f"Oslo? {row['messages'][0]['content']}"}]
    done = train_reward(tmp_path / "calm", rows, "safety", other_share=1.0, epochs=8)
    assert "gate" not in findings(done.path)
    assert "gate" not in absent(done.path)


def written(folder: Path, rows: list[dict[str, Any]], domain: str = "helpfulness") -> Path:
    """As the stage writes it, with scores of our own."""
    folder.mkdir(parents=True)
    manifest = {
        "kind": "reward-model",
        "stage": "reward",
        "hash": "x",
        "config": {"domain": domain},
        "metrics": {"domain": domain},
        "parents": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    (folder / "tested.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


def row(grade: str | None, agrees: bool, size: float = 1.0, domain: str = "helpfulness") -> dict[str, Any]:
    better = size if agrees else -size
    return {
        "domain": domain,
        "grade": grade,
        "batch": None,
        "chosen_logit": better,
        "rejected_logit": 0.0,
        "chosen_safe": None,
        "rejected_safe": None,
        "agrees": agrees,
    }


def only(folder: Path, check: str) -> Finding:
    [found] = [one for one in examine(folder)[1] if one.check == check]
    return found


def test_accuracy_that_does_not_fall_with_the_grade(tmp_path: Path) -> None:
    """70 right of 100 under every grade: by Newcombe's method no fall, and not even its interval reaches 0.1."""
    flat = [row(grade, index < 140) for grade in ("significantly", "negligibly") for index in range(200)]
    found = only(written(tmp_path / "flat", flat), "reward-grade")
    assert (found.state, found.numbers["fall"]["value"]) == ("wrong", 0.0)
    assert found.numbers["fall"]["high"] == pytest.approx(0.0889, abs=1e-3)  # hypot of Wilson's 0.0597 above and 0.0659 below
    falls = [row(grade, index < hits) for grade, hits in (("significantly", 160), ("negligibly", 110)) for index in range(200)]
    assert only(written(tmp_path / "falls", falls), "reward-grade").state == "healthy"
    easy = [row(grade, True) for grade in ("better", "slightly") for _ in range(200)]
    assert only(written(tmp_path / "easy", easy), "reward-grade").state == "healthy", "nothing left to fall from"
    ungraded = [row(None, index < 90) for index in range(100)]
    found = only(written(tmp_path / "ungraded", ungraded), "reward-grade")
    assert (found.state, found.said) == ("not measured", "comparisons without grades")


@pytest.mark.parametrize(("size", "right", "state"), [(3.0, 140, "wrong"), (0.85, 140, "healthy"), (0.02, 190, "wrong")])
def test_calibration(tmp_path: Path, size: float, right: int, state: str) -> None:
    """Sure by 0.95, 0.70 and 0.51; right in 0.70, 0.70 and 0.95."""
    found = only(written(tmp_path / "model", [row("better", index < right, size) for index in range(200)]), "reward-calibration")
    assert found.state == state
    expected = 1 / (1 + 2.718281828459045**-size) - right / 200
    assert found.numbers["overconfidence"]["value"] == pytest.approx(expected, abs=1e-9)
    assert found.numbers["expected_calibration_error"] == pytest.approx(abs(expected), abs=1e-9), "all of them lie in one bin"


def test_what_was_not_measured_is_never_healthy(tmp_path: Path) -> None:
    few = written(tmp_path / "few", [row("better", True, domain="safety") for _ in range(9)], "safety")
    assert {one.check: one.state for one in examine(few)[1] if one.check.startswith(("reward", "gate"))} == dict.fromkeys(
        ("reward-weak", "reward-grade", "reward-length", "reward-calibration", "gate"), "not measured"
    )
    nothing = written(tmp_path / "nothing", [])
    assert {one.state for one in examine(nothing)[1]} == {"not measured"}
