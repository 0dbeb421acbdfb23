from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llamaherd.assistant.local import Answer, Assistant
from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.core.errors import UserError
from llamaherd.core.seeds import seed_for
from llamaherd.data.records import Prompt
from llamaherd.generate.config import SamplingConfig
from llamaherd.reward.combine import Scores
from llamaherd.rlhf.judging import combined_logits, logits_of, why_unusable
from llamaherd.rlhf.rejection import Candidate, PoolRow, best_of, best_rows, dialogue_of, pooled, sample_answers, tuning_row

SAMPLING = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=8)


def test_the_known_best_answer_is_found(toy: Assistant, table: Any, prompts: list[Prompt]) -> None:
    """Every one-letter answer has its own reward; with many draws, each prompt's best is the best of all letters."""
    rewards = table({letter: float(value) for value, letter in enumerate("abcdefgh", 1)})
    rows = sample_answers(toy, rewards, prompts[:3], 0, 300, SAMPLING, 0)
    assert [row.answer for row in best_rows(rows, "v1")] == ["h"] * 3
    few = sample_answers(toy, rewards, prompts[:3], 0, 3, SAMPLING, 0)
    assert [row["candidates"] for row in few] == [row["candidates"][:3] for row in rows], "the first draws are the same for any K"


def test_chunks_do_not_matter(toy: Assistant, table: Any, prompts: list[Prompt]) -> None:
    rewards = table({"a": 1.0})
    whole = sample_answers(toy, rewards, prompts, 0, 4, SAMPLING, 0)
    parts = [row for first in range(0, 8, 3) for row in sample_answers(toy, rewards, prompts[first : first + 3], first, 4, SAMPLING, 0)]
    assert whole == parts
    assert len({candidate["text"] for row in whole for candidate in row["candidates"]}) > 8
    assert whole != sample_answers(toy, rewards, prompts, 0, 4, SAMPLING, 1)


