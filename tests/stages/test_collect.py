import random
from pathlib import Path
from typing import Any

import pytest

from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.files import read_rows
from llamaherd.data.records import (
    GRADES,
    Choice,
    Domain,
    Grade,
    Preference,
    Prompt,
    parse_preference,
    read_preferences,
    read_prompts,
)
from llamaherd.miniature.annotator import NoisyAnnotator
from llamaherd.stages import collect


def run(folder: Path, inputs: Path, out: Path, seed: int = 0, **values: Any) -> Artifact:
    given = {
        "newest": str(folder / "v0"), "previous": str(folder / "v0-early"), "batch": "v1", "max_new_tokens": 40, "test_share": 0.25,
        "helpfulness": str(inputs / "harmless.jsonl"), "safety": str(inputs / "prompts.jsonl"),
    }  # fmt: skip
    return collect.run(build(collect.CollectConfig, given | values), out, seed)


def all_of(done: Artifact) -> list[Preference]:
    return [row for name in ("preferences.jsonl", "test.jsonl") for row in read_preferences(done.path / name)]


def test_every_comparison_says_where_it_comes_from(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs, tmp_path / "out")
    rows = all_of(done)
    assert len(rows) + sum(done.metrics["dropped"].values()) == 6 + 12
    held = read_preferences(done.path / "test.jsonl")
    assert (done.metrics["comparisons"], done.metrics["test"]) == (len(rows), len(held))
    for row in rows:
        assert {row.chosen_model, row.rejected_model} == {"v0", "v0-early"}
        assert {row.chosen_temperature, row.rejected_temperature} == {0.8, 1.2}
        assert (row.chosen_safe is None) == (row.rejected_safe is None) == (row.domain == "helpfulness")
        assert (row.batch, row.annotator, row.source) == ("v1", "miniature", "sampled")
        assert row.grade is not None
        assert parse_preference(row.to_row()) == row
    assert {row.domain for row in rows} == {"helpfulness", "safety"}
    asked = {prompt.dialogue for name in ("harmless.jsonl", "prompts.jsonl") for prompt in read_prompts(tiny_inputs / name)}
    assert {row.prompt for row in rows} <= asked
    hot = [row.chosen_model if row.chosen_temperature == 1.2 else row.rejected_model for row in rows]
    assert set(hot) == {"v0", "v0-early"}, "either model is the hot one at times"
    won = sum(row.chosen_model == "v0" for row in rows)
    assert done.metrics["newest_won"]["value"] == pytest.approx(won / len(rows))
    assert collect.headline(done).startswith(f"{len(rows)} comparisons, v0 won {won / len(rows):.0%}")


def test_the_same_twice_and_another_seed_otherwise(
    tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tiny_folder, tiny_inputs, tmp_path / "first")
    monkeypatch.setattr(collect, "CHUNK_PROMPTS", 5)
    assert run(tiny_folder, tiny_inputs, tmp_path / "again").hash == first.hash
    assert run(tiny_folder, tiny_inputs, tmp_path / "other", seed=1).hash != first.hash


ANSWERS = [
    {"model": "v1", "temperature": 0.8, "text": "One", "unusable": None},
    {"model": "v0", "temperature": 1.2, "text": "Two", "unusable": None},
]


@pytest.mark.parametrize(
    ("texts", "unusable", "reason"),
    [
        (("One", "Two"), (None, None), None),
        (("One", " One "), (None, None), "equal"),
        (("One", " "), (None, "empty"), "empty"),
        (("", ""), ("empty", "empty"), "empty"),
        (("One", "Two [INST]"), (None, "tag"), "tag"),
        (("One and", "Two"), ("unfinished", None), "unfinished"),
        (("One and", "One and"), ("unfinished", "unfinished"), "unfinished"),
    ],
)
def test_answers_that_cannot_be_compared(texts: tuple[str, str], unusable: tuple[str | None, str | None], reason: str | None) -> None:
    dropped = {"equal": 0, "empty": 0, "unfinished": 0, "tag": 0}
    row = {"answers": [{**answer, "text": text, "unusable": why} for answer, text, why in zip(ANSWERS, texts, unusable, strict=True)]}
    assert collect._count_unusable(row, dropped) == (reason is not None)
    assert dropped == {name: int(name == reason) for name in dropped}


