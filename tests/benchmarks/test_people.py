"""The benchmark on people's judgements: what may not leak, its baselines by hand, and every step in small."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.people import __main__ as people
from benchmarks.people import figures, words
from benchmarks.people.figures import Judged
from benchmarks.people.steps import ARMS, SMOKE, Chain
from benchmarks.people.tables import percent, table
from benchmarks.people.texts import DEVELOPMENT, FOLDS, HH, comparisons, demonstrations, documents, first_message, parts_of, write_texts

from llamaherd.chat.dialogue import Message, checked
from llamaherd.core.files import read_json, read_rows
from llamaherd.data.records import DOMAINS, Preference, read_preferences
from llamaherd.measures.intervals import nothing, rate


def pair(chosen: str, rejected: str, asked: str = "Which?") -> Preference:
    return Preference(checked([Message("user", asked)]), chosen, rejected, None, "helpfulness")


def test_groups_stay_together_in_parts_of_like_size() -> None:
    groups = [f"group {number % 60}" for number in range(200)]
    parts = parts_of(groups, 0)
    assert len(set(zip(groups, parts, strict=True))) == 60
    assert Counter(dict(zip(groups, parts, strict=True)).values()) == dict.fromkeys(range(FOLDS + 1), 10)
    assert parts == parts_of(groups, 0) != parts_of(groups, 1)


def test_nothing_of_a_tested_comparison_is_trained_on(data: Path, tmp_path: Path) -> None:
    counts = write_texts(data, tmp_path, novels=0, rows=400, seed=0)
    assert counts["comparisons"] == 2 * 400
    found = comparisons(data, 0)
    assert len(found.rows) + found.left_out.total() == 1786 + 1713
    tests = [read_preferences(tmp_path / f"test-{part}.jsonl") for part in range(FOLDS + 1)]
    assert sum(map(len, tests)) == counts["comparisons"]
    for domain in DOMAINS:
        own = sum(one.domain == domain for rows in tests for one in rows)
        for fold in (DEVELOPMENT, 1, FOLDS):
            trained = read_preferences(tmp_path / f"{domain}-train-{fold}.jsonl")
            assert {one.domain for one in trained} == {domain}
            assert not {*map(first_message, trained)} & {*map(first_message, tests[fold])}
            if fold != DEVELOPMENT:
                assert len(trained) == own - sum(one.domain == domain for one in tests[fold])
    chosen_by = {*map(first_message, read_preferences(tmp_path / f"safety-train-{DEVELOPMENT}.jsonl"))}
    assert not chosen_by & {*map(first_message, tests[1])}, "the first fold is not in what the candidates are trained on either"


def test_demonstrations_hold_no_prompt_of_a_comparison(data: Path) -> None:
    first = {first_message(one) for one, _ in comparisons(data, 0).rows}
    dialogues, _ = demonstrations(data)
    asked = {" ".join(row["messages"][0]["content"].casefold().split()) for row in dialogues}
    assert len(dialogues) > 5000
    assert len(asked & first) <= 2, "but for what anybody may ask, such as how to make a cake"


def test_documents_of_every_source_without_marks_of_their_files(data: Path) -> None:
    found = Counter[str]()
    for row in documents(data, novels=1):
        found[row["source"]] += 1
        assert "<|endoftext|>" not in row["text"]
        assert "<unk>" not in row["text"]
        assert " @-@ " not in row["text"]
    assert set(found) == {"novels", "wikitext", "tinystories", "c4", "wikipedia"}
    assert found["wikitext"] > 100, "cut at its articles"


def test_length() -> None:
    rows = [pair("longer", "short"), pair("a", "bbb"), pair("cc", "dd")]
    assert words.longer(rows) == [1.0, 0.0, 0.5]
    assert words.length_as_trained(rows[:1], rows) == [1.0, 0.0, 0.5]
    assert words.length_as_trained(rows[1:], rows) == [0.0, 1.0, 0.5], "in training the shorter one was preferred"


def test_counts_are_those_of_the_chosen_answer_less_the_others() -> None:
    assert words.counts(pair("Yes, yes I don't", "yes, no")) == {"yes": 1, "i": 1, "don't": 1, "no": -1}


def test_the_regression_is_at_its_optimum() -> None:
    """At the least of the penalised loss its gradient is 0: penalty w = sum of (1 - sigmoid(x w)) x."""
    x = torch.tensor([[1.0, 0.0], [2.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    w = words.fit(x @ x.T, 0.5) @ x
    assert torch.allclose(0.5 * w, (1 - torch.sigmoid(x @ w)) @ x, atol=1e-6)


def test_a_bag_of_words_learns_a_word_and_says_nothing_without_one() -> None:
    trained = [pair(f"sorry {number}", f"surely {number}", f"{number}") for number in range(20)]
    found = words.bag_of_words(
        trained, [one.prompt.asked for one in trained], [pair("surely", "sorry"), pair("sorry", "no"), pair("x", "y")]
    )
    assert found == [0.0, 1.0, 0.5]


def test_calibration_by_hand() -> None:
    """Four answers of confidence 0.75, of which three are right, and two of 0.95, of which one is."""
    low, high = math.log(3), math.log(19)
    found = figures.calibration([low, low, low, -low, high, -high])
    bins = {round(one["low"], 1): one for one in found["bins"]}
    assert bins[0.7]["rate"]["value"] == 0.75
    assert bins[0.9]["rate"]["value"] == 0.5
    assert bins[0.5]["rate"] == nothing()
    assert found["error"]["value"] == pytest.approx((4 * 0.0 + 2 * 0.45) / 6)


def test_accuracy_by_length_and_what_is_preferred() -> None:
    rows = [pair("a", "bbb"), pair("aa", "bbb"), pair("aaa", "bb"), pair("aaaa", "b")]
    found = Judged(rows, {"chat": [1.0, 0.0, 1.0, 1.0]}, {"chat": [1.0, -1.0, 1.0, 1.0]})
    values = {name: one["value"] for name, one in figures.by_length(found, found.agrees["chat"]).items()}
    assert values == {"under half": 1.0, "half to as long": 0.0, "as long to double": 1.0, "double or more": 1.0}
    assert figures.prefers_longer(found, "chat")["value"] == 0.75


def test_distance_from_the_paper() -> None:
    assert figures.distance(rate(60, 100), 0.72)["value"] == pytest.approx(-0.12)
    assert figures.distance(nothing(), 0.72) == nothing()
    assert percent(rate(60, 100)) == "60.0 (50.2 to 69.1)"


def test_every_fold_has_a_model_that_is_tested_on_it_alone(tmp_path: Path) -> None:
    chain = Chain(SMOKE, tmp_path / "texts", tmp_path / "made")
    chain.foundation()
    for arm, chosen in (("chat", "a"), ("fresh", "b")):
        chain.candidates(arm)
        chain.folds(arm, chosen)
    by_name = {step.name: step for step in chain.steps}
    assert len(by_name) == len(chain.steps) == len(chain.expected_s())
    for arm in ARMS:
        for domain in DOMAINS:
            for fold in range(1, FOLDS + 1):
                config: Any = by_name[figures.fold_name(arm, domain, fold)].config
                assert config.test == (tmp_path / "texts" / f"test-{fold}.jsonl",)
                assert config.data == (tmp_path / "texts" / f"{domain}-train-{fold}.jsonl",)
                assert config.model == tmp_path / "made" / arm
                assert config.optimizer.lr == {"chat": 3e-4, "fresh": 1e-3}[arm]


def test_what_cannot_be_is_said(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        people.main(["--out", str(tmp_path), "--data", str(tmp_path)])
    assert "expected the folder of public data, with preference/ in it" in capsys.readouterr().err
    (tmp_path / "sizes.json").write_text("{}")
    with pytest.raises(SystemExit, match="was begun with other sizes"):
        people.main(["--out", str(tmp_path), "--data", str(data), "--smoke"])


@pytest.mark.slow
def test_every_step_in_small(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Begun twice: the second time nothing is made anew, and the figures are the same."""
    people.main(["--out", str(tmp_path), "--data", str(data), "--smoke"])
    first = read_json(tmp_path / "results.json")
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "made").glob("*/manifest.json")}
    people.main(["--out", str(tmp_path), "--data", str(data), "--smoke"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "made").glob("*/manifest.json")} == made
    assert read_json(tmp_path / "results.json") == first
    assert (tmp_path / "results.md").read_text() == table(first)
    assert "| reward model from random weights |" in capsys.readouterr().out
    for domain in HH:
        found = first["domains"][domain]
        rows = sum(
            one["domain"] == domain for fold in range(1, FOLDS + 1) for _, one in read_rows(tmp_path / "texts" / f"test-{fold}.jsonl")
        )
        assert 0 < rows - found["comparisons"] + 0 <= first["models"]["too_long"] * FOLDS or rows == found["comparisons"]
        assert set(found["accuracy"]) == {"longer", "length", "words", *ARMS, *(f"{arm}-other" for arm in ARMS)}
        assert all(one["n"] == found["comparisons"] for one in found["accuracy"].values())
        assert all(one["n"] == found["comparisons"] for one in found["differences"].values())