def test_what_may_not_become_data(
    toy: Assistant, table: Any, prompts: list[Prompt], answer: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reason, with a reward that would have won."""
    answers = [
        answer("a"), answer("best", finished=False), answer(" \n"), answer("best [/INST]"), answer("best <<SYS>>", finished=False), answer("b" * 60),
    ]  # fmt: skip
    assert [why_unusable(one) for one in answers] == [None, "unfinished", "empty", "tag", "tag", None]
    monkeypatch.setattr(toy, "answers", lambda *_: answers)
    [row] = sample_answers(toy, table({"a": -5.0}, 9.0), prompts[:1], 0, 6, SAMPLING, 0)
    assert [candidate["unusable"] for candidate in row["candidates"]] == [None, "unfinished", "empty", "tag", "tag", "too long"]
    assert [candidate["logit"] for candidate in row["candidates"]] == [-5.0, None, None, None, None, None]
    [best] = best_rows([row], "v1")
    assert (best.answer, best.version, best.prompt.dialogue) == ("a", "v1", prompts[0].dialogue)
    without = {**row, "candidates": row["candidates"][1:]}
    assert best_rows([without], "v1") == []


def test_logits_go_to_their_own_answers(table: Any, prompts: list[Prompt], answer: Callable[..., Answer]) -> None:
    answers = [answer("a"), answer("b", finished=False), answer("c")]
    assert combined_logits(table({"a": 1.0, "b": 2.0, "c": 3.0}), prompts[:3], answers) == [1.0, None, 3.0]

    class Safety:
        def logits(self, dialogues: Sequence[Dialogue]) -> list[float]:
            return [float(ord(dialogue.last.content)) for dialogue in dialogues]

        def fits(self, dialogue: Dialogue) -> bool:
            return dialogue.last.content != "c"

    assert logits_of(Safety(), prompts[:3], answers) == [97.0, None, None]  # type: ignore[arg-type]


def test_best_of() -> None:
    nothing, low, high, equal = Candidate("n", None), Candidate("l", -2.0), Candidate("h", 0.0), Candidate("e", 0.0)
    assert best_of([nothing, low, high, equal]) is high
    assert best_of([equal, high]) is equal
    assert best_of([low, nothing]) is low
    assert best_of([nothing]) is None
    assert best_of([]) is None


def pool_row(text: str, prompt: Prompt, version: str) -> PoolRow:
    return PoolRow(prompt, text, version)


def test_the_pool_keeps_the_best_of_all_versions(table: Any, prompts: list[Prompt]) -> None:
    one, two, three, four = prompts[:4]
    earlier = [pool_row("a", one, "v1"), pool_row("b", two, "v1"), pool_row("c", one, "v2"), pool_row("x", four, "v2")]
    newest = [pool_row("d", two, "v3"), pool_row("e", three, "v3"), pool_row("a", four, "v3"), pool_row("b", four, "v3")]
    rewards = table({"a": 1.0, "b": 2.0, "c": 0.5, "d": 3.0, "e": -9.0, "x": 1.5})
    pool = pooled(earlier, newest, rewards)
    assert [(row.prompt.dialogue.last.content, row.answer, row.version) for row in pool.rows] == [
        ("Say 0", "a", "v1"), ("Say 1", "d", "v3"), ("Say 3", "b", "v3"), ("Say 2", "e", "v3"),
    ]  # fmt: skip
    # The newest reward models decide: an old favourite can lose to another old answer.
    assert pooled(earlier, newest, table({"c": 2.0, "a": 1.0})).rows[0].answer == "c"
    assert pooled([], [], rewards).rows == []


def test_a_pool_row_keeps_its_lineage() -> None:
    prompt = Prompt(checked([Message("system", "Be brief."), Message("user", "Hello")]), True, {"kind": "harmful", "category": None})
    row = PoolRow(prompt, "No.", "v2")
    assert PoolRow.of(row.to_row(), "pool line 1") == row
    for broken in ({"answer": None}, {"version": 2}):
        with pytest.raises(UserError, match="pool line 1: '(answer|version)' is (None|2); expected text"):
            PoolRow.of({**row.to_row(), **broken}, "pool line 1")


def test_only_the_sampled_answer_is_trained() -> None:
    prompt = Prompt(checked([Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye")]), False)
    dialogue = dialogue_of(PoolRow(prompt, "So long", "v1"))
    assert dialogue.trained == "last"
    assert [message.content for message in dialogue.messages] == ["Hi", "Hello", "Bye", "So long"]


def test_draws_take_the_temperatures_in_turn(toy: Assistant, table: Any, prompts: list[Prompt]) -> None:
    """And a draw's answer hangs on prompt, draw and temperature alone."""
    rewards = table({"a": 1.0})
    cold, hot = SAMPLING.model_copy(update={"temperature": 0.5}), SAMPLING.model_copy(update={"temperature": 1.5})
    mixed = sample_answers(toy, rewards, prompts[:3], 0, 5, [cold, hot], 0)
    assert [[one["temperature"] for one in row["candidates"]] for row in mixed] == [[0.5, 1.5, 0.5, 1.5, 0.5]] * 3
    alone = [sample_answers(toy, rewards, prompts[:3], 0, 5, one, 0) for one in (cold, hot)]
    for index, row in enumerate(mixed):
        assert row["candidates"] == [alone[draw % 2][index]["candidates"][draw] for draw in range(5)]
    assert [one["draw"] for one in mixed[0]["candidates"]] == list(range(5))
    assert [one["seed"] for one in mixed[2]["candidates"]] == [seed_for(0, "reject", 2, draw) for draw in range(5)]


def test_a_draw_is_found_again_from_its_lineage(toy: Assistant, table: Any, prompts: list[Prompt]) -> None:
    rows = sample_answers(toy, table({letter: float(value) for value, letter in enumerate("abcdefgh")}), prompts, 0, 6, SAMPLING, 0)
    for row in best_rows(rows, "v1", "f00d"):
        about = row.lineage
        assert (about["model"], about["model_hash"]) == ("toy", "f00d")
        assert (about["helpfulness"], about["safety"]) == (about["combined"], -about["combined"])
        [again] = toy.answers([row.prompt.dialogue], SAMPLING.model_copy(update={"temperature": about["temperature"]}), [about["seed"]])
        assert again.text == row.answer


def asked(text: str, safety: bool = False) -> Prompt:
    return Prompt(checked([Message("user", text)]), safety)


def test_prompts_that_differ_in_white_space_are_one(table: Any) -> None:
    earlier = [PoolRow(asked("Where is  Ada?"), "a", "v1"), PoolRow(asked("Where is Ada"), "b", "v1")]
    newest = [PoolRow(asked(" Where is\nAda? "), "c", "v2"), PoolRow(asked("where is Ada?"), "a", "v2")]
    pool = pooled(earlier, newest, table({"a": 1.0, "b": 1.0, "c": 2.0}))
    assert [(row.answer, row.version) for row in pool.rows] == [("c", "v2"), ("b", "v1"), ("a", "v2")]
    assert (pool.equal_answers, pool.beaten, pool.too_long) == (0, 1, 0)
    assert pool.rows[0].judged == Scores(2.0, -2.0, 2.0)


def test_equal_answers_of_several_versions_are_one_and_name_them_all(table: Any) -> None:
    prompt = asked("Say it")
    rows = [PoolRow(prompt, "a b", "v1"), PoolRow(prompt, "a  b", "v2"), PoolRow(prompt, "c", "v2"), PoolRow(prompt, "a b\n", "v3")]
    pool = pooled(rows[:3], rows[3:], table({"c": -1.0}, 1.0))
    [row] = pool.rows
    assert (row.answer, row.version, row.also) == ("a b", "v1", ("v2", "v3"))
    assert (pool.equal_answers, pool.beaten, pool.too_long) == (2, 1, 0)
    lineage = tuning_row(row)["lineage"]
    assert (lineage["version"], lineage["also"], lineage["judged"]["combined"]) == ("v1", ["v2", "v3"], 1.0)


def test_what_the_newest_reward_models_cannot_read_is_counted(table: Any) -> None:
    pool = pooled([PoolRow(asked("x"), "b" * 60, "v1")], [PoolRow(asked("x"), "a", "v2")], table({}, 1.0))
    assert ([row.answer for row in pool.rows], pool.too_long) == (["a"], 1)


def test_a_prompt_tagged_by_one_version_is_judged_as_such_for_all() -> None:
    class Gate:
        def fits(self, prompt: Prompt, answer: str) -> bool:
            return True

        def scores(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Scores]:
            by_text = {"frank": Scores(9.0, -1.0, 9.0), "kind": Scores(0.0, 2.0, 0.0)}
            found = [by_text[answer] for answer in answers]
            return [score._replace(combined=score.safety if prompt.safety else score.helpfulness) for prompt, score in zip(prompts, found)]

    [row] = pooled([PoolRow(asked("x"), "frank", "v1")], [PoolRow(asked("x", True), "kind", "v2")], Gate()).rows  # type: ignore[arg-type]
    assert (row.answer, row.prompt.safety) == ("kind", True)
