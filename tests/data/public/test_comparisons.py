import json
from collections import Counter
from pathlib import Path

import pytest

from llamaherd.chat.dialogue import Message, checked
from llamaherd.data.public.comparisons import LABELLED, SETS, comparisons, first_message, grades_of, parts_of, some_of
from llamaherd.data.records import Preference


def written(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pair(asked: str, source: str = "hh-helpful", **about: object) -> Preference:
    return Preference(checked([Message("user", asked)]), "Yes.", "No.", about.get("grade"), SETS[source][1], source=source)  # type: ignore[arg-type]


def scored(first: float, second: float) -> dict[str, object]:
    return {"text": [f"## Human: Why?\n\n## Assistant: {answer}" for answer in ("So.", "Thus.")], "score": [first, second]}


def voted(*votes: int) -> dict[str, object]:
    answers = {"instruction": "Add.", "input": "1 1", "response1": "2", "response2": "11"}
    return answers | {f"annotator{number}": vote for number, vote in enumerate(votes, 1)}


def test_people_who_agree_less_make_a_weaker_grade(tmp_path: Path) -> None:
    path = written(tmp_path / "pandalm.jsonl", voted(1, 1, 1), voted(2, 2, 0), voted(2, 1, 2), voted(1, 2, 0), voted(0, 0, 1))
    found, left_out = comparisons("pandalm", path, 0)
    assert [(one.chosen, one.grade) for one in found] == [("2", "better"), ("11", "slightly"), ("11", "negligibly")]
    assert left_out == {"no majority": 1, "tie": 1}
    assert {one.source for one in found} == {"pandalm"}


def test_the_distance_of_the_scores_is_the_grade(tmp_path: Path) -> None:
    path = written(tmp_path / "webgpt.jsonl", scored(2, 0), scored(0.5, 1.5), scored(1.25, 0.75), scored(1, 1))
    found, left_out = comparisons("webgpt", path, 0)
    assert [(one.chosen, one.grade) for one in found] == [("So.", "significantly"), ("Thus.", "better"), ("So.", "slightly")]
    assert left_out == {"tie": 1}
    assert grades_of([*found, pair("?")]) == {"webgpt": {"significantly": 1, "better": 1, "slightly": 1}, "hh-helpful": {"none": 1}}


def test_a_harmful_answer_meets_a_harmless_one_to_the_same_question_once(tmp_path: Path) -> None:
    def said(prompt: str, response: object, harmful: str) -> dict[str, object]:
        return {"model": response and f"model of {response}", "prompt": prompt, "response": response, "harmful": harmful}

    path = written(
        tmp_path / "labels.jsonl",
        said("A?", "bad", "1"), said("A?", "good", "0"), said("A?", "fine", "0"), said("A?", "worse", "1"), said("A?", "fair", "0"),
        said("B?", "all good", "0"), said("C?", " ", "1"), said("C?", "[INST] x", "1"), said("C?", "well", "0"), said("D?", None, "1"),
    )  # fmt: skip
    found, left_out = comparisons(LABELLED, path, 0)
    assert [one.rejected for one in found] == ["bad", "worse"]
    assert len({one.chosen for one in found} & {"good", "fine", "fair"}) == 2
    assert all((one.chosen_safe, one.rejected_safe, one.domain, one.source) == (True, False, "safety", LABELLED) for one in found)
    assert found[0].rejected_model == "model of bad"
    assert left_out == {"no other answer with the other label": 2, "empty answer": 1, "malformed": 2}
    drawn = {tuple(one.chosen for one in comparisons(LABELLED, path, seed)[0]) for seed in range(20)}
    assert len(drawn) > 1
    assert comparisons(LABELLED, path, 7) == comparisons(LABELLED, path, 7)


def test_parts_share_no_first_message_and_every_source_has_its_shares() -> None:
    rows = [pair(f"Question {number % 40}?") for number in range(80)]
    rows += [pair(f"  QUESTION {number}?", "webgpt") for number in range(5)]
    rows += [pair(f"Harm {number}?", "hh-harmless") for number in range(20)]
    rows += [pair("Question 39?", "hh-harmless"), pair("Harm 0?", LABELLED)]
    parts = parts_of(rows, 0.2, 0.3, 0)
    found: dict[str, set[str]] = {}
    for row, part in zip(rows, parts, strict=True):
        found.setdefault(first_message(row), set()).add(part)
    assert {len(where) for where in found.values()} == {1}
    alone = Counter(
        part for text, (part,) in found.items() if text.startswith("question") and text not in {f"question {n}?" for n in (*range(5), 39)}
    )
    assert alone == {"test": 7, "judge": 10, "train": 17}, "of 34 first messages that only one source has"
    safety = Counter(part for text, (part,) in found.items() if text.startswith("harm") and text != "harm 0?")
    assert safety == {"test": 4, "train": 15}, "nothing of safety is the judge's"
    assert found["harm 0?"] == {"test"}
    assert found["question 39?"] != {"judge"}
    assert parts == parts_of(rows, 0.2, 0.3, 0) != parts_of(rows, 0.2, 0.3, 1)


def test_some_of_each_domain_in_their_order() -> None:
    rows = [pair(str(number), "hh-helpful" if number % 3 else "hh-harmless") for number in range(30)]
    found = some_of(rows, 12, 0)
    assert Counter(row.domain for row in found) == {"helpfulness": 12, "safety": 10}
    asked = [int(row.prompt.messages[0].content) for row in found]
    assert asked == sorted(asked)
    assert found == some_of(rows, 12, 0) != some_of(rows, 12, 1)
    assert some_of(rows, None, 0) == rows


@pytest.mark.parametrize("name", SETS)
def test_the_public_file_holds_comparisons_of_its_domain(data: Path, name: str) -> None:
    file, domain = SETS[name]
    found, _ = comparisons(name, data / file, 0)
    assert len(found) > 90
    assert {(one.domain, one.source) for one in found} == {(domain, name)}
