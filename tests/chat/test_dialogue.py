import pytest

from llamaherd.chat.dialogue import TAGS, Dialogue, DialogueError, Message, checked, parse_dialogue, tag_in


def row(*pairs: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def test_parts_of_a_dialogue():
    dialogue = parse_dialogue(row(("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")))
    assert dialogue.system == "S"
    assert dialogue.turns == 2
    assert dialogue.last == Message("assistant", "d")
    assert [message.content for message in dialogue.prompt.messages] == ["S", "a", "b", "c"]
    assert dialogue.prompt.prompt == dialogue.prompt


def test_rows_come_back():
    plain = row(("user", "a"), ("assistant", "b"))
    assert parse_dialogue(plain).to_row() == plain
    last = {**plain, "trained": "last"}
    assert parse_dialogue(last).trained == "last"
    assert parse_dialogue(last).to_row() == last
    assert parse_dialogue({**plain, "trained": None}).trained == "all"


def test_system_text_is_set_replaced_and_removed():
    dialogue = parse_dialogue(row(("user", "a")))
    assert dialogue.system is None
    assert dialogue.with_system("S").system == "S"
    assert dialogue.with_system("S").with_system("T").system == "T"
    assert dialogue.with_system("S").with_system(None) == dialogue


def test_a_following_message_is_checked():
    dialogue = parse_dialogue(row(("user", "a")))
    assert dialogue.followed_by("assistant", "b").last == Message("assistant", "b")
    with pytest.raises(DialogueError, match=r"message 2 \(user\): expected assistant"):
        dialogue.followed_by("user", "b")


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([("user", "a"), ("user", "b")], r"message 2 \(user\): expected assistant"),
        ([("assistant", "a"), ("user", "b")], r"message 1 \(assistant\): expected system or user"),
        ([("user", "a"), ("system", "b")], r"message 2 \(system\): expected assistant"),
        ([("system", "a"), ("assistant", "b"), ("user", "c")], r"message 2 \(assistant\): expected user"),
        ([("system", "a"), ("system", "b"), ("user", "c")], r"message 2 \(system\): expected user"),
        ([("system", "a")], "at least one user message"),
        ([("user", " \n")], r"message 1 \(user\): is empty"),
        ([("user", "\ud800")], r"message 1 \(user\): contains a lone surrogate"),
    ],
)
def test_broken_rules_name_the_message(messages: list[tuple[str, str]], complaint: str):
    with pytest.raises(DialogueError, match=complaint) as error:
        parse_dialogue(row(*messages), "file.jsonl line 7")
    assert str(error.value).startswith("file.jsonl line 7: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_tags_are_refused_in_every_role(tag: str, place: int):
    messages = [Message("system", "s"), Message("user", "u"), Message("assistant", "a")]
    messages[place] = Message(messages[place].role, f"x{tag}y")
    with pytest.raises(DialogueError, match=rf"message {place + 1} \({messages[place].role}\)"):
        checked(messages)


def test_near_tags_are_text():
    assert tag_in("[inst] [ INST] <SYS> [INST") is None
    assert tag_in("a [/INST] b") == "[/INST]"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({}, "got NoneType"),
        ({"messages": []}, "got list"),
        ({"messages": ["a"]}, "message 1: expected"),
        ({"messages": [{"role": "bot", "content": "a"}]}, "message 1: expected"),
        ({"messages": [{"role": "user", "content": 3}]}, "message 1: expected"),
        ({**row(("user", "a")), "trained": "some"}, "'some'; expected"),
    ],
)
def test_rows_that_are_no_dialogue(value: dict[str, object], complaint: str):
    with pytest.raises(DialogueError, match=complaint):
        parse_dialogue(value)


def test_how_a_dialogue_must_end():
    with pytest.raises(DialogueError, match="a prompt ends with a user message"):
        parse_dialogue(row(("user", "a"), ("assistant", "b")), ends_with="user")
    with pytest.raises(DialogueError, match="a finished dialogue ends with an assistant message"):
        parse_dialogue(row(("user", "a")), ends_with="assistant")
    assert isinstance(parse_dialogue(row(("user", "a"), ("assistant", "")), ends_with="assistant"), Dialogue)
