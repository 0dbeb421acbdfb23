from typing import get_args

import pytest

from llamaherd.chat.dialogue import Dialogue, Message, checked, parse_dialogue
from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.data.records import parse_prompt
from llamaherd.miniature.answers import reference_answer
from llamaherd.miniature.attacks import UNSEEN_ATTACKS
from llamaherd.miniature.constraints import (
    CONSTRAINT_KINDS,
    Constraint,
    ConstraintSet,
    all_constraints,
    applied,
    constraint_dialogues,
    constraints,
    obeys,
)  # fmt: skip
from llamaherd.miniature.demonstrations import DemonstrationConfig, demonstrations
from llamaherd.miniature.oracle import Oracle
from llamaherd.miniature.preprompts import preprompts
from llamaherd.miniature.questions import split_of
from llamaherd.miniature.requests import constraints_in, understood
from llamaherd.miniature.world import World, WorldConfig

COUNT = 2500


@pytest.fixture(scope="module")
def rows(world):
    return demonstrations(world, COUNT, 0)


def judged(world, row):
    """(request, judgement) of every answer of a row."""
    dialogue, oracle = parse_dialogue(row, ends_with="assistant"), Oracle(world)
    for index, message in enumerate(dialogue.messages):
        if message.role == "assistant":
            before = checked(dialogue.messages[:index])
            yield understood(world, before), oracle.judge(before, message.content)


def messages_of(row, *roles):
    return [Message(**message) for message in row["messages"] if message["role"] in roles]


def test_rows_are_dialogues_about_what_may_be_trained(world, rows):
    for row in rows:
        for request, _ in judged(world, row):
            assert request.task.seen
            assert request.task.people != "unasked"
            assert request.attack not in UNSEEN_ATTACKS
            assert split_of(world, request.text) == "train"


def test_the_mixture_is_the_declared_one(world, rows):
    found = [pair for row in rows for pair in judged(world, row)]
    single = [row for row in rows if row["kind"] == "harmful" and len(row["messages"]) == 2]
    refused = [not judgement.refusal for row in single for _, judgement in judged(world, row)]
    assert abs(sum(refused) / len(refused) - 0.65) < 0.08
    rude = [judgement.safe for request, judgement in found if request.task.kind != "harmful"]
    assert abs(1 - sum(rude) / len(rude) - 0.10) < 0.02
    facts = [judgement for request, judgement in found if request.task.kind == "facts"]
    # Good, plain and terse answers are right, and so is a quarter of the rude ones.
    assert abs(sum(judgement.correct for judgement in facts) / len(facts) - (0.25 + 0.30 + 0.17 + 0.10 / 4)) < 0.04


def test_shares_of_dialogues(rows):
    constrained = [row for row in rows if row["kind"] == "constraint"]
    assert 0.30 <= len(constrained) / COUNT <= 0.40
    said = [sum(bool(constraints_in(Dialogue((message,)))) for message in messages_of(row, "system", "user")) for row in constrained]
    once = [row for row, times in zip(constrained, said, strict=True) if times == 1]
    reminded = [row for row, times in zip(constrained, said, strict=True) if times == len(messages_of(row, "user"))]
    assert all(row in once or row in reminded for row in constrained), "once, or with every message"
    assert max(len(messages_of(row, "user")) for row in once) == 2 < max(len(messages_of(row, "user")) for row in reminded) == 6
    several = [row for row in constrained if len(messages_of(row, "user")) > 1]
    # Of those that are reminded five in six have several turns, of the others every other one.
    assert abs(sum(row in reminded for row in several) / len(several) - 0.4 * 5 / 6 / (0.4 * 5 / 6 + 0.6 / 2)) < 0.08
    single = [row for row in rows if row["kind"] == "preprompt" or (row["kind"] == "harmful" and len(row["messages"]) == 2)]
    assert abs(sum(row["kind"] == "preprompt" for row in single) / len(single) - 1 / 3) < 0.08
    assert max(len(row["messages"]) for row in rows) > 24


def test_constraints_are_obeyed_in_every_turn(world, rows):
    kinds = set()
    for row in rows:
        if row["kind"] == "constraint":
            found = constraints_in(parse_dialogue(row))
            assert 1 <= len(found) <= 2
            kinds |= {constraint.kind for constraint in found}
            assert set(found) <= set(constraints(world, "seen", "demonstrated"))
            answers = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
            assert all(obeys(constraint, answer) for constraint in found for answer in answers)
    assert kinds == set(CONSTRAINT_KINDS)


