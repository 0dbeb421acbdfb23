import json
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows, write_rows
from llamaherd.data.public.preprompts import preprompt
from llamaherd.data.public.prompts import RED_TEAM, TESTS, runs_of
from llamaherd.data.records import read_prompts
from llamaherd.stages import prompts

SMALL = {
    "rejection_prompts": 20, "ppo_prompts": 30, "held_out_prompts": 10, "best_of_prompts": 5, "distilled_prompts": 12, "harmless_prompts": 7,
    "distilled_tests": 6, "ghost_dialogues": 9, "ghost_turns": [2, 3], "ghost_tests": 4, "ghost_test_turns": 5,
}  # fmt: skip
TUNED = ("rejection", "ppo", "held-out", "best-of", "distil", "distil-test", "harmless")


def run(data: Path, out: Path, seed: int = 0, **values: Any) -> Artifact:
    return prompts.run(build(prompts.PromptsConfig, {**SMALL, "data": str(data), **values}), out, seed)


def pair(asked: str, domain: str, source: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": asked}]
    return {"messages": messages, "chosen": "Yes.", "rejected": "No.", "domain": domain, "source": source}


@pytest.fixture(scope="module")
def inputs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Comparisons and demonstrations, of which each has a prompt of a test, and the tested ones a prompt that could be tuned on."""
    folder = tmp_path_factory.mktemp("inputs")
    tested = {name: next(read_rows(data / file))[1] for sets in TESTS.values() for name, file in sets.items()}
    (_, could_be_tuned_on) = next(read_rows(data / RED_TEAM["dangerousqa"]))
    write_rows(folder / "helpfulness.jsonl", [pair(f"Helpful {number}?", "helpfulness", "hh-helpful") for number in range(30)])
    harmful = [pair(f"Harmful {number}?", "safety", "hh-harmless") for number in range(30)]
    write_rows(folder / "safety.jsonl", [*harmful, pair(tested["q-harm"]["prompt"], "safety", "hh-harmless")])
    write_rows(folder / "judge.jsonl", [pair(tested["vicuna"]["turns"][0], "helpfulness", "webgpt")])
    write_rows(folder / "helpfulness-test.jsonl", [pair("Helpful 3?", "helpfulness", "hh-helpful")])
    write_rows(folder / "safety-test.jsonl", [pair(could_be_tuned_on["prompt"], "safety", "hh-harmless")])
    said = [{"role": "user", "content": tested["i-alpaca"]["prompt"]}, {"role": "assistant", "content": "So."}]
    write_rows(folder / "demonstrations.jsonl", [{"messages": said}])
    return folder


@pytest.fixture(scope="module")
def made(data: Path, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return run(data, tmp_path_factory.mktemp("prompts") / "out", comparisons=str(inputs), demonstrations=str(inputs))


def rows(made: Artifact, name: str) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(made.path / f"{name}.jsonl")]


def test_every_file_reads_back_and_is_counted(made: Artifact) -> None:
    counts = made.metrics["counts"]
    found = {file.relative_to(made.path).as_posix(): file for file in made.path.rglob("*.jsonl") if file.name != "metrics.jsonl"}
    assert counts == {name: len(list(read_rows(file))) for name, file in found.items()}
    given = (20, 30, 10, 5, 12, 6, 7)
    assert [counts[f"{name}.jsonl"] for name in TUNED] == list(given)
    for name in found:
        if not name.endswith("ghost.jsonl"):
            assert len(read_prompts(made.path / name)) == counts[name]
    assert "for tests; left out of tests: " in prompts.headline(made)


def test_no_prompt_is_in_two_files_and_none_of_a_test_is_like_one_that_is_tuned_on(made: Artifact) -> None:
    tuned = [row["messages"][0]["content"] for name in TUNED for row in rows(made, name)]
    assert len(set(tuned)) == len(tuned)
    tested = [row["messages"][0]["content"] for name in TESTS for row in rows(made, f"test/{name}")]
    assert not runs_of(tuned) & runs_of(tested)
    ghost = [{text for row in rows(made, name) for text in row["users"]} for name in ("ghost", "test/ghost")]
    assert not ghost[0] & ghost[1]


def test_what_is_trained_on_elsewhere_is_no_test_and_what_is_tested_elsewhere_is_not_tuned_on(
    data: Path, made: Artifact, inputs: Path
) -> None:
    tested = {row["messages"][0]["content"] for name in TESTS for row in rows(made, f"test/{name}")}
    for file in ("safety.jsonl", "judge.jsonl", "demonstrations.jsonl"):
        assert not {row["messages"][0]["content"] for _, row in read_rows(inputs / file)} & tested
    assert made.metrics["left_out"]["tests"]["as in training"] >= 3
    alone = run(data, made.path.parent / "alone")
    assert alone.metrics["pools"]["adversarial"] == 0
    assert made.metrics["pools"]["adversarial"] == 31
    assert made.metrics["pools"]["harmless"] == alone.metrics["pools"]["harmless"] + 29, "one of 30 is asked in a test of comparisons"
    assert made.metrics["pools"]["red-team"] < alone.metrics["pools"]["red-team"], "one more is asked in a test of comparisons"


def test_tags_kinds_and_preprompts(made: Artifact) -> None:
    for name in ("rejection", "ppo", "held-out", "best-of"):
        own = rows(made, name)
        assert sum(row["safety"] for row in own) == round(0.4 * len(own))
    for name in ("distil", "distil-test"):
        for index, row in enumerate(rows(made, name)):
            assert row["safety"]
            assert row["kind"] in RED_TEAM
            assert row["preprompt"] == preprompt(row.get("category"), index)
    assert not any(row["safety"] for row in rows(made, "harmless"))
    for name, sets in TESTS.items():
        own = rows(made, f"test/{name}")
        assert {row["kind"] for row in own} == set(sets)
        assert all(row["seen"] is False and row["safety"] == (name == "safety") for row in own)
    assert len({row["category"] for row in rows(made, "test/safety") if "category" in row}) == 16


def test_lengths_and_scripts(made: Artifact) -> None:
    for name in (*TUNED, *(f"test/{name}" for name in TESTS)):
        assert all(sum(len(message["content"].encode()) for message in row["messages"]) <= 600 for row in rows(made, name))
    scripts, tests = rows(made, "ghost"), rows(made, "test/ghost")
    assert {len(row["users"]) for row in scripts} == {2, 3}
    assert [row["set"] for row in tests] == ["seen"] * 4 + ["held_out"] * 4
    assert {len(row["users"]) for row in tests} == {5}
    assert all(len(text.encode()) <= 100 for row in (*scripts, *tests) for text in row["users"])


def test_the_same_seed_gives_the_same_files(data: Path, made: Artifact, inputs: Path) -> None:
    given = {"comparisons": str(inputs), "demonstrations": str(inputs / "demonstrations.jsonl")}
    assert run(data, made.path.parent / "again", **given).hash == made.hash
    other = run(data, made.path.parent / "other", 1, **given, most_tests=30)
    assert other.hash != made.hash
    assert {other.metrics["counts"][f"test/{name}.jsonl"] for name in TESTS} == {30}
    assert other.metrics["left_out"]["tests"]["more than wanted"] > 1000


def test_problems_are_told_and_leave_nothing_behind(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"given \[4, 2\], expected the least and the most turns, such as \[2, 4\]"):
        build(prompts.PromptsConfig, {"ghost_turns": [4, 2]})
    with pytest.raises(UserError, match=r"ppo.jsonl: 5,400 harmless prompts asked for, .* left; ask for fewer"):
        run(data, tmp_path / "out", ppo_prompts=9000)
    with pytest.raises(UserError, match="public files are absent"):
        run(tmp_path, tmp_path / "out")
    bad = tmp_path / "texts"
    bad.mkdir()
    with pytest.raises(UserError, match="holds no demonstrations.jsonl"):
        run(data, tmp_path / "out", demonstrations=str(bad))
    (bad / "demonstrations.jsonl").write_text(json.dumps({"messages": []}) + "\n")
    with pytest.raises(UserError, match="demonstrations.jsonl line 1"):
        run(data, tmp_path / "out", demonstrations=str(bad))
    assert [path.name for path in tmp_path.iterdir()] == ["texts"]