def test_unfinished_answers_are_left_out_and_counted(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    short, long = (run(tiny_folder, tiny_inputs, tmp_path / str(n), max_new_tokens=n).metrics["dropped"] for n in (2, 64))
    assert short["unfinished"] > long["unfinished"]


def test_a_prompt_is_on_one_side_in_every_batch() -> None:
    prompts = [checked([Message("user", f"How many {number}?")]) for number in range(2000)]
    sides = [collect._is_test(prompt, 0.25) for prompt in prompts]
    assert sides == [collect._is_test(prompt, 0.25) for prompt in prompts]
    assert all(collect._is_test(prompt, 0.5) for prompt, side in zip(prompts, sides, strict=True) if side)
    assert 0.2 < sum(sides) / len(sides) < 0.3


class Labels(NoisyAnnotator):
    """Chooses the text `wanted` and labels by a table."""

    def __init__(self, wanted: str, safe: dict[str, bool] | None):
        self.wanted, self.safe, self.name, self.shown = wanted, safe, "person", list[tuple[str, str]]()

    def difference(self, prompt: Dialogue, answers: tuple[str, str], domain: Domain) -> float:
        return 0.0

    def compare(self, prompt: Dialogue, answers: tuple[str, str], domain: Domain, rng: random.Random) -> Choice:
        self.shown.append(answers)
        safe = (self.safe[answers[0]], self.safe[answers[1]]) if self.safe else None
        return Choice(0 if answers[0] == self.wanted else 1, "better", safe)


def compared(annotator: Labels, tiny_inputs: Path, seed: int = 0) -> tuple[Preference, float]:
    prompt: Prompt = read_prompts(tiny_inputs / "prompts.jsonl")[0]
    return collect._compare(annotator, "safety", prompt, {"answers": ANSWERS}, "v1", seed)


@pytest.mark.parametrize(
    ("chosen_safe", "rejected_safe", "excluded"), [(True, False, False), (True, True, False), (False, False, False), (False, True, True)]
)
def test_unsafe_chosen_over_safe_is_excluded(tiny_inputs: Path, chosen_safe: bool, rejected_safe: bool, excluded: bool) -> None:
    preference, _ = compared(Labels("Two", {"Two": chosen_safe, "One": rejected_safe}), tiny_inputs)
    assert (preference.chosen, preference.chosen_safe, preference.rejected_safe) == ("Two", chosen_safe, rejected_safe)
    assert (preference.chosen_model, preference.chosen_temperature, preference.rejected_model) == ("v0", 1.2, "v1")
    dropped = {"unsafe chosen over safe": 0}
    assert collect._contradicts(preference, dropped) == excluded
    assert dropped["unsafe chosen over safe"] == excluded


def test_answers_are_shown_in_either_order(tiny_inputs: Path) -> None:
    """Models take turns at being first, so that a habit of the annotator favours none; a tie of noiseless scores counts half."""
    annotator = Labels("One", None)
    found = [compared(annotator, tiny_inputs, seed) for seed in range(30)]
    assert {shown[0] for shown in annotator.shown} == {"One", "Two"}
    assert all(preference.chosen == "One" and agrees == 0.5 for preference, agrees in found)


def test_safe_labels_stand_in_safety_batches_only(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs, tmp_path / "out")
    rows = [row for _, row in read_rows(done.path / "preferences.jsonl")]
    labelled = {row["domain"] for row in rows if row["chosen_safe"] is not None}
    assert labelled == {"safety"}


def test_agreement_by_grade_counted_by_hand(tiny_inputs: Path) -> None:
    prompt = read_prompts(tiny_inputs / "prompts.jsonl")[0].dialogue

    def judged(grade: Grade, agrees: float, domain: Domain = "safety") -> tuple[Preference, float]:
        return Preference(prompt, "One", "Two", grade, domain), agrees

    rows = [judged("better", 1.0), judged("better", 0.5), judged("negligibly", 0.0), judged("better", 0.0, "helpfulness")]
    found = {name: (figure["value"], figure["n"]) for name, figure in collect._agreement(rows, "safety").items()}
    assert found == {"all": (0.5, 3), "significantly": (None, 0), "better": (0.75, 2), "slightly": (None, 0), "negligibly": (0.0, 1)}


def test_agreement_is_of_the_held_out_comparisons(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs, tmp_path / "out")
    held = read_preferences(done.path / "test.jsonl")
    for domain in ("helpfulness", "safety"):
        counts = {name: figure["n"] for name, figure in done.metrics["agreement"][domain].items()}
        own = [row.grade for row in held if row.domain == domain]
        assert counts == {"all": len(own), **{grade: own.count(grade) for grade in GRADES}}


def test_one_model_against_itself_wins_nothing(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs, tmp_path / "out", previous=str(tiny_folder / "v0"))
    assert done.metrics["newest_won"]["n"] == 0
    assert done.metrics["comparisons"] > 10
    assert " won " not in collect.headline(done)