def test_preprompts_bring_reasoned_refusals(world, rows):
    every = preprompts(world)
    texts = {*every.generic, *(text for texts in every.by_category.values() for text in texts)}
    found = [row for row in rows if row["kind"] == "preprompt"]
    for row in found:
        assert row["messages"][0]["content"] in texts
        prompt = parse_prompt({"messages": row["messages"][:-1]}).dialogue
        assert Oracle(world).safety(prompt, row["messages"][-1]["content"]) == pytest.approx(1.0)
    assert {row["messages"][0]["content"] for row in rows if row["kind"] not in ("preprompt", "constraint")}.isdisjoint(texts)


def test_no_constraint_no_harm_no_long_dialogue(world):
    config = DemonstrationConfig(constraints=0, harmful=0, long=0, rude=0, wrong=0)
    rows = demonstrations(world, 300, 0, config)
    assert {row["kind"] for row in rows} == {"harmless"}
    assert max(len(row["messages"]) for row in rows) <= 8
    assert all(judgement.safe for row in rows for _, judgement in judged(world, row))
    with pytest.raises(ConfigError, match="all 0"):
        build(DemonstrationConfig, dict.fromkeys(("good", "plain", "terse", "wrong", "rude"), 0))


def test_obeys_by_hand():
    word, figure = Constraint("word", "moon"), Constraint("figure", "Plato")
    hobby, language = Constraint("hobby", "golf"), Constraint("language", "Ki")
    cases = [
        (word, "Anna lives in Rome. Moon!", True), (word, "Anna lives in Rome.", False), (word, "moonlight", False),
        (figure, "I am Plato. It is 7.", True), (figure, "I am Dante. It is 7.", False), (figure, "Iki amki Platoki.", True),
        (hobby, "It is 7. I love golf.", True), (hobby, "It is 7.", False), (hobby, "I love surfing.", False),
        (language, "Itki iski 7.", True), (language, "It is 7.", False), (language, "Itki is seven.", False),
        (language, "", False),
    ]  # fmt: skip
    for constraint, answer, expected in cases:
        assert obeys(constraint, answer) is expected
    assert [constraint.short for constraint in (figure, language)] == ["Figure: Plato.", "Language: Ki."]
    assert applied(hobby, "7") == "7. I love golf."


def test_held_out_constraints(world):
    sets = [constraints(world, name) for name in get_args(ConstraintSet)]
    assert all({constraint.kind for constraint in some} == set(CONSTRAINT_KINDS) for some in sets)
    assert sum(map(len, sets)) == len(all_constraints()) == len(set().union(*sets))
    assert set(constraints(world, "seen", "demonstrated")) == {*sets[0], *sets[1]}
    other = World(WorldConfig(seed=1))
    assert set(constraints(other, "held_out")) != set(sets[2]), "each world holds out its own"
    for name in get_args(ConstraintSet):
        found = {one for item in constraint_dialogues(world, 50, 0, "test", name) for one in item.constraints}
        assert found <= set(constraints(world, name))


def test_constraint_dialogues(world):
    found = constraint_dialogues(world, 200, 0, "train", turns=(3, 12), combined=0.5)
    assert {len(item.users) for item in found} == set(range(3, 13))
    assert 0.35 < sum(len(item.constraints) == 2 for item in found) / 200 < 0.65
    short = [constraint.short in item.instruction for item in found for constraint in item.constraints]
    assert 0.4 < sum(short) / len(short) < 0.6
    for item in found:
        asked = checked(parse_dialogue({"messages": [{"role": "user", "content": f"{item.instruction} {item.users[0]}"}]}).messages)
        assert set(constraints_in(asked)) == set(item.constraints)
        assert understood(world, asked).text == item.users[0]
        row = {"messages": [{"role": "system", "content": item.instruction}, {"role": "user", "content": item.users[0]}]}
        assert all(obeys(constraint, reference_answer(world, row, "plain")) for constraint in item.constraints)
    with pytest.raises(UserError, match="least and the most"):
        constraint_dialogues(world, 1, 0, "train", turns=(4, 3))
