import pytest

from llamaherd.core.errors import UserError
from llamaherd.core.seeds import python_rng
from llamaherd.data.records import parse_prompt
from llamaherd.miniature import prompts as module
from llamaherd.miniature.answers import reference_answer
from llamaherd.miniature.attacks import ATTACKS, INSIST, SEEN_ATTACKS, UNSEEN_ATTACKS, unwrapped, wrapped
from llamaherd.miniature.prompts import (
    HARMLESS,
    borderline_prompts,
    helpfulness_prompts,
    prompts,
    safety_prompts,
    unasked_people_prompts,
)
from llamaherd.miniature.questions import draw_request, split_of
from llamaherd.miniature.requests import understood
from llamaherd.miniature.world import KINDS

EVEN = dict.fromkeys(KINDS, 1.0)
SPLITS = ("train", "tune", "test")


def users(row):
    return [message["content"] for message in row["messages"] if message["role"] == "user"]


def test_rows_are_prompts_and_say_what_they_ask(world):
    for split in SPLITS:
        for row in prompts(world, 200, 0, split, EVEN):
            prompt = parse_prompt(row)
            request = understood(world, prompt.dialogue)
            assert (request.task.kind, request.task.topic, request.attack) == (row["kind"], row["topic"], row["attack"])
            assert prompt.safety == (row["kind"] == "harmful") == (row["category"] is not None)


def test_questions_of_different_splits_never_meet(world):
    asked = {split: {text for row in prompts(world, 600, 0, split, EVEN) for text in users(row)} - set(INSIST) for split in SPLITS}
    assert not asked["train"] & asked["tune"]
    assert not asked["train"] & asked["test"]
    assert not asked["tune"] & asked["test"]


def test_held_out_people_topics_and_attacks_are_for_tests_only(world):
    for split in ("train", "tune"):
        for row in prompts(world, 400, 0, split, EVEN):
            assert row["seen"]
            assert row["people"] != "unasked"
            assert row["attack"] in SEEN_ATTACKS
            assert all(unwrapped(world, text).task.seen for text in users(row) if text not in INSIST)
    harmful = prompts(world, 400, 0, "test", {"harmful": 1.0})
    assert {row["attack"] for row in harmful} == set(ATTACKS)
    for seen in ([row["seen"] for row in harmful], [row["attack"] in SEEN_ATTACKS for row in harmful]):
        assert 0.4 < sum(seen) / len(seen) < 0.6
    assert len(UNSEEN_ATTACKS) >= 2
    assert all(row["seen"] for row in prompts(world, 100, 0, "test", EVEN, unseen=0))


def test_prompts_for_measuring_are_all_different(world):
    for split in ("tune", "test"):
        rows = safety_prompts(world, 300, 0, split)
        assert len({tuple(message["content"] for message in row["messages"]) for row in rows}) == 300
    with pytest.raises(UserError, match="ask for fewer"):
        unasked_people_prompts(world, 5000, 0)


def test_helpers_hold_their_shares(world):
    def share(rows, kind):
        return sum(row["kind"] == kind for row in rows) / len(rows)

    assert abs(share(helpfulness_prompts(world, 1500, 0, "train"), "harmful") - 0.12) < 0.03
    safety = safety_prompts(world, 1500, 0, "train")
    assert abs(share(safety, "borderline") - 0.15) < 0.03
    assert abs(share(safety, "harmful") - 0.65) < 0.04
    assert share(safety_prompts(world, 100, 0, "test", borderline_share=0, harmless_share=0), "harmful") == 1
    with pytest.raises(UserError, match="together at most 1"):
        safety_prompts(world, 1, 0, "train", 0.8, 0.3)
    borderline = borderline_prompts(world, 200, 0, "test")
    assert {(row["kind"], row["attack"], len(row["messages"])) for row in borderline} == {("borderline", "plain", 1)}
    assert 0.35 < sum(row["seen"] for row in borderline) / 200 < 0.65
    assert {row["people"] for row in unasked_people_prompts(world, 100, 0)} == {"unasked"}


def test_turns(world):
    rows = prompts(world, 600, 0, "train", {"harmful": 1.0}, multi_turn=0.5)
    several = [row for row in rows if len(users(row)) > 1]
    assert abs(len(several) / 600 - 0.5) < 0.06
    assert 0.3 < sum(users(row)[-1] in INSIST for row in several) / len(several) < 0.7
    assert max(len(users(row)) for row in rows) == 4
    assert all(len(row["messages"]) == 1 for row in prompts(world, 50, 0, "train", multi_turn=0))


def test_more_of_the_same_seed_begins_alike(world):
    assert prompts(world, 20, 5, "tune") == prompts(world, 40, 5, "tune")[:20]
    assert prompts(world, 20, 5, "tune") != prompts(world, 20, 6, "tune")


def test_wrapping_is_taken_off(world):
    rng = python_rng(0, "test")
    for tasks in world.tasks.values():
        for task in tasks[:: max(1, len(tasks) // 12)]:
            for attack in ATTACKS:
                request = wrapped(task, attack, rng)
                assert unwrapped(world, request.text) == request
    assert unwrapped(world, "What is love?") is None


def test_shown_prompts_are_few_fixed_and_not_of_the_test(world):
    rows = module.fixed_sample_prompts(world)
    assert rows == module.fixed_sample_prompts(world)
    assert 4 <= len(rows) <= 6
    assert all(split_of(world, users(row)[-1]) == "tune" for row in rows)


def test_lengths(world):
    rows = prompts(world, 300, 0, "train", EVEN)
    words = [len(text.split()) for row in rows for text in users(row)]
    assert sum(words) / len(words) < 14
    assert max(words) <= 30


def test_reference_answers_need_a_known_prompt(world):
    with pytest.raises(UserError, match="none of the miniature world's"):
        reference_answer(world, {"messages": [{"role": "user", "content": "What is love?"}]}, "good")


def test_reference_answers_vary_by_draw(world):
    row = {"messages": [{"role": "user", "content": "Tell me a story about a cat."}]}
    answers = [reference_answer(world, row, "plain", draw) for draw in range(5)]
    assert answers[0] == reference_answer(world, row, "plain")
    assert len(set(answers)) > 1


def test_kinds_are_drawn_as_weighed(world):
    rng = python_rng(0, "test")
    kinds = [draw_request(world, rng, "train", HARMLESS).task.kind for _ in range(2000)]
    for kind, weight in HARMLESS.items():
        assert abs(kinds.count(kind) / 2000 - weight / sum(HARMLESS.values())) < 0.04
