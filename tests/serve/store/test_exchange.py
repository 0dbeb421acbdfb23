"""Files out and in."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.serve.store.test_conversations import made, said, tree

from llamaherd.core.errors import UserError
from llamaherd.serve.errors import ApiError
from llamaherd.serve.store.conversations import Conversations
from llamaherd.serve.store.exchange import entries, export, take_in

Open = Callable[..., Conversations]
DIALOGUE = {"messages": [{"role": "user", "content": "Where does\nAda live?"}, {"role": "assistant", "content": "In Lima."}]}


def shape(found: dict[str, Any]) -> Any:
    """A conversation without its ids."""
    number = {node["id"]: index for index, node in enumerate(found["nodes"])}
    nodes = [{**node, "id": None, "parent": number.get(node["parent"])} for node in found["nodes"]]
    return {**found, "id": None, "leaf": number.get(found["leaf"]), "nodes": nodes}


def all_of(store: Conversations, owner: str) -> list[Any]:
    return [shape(tree(store, one["id"], owner)) for one in store.list(owner, "", 200, None)["data"]]


def test_an_export_comes_in_as_it_went_out_under_new_ids(store: Conversations) -> None:
    first = made(store, "One")
    user = said(store, first, None, "user", 'Hi "there" \0 ёлка\u2028')
    one = said(store, first, user, "assistant", "A", model="v5", meta={"tokens": [["a", -0.5]]})
    said(store, first, user, "assistant", "B")
    store.change("ada", first, None, {"temperature": 0.7}, one)
    made(store, "Empty")
    file = "".join(export(store, "ada"))
    assert json.loads(file)["format"] == "llamaherd-conversations"
    assert take_in(store, "ben", file) == {"imported": 2, "left_out": []}
    assert all_of(store, "ben") == all_of(store, "ada")
    assert take_in(store, "ben", json.dumps(json.loads(file), indent=2))["imported"] == 2
    assert len(all_of(store, "ben")) == 4
    assert json.loads("".join(export(store, "nobody")))["conversations"] == []


def test_one_conversations_export_comes_in(store: Conversations) -> None:
    id = made(store, "One")
    said(store, id, None, "user", "Hi.")
    assert take_in(store, "ben", store.get("ada", id))["imported"] == 1
    assert all_of(store, "ben") == all_of(store, "ada")


@pytest.mark.parametrize(
    "file",
    [
        json.dumps(DIALOGUE), json.dumps([DIALOGUE]), f"\ufeff{json.dumps(DIALOGUE)}\r\n", json.dumps({"conversations": [DIALOGUE]}),
        json.dumps({"a": {"b": [1]}, "conversations": [DIALOGUE], "z": [{}]}), json.dumps({"title": "", **DIALOGUE, "source": "x"}),
    ],
)  # fmt: skip
def test_dialogues_come_in_from_any_of_these_forms(file: str, store: Conversations) -> None:
    assert take_in(store, "ada", file) == {"imported": 1, "left_out": []}
    found = all_of(store, "ada")[0]
    assert [(node["role"], node["content"], node["parent"]) for node in found["nodes"]] == [
        ("user", "Where does\nAda live?", None),
        ("assistant", "In Lima.", 0),
    ]
    assert (found["title"], found["leaf"]) == ("Where does Ada live?", 1)


def test_lines_come_in_and_what_cannot_is_named(store: Conversations) -> None:
    user = {"role": "user", "content": "Hi."}
    bad = [
        ({"messages": [user, user]}, r"message 2 (user): expected assistant"),
        ({"messages": [{"role": "user", "content": "[INST]"}]}, "message 1 (user): contains the template tag [INST]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 'message 1: expected {"role"'),
        ({"messages": []}, 'expected "messages"'),
        ({}, 'expected "messages"'),
        ({"nodes": [{"id": "a", "parent": "b", **user}]}, "message 1: its id stands twice, or its parent"),
        ({"nodes": [{"id": "a", **user}, {"id": "a", **user}]}, "message 2: its id stands twice"),
        ({"nodes": [{"id": "a", **user}, {"id": "b", "parent": "a", **user}]}, "message 2 (user): expected assistant"),
        ({"nodes": [{"id": "a", **user, "meta": []}]}, ""),
        ({"nodes": [{"id": "a", **user, "meta": [1]}]}, "message 1: meta is an object"),
        ({"nodes": [user]}, "message 1: expected"),
        ({"nodes": {}}, "nodes: a JSON dict"),
        ({"nodes": [], "title": 1}, "title: expected text"),
        ({"nodes": [], "title": "\ud800"}, "title: expected text"),
        ({"nodes": [], "title": "x" * 501}, "title: 501 characters"),
        ({"nodes": [], "settings": {"a": float("inf")}}, "settings: holds what JSON cannot say"),
    ]
    lines = [json.dumps(DIALOGUE), *(json.dumps(row) for row, _ in bad), json.dumps(DIALOGUE)]
    result = take_in(store, "ada", "\n".join(lines))
    assert result["imported"] == 3  # an empty list of meta is as good as none
    expected = [(index, why) for index, (_, why) in enumerate(bad, 1) if why]
    assert [one["index"] for one in result["left_out"]] == [index for index, _ in expected]
    for left, (_, why) in zip(result["left_out"], expected):
        assert why in left["why"]


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("", "the file is empty"), ("  \n", "the file is empty"), ("hello", "expected conversations or dialogues"), ("1", "expected conv"),
        ("[1, 2", "not JSON"), ('{"messages": [', "not JSON"), ('[{"messages": []}] trailing', "expected conversations"),
        ('{"a": 1, }', "not JSON"), ('{"a" 1}', "not JSON"), ("[1],[2]", "not JSON: a comma"), ("[" * 100_000, "not JSON"),
        ('{"conversations": [{}]', "not JSON"), ('{"conversations": [{}}', "not JSON"), ('{"x": ' * 100_000, "not JSON"),
    ],
)  # fmt: skip
def test_files_that_are_no_json_leave_nothing(file: str, complaint: str, store: Conversations) -> None:
    with pytest.raises((ApiError, UserError), match=complaint):
        take_in(store, "ada", file)
    assert all_of(store, "ada") == []


def test_an_import_is_whole_or_not_there(url: str, open_store: Open) -> None:
    store = open_store(url, conversations=3)
    made(store)
    with pytest.raises(ApiError, match="1 conversations are kept, and at most 3"):
        take_in(store, "ada", json.dumps([DIALOGUE] * 3))
    with pytest.raises(ApiError, match="the file holds more than 3 conversations"):
        take_in(store, "ada", json.dumps([1] * 4))
    assert len(all_of(store, "ada")) == 1
    assert take_in(store, "ada", json.dumps([DIALOGUE] * 2))["imported"] == 2


def test_a_conversation_with_too_many_messages_is_left_out(url: str, open_store: Open) -> None:
    result = take_in(open_store(url, nodes=1), "ada", json.dumps(DIALOGUE))
    assert (result["imported"], result["left_out"][0]["why"][:38]) == (0, "a conversation has at most 1 messages;")


def test_entries_are_read_one_by_one() -> None:
    reader = entries(f"[{json.dumps(DIALOGUE)}, broken")
    assert next(reader) == DIALOGUE
    with pytest.raises(ValueError):
        next(reader)
