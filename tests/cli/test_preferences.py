"""Comparisons on the command line: converted, counted, shown, and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.files import ROWS_SUFFIXES, read_rows

HH = [
    {key: f"\n\nHuman: Where is {city}?\n\nAssistant: {answer}" for key, answer in (("chosen", f"{city} is far."), ("rejected", "No."))}
    for city in ("Oslo", "Rome", "Lima")
]
TIE = {"question": "Who?", "answer_0": "Ann.", "answer_1": "Ben.", "score_0": 0, "score_1": 0}
SURE = {**TIE, "score_0": 0.5, "score_1": -0.5}
OURS = {
    "messages": [{"role": "user", "content": "Who?"}], "chosen": "Ann.", "rejected": "Ben.", "domain": "safety", "batch": "v1",
    "grade": "slightly", "chosen_safe": True, "rejected_safe": False,
}  # fmt: skip


@pytest.fixture
def files(write: Callable[..., Path]) -> tuple[Path, Path, Path]:
    return write("hh.jsonl", *HH), write("webgpt.jsonl", TIE, SURE, {**SURE, "answer_1": ""}), write("ours.jsonl", OURS)


@pytest.mark.parametrize("suffix", ROWS_SUFFIXES)
def test_convert_says_what_was_left_out(command: Any, files: Any, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    outcome = command("data", "preferences", *files, "--domain=helpfulness", "--batch=7", "--out", out)
    assert outcome.out == (
        f"{files[0]}: 3 rows of Anthropic HH: 3 comparisons\n"
        f"{files[1]}: 3 rows of OpenAI WebGPT: 1 comparisons, left out 2 (1 tie, 1 empty answer)\n"
        f"{files[2]}: 1 rows of llamaherd: 1 comparisons\n"
        f"{out}: 5 comparisons\n"
    )
    rows = [row for _, row in read_rows(out)]
    assert [(row["source"], row["domain"], row["batch"]) for row in rows] == [
        *[("hh", "helpfulness", "7")] * 3, ("webgpt", "helpfulness", "7"), ("", "safety", "7"),
    ]  # fmt: skip
    assert (rows[3]["chosen"], rows[3]["grade"], rows[4]["grade"]) == ("Ann.", "better", "slightly")


def test_convert_refuses(command: Any, refused: Any, files: Any, write: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    convert = ("data", "preferences", "--domain=safety", "--out", out)
    assert refused(*convert, files[1], "--bad-rows=refuse") == f"{files[1]} line 1: tie; neither answer is preferred"
    assert refused(*convert, write("ties.jsonl", TIE)).endswith("ties.jsonl: no comparison is left: 1 tie")
    assert refused(*convert, write("none.jsonl")).endswith("none.jsonl: no comparison is left: it has no row")
    assert "line 1: is a document (text); expected a comparison" in refused(*convert, write("texts.jsonl", {"text": "x"}))
    assert "no file given" in refused(*convert)
    assert "out.csv: expected a name that ends in one of .jsonl" in refused(*convert[:-1], tmp_path / "out.csv", files[0])
    assert not out.exists()
    assert command(*convert, files[0]).code == 0
    assert "exists already" in refused(*convert, files[0])


def test_stats_of_preferences(command: Any, files: Any) -> None:
    text = command("data", "stats", *files).out
    assert text.splitlines()[:6] == [
        "words are counted; --model MODEL counts the tokens of a model",
        "source      comparisons  turns  words/example  words/prompt  words/response",
        "hh                    3    1.0            5.0           3.0             2.0",
        "webgpt                1    1.0            2.0           1.0             1.0",
        "not stated            1    1.0            2.0           1.0             1.0",
        "all                   5    1.0            3.8           2.2             1.6",
    ]
    assert "\nbatch       comparisons" in text
    assert "\ngrade       significantly" in text
    assert "\nsafety labels  chosen safe, other unsafe" in text
    assert text.endswith("\nleft out: 1 tie, 1 empty answer\n")
    found = json.loads(command("data", "stats", *files, "--json").out)
    assert (found["unit"], found["model"], found["left_out"]) == ("words", None, {"tie": 1, "empty answer": 1})
    assert found["sources"]["hh"]["per_example"] == {"value": 5.0, "low": 5.0, "high": 5.0, "n": 3}
    assert (
        found["batches"]["v1"]["grades"]["slightly"]["value"] == found["batches"]["v1"]["safety"]["chosen safe, other unsafe"]["value"] == 1
    )


def test_stats_by_the_tokens_of_a_model(command: Any, files: Any, workshop: Any) -> None:
    model = workshop.folder / "chat"
    text = command("data", "stats", files[0], "--model", model).out
    assert text.startswith(f"tokens are those of {model}\nsource  comparisons  turns  tokens/example")
    found = json.loads(command("data", "stats", files[0], "--model", model, "--json").out)
    assert found["all"]["per_example"]["value"] == pytest.approx(
        found["all"]["per_prompt"]["value"] + found["all"]["per_response"]["value"]
    )
    assert found["all"]["per_prompt"]["value"] > 3, "a word is more than one token of so small a vocabulary"
    documents = workshop.folder / "documents.jsonl"
    assert json.loads(command("data", "stats", documents, "--model", model).out)["tokens"] > 0


def test_stats_refuse_two_kinds_and_nothing(refused: Any, files: Any, workshop: Any, write: Any) -> None:
    documents = workshop.folder / "documents.jsonl"
    assert refused("data", "stats", documents, files[0]) == f"{files[0]} holds preferences and {documents} does not; give files of one kind"
    assert refused("data", "stats", write("ties.jsonl", TIE)).endswith("ties.jsonl; left out: 1 tie")


def test_stats_of_a_folder_of_preferences(command: Any, tmp_path: Path) -> None:
    folder = tmp_path / "v1-preferences"
    folder.mkdir()
    (folder / "preferences.jsonl").write_text(json.dumps(OURS) + "\n")
    for name in (folder, f"{tmp_path}:v1-preferences"):
        assert json.loads(command("data", "stats", name, "--json").out)["all"]["comparisons"] == 1


def test_a_reward_model_of_others_comparisons(command: Any, refused: Any, files: Any, workshop: Any, tmp_path: Path) -> None:
    arguments = ("reward", "--model", workshop.folder / "chat", "--domain=helpfulness", "--test_share=0.3")
    outcome = command(*arguments, f"--data=[{files[0]},{files[1]}]", "--out", tmp_path / "rm")
    assert outcome.code == 0, outcome
    assert ", 1 tie, 1 empty answer, accuracy" in outcome.out
    assert json.loads((tmp_path / "rm" / "manifest.json").read_text())["metrics"]["left_out"] == {"tie": 1, "empty answer": 1}
    assert "corpus: holds no preferences.jsonl (it is of kind 'corpus'); give a file or a folder that holds one" in refused(
        *arguments, "--data", workshop.folder / "corpus", "--out", tmp_path / "none"
    )


def test_others_comparisons_are_shown_as_the_model_reads_them(command: Any, files: Any, workshop: Any) -> None:
    text = command("data", "show", files[1], "--model", workshop.folder / "chat").out
    heads = [line.split(":")[0] for line in text.splitlines() if line.startswith("line ")]
    assert heads == [
        "line 1, left out, tie, OpenAI WebGPT", "line 2, chosen, better, OpenAI WebGPT", "line 2, rejected, better, OpenAI WebGPT",
        "line 3, left out, empty answer, OpenAI WebGPT",
    ]  # fmt: skip
