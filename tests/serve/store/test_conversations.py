"""What is kept, for whom, and in what order; on SQLite and PostgreSQL."""

import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llamaherd.core.errors import UserError
from llamaherd.serve.errors import ApiError
from llamaherd.serve.store.conversations import Conversations, NewNode

Open = Callable[..., Conversations]


def new_id() -> str:
    return str(uuid.uuid4())


def made(store: Conversations, title: str = "", owner: str = "ada") -> str:
    return str(json.loads(store.create(owner, None, title, {}))["id"])


def said(store: Conversations, id: str, parent: str | None, role: str, content: str, owner: str = "ada", **more: Any) -> str:
    node = NewNode(new_id(), parent, role, content, **more)  # type: ignore[arg-type]
    return str(json.loads(store.add(owner, id, node))["id"])


def tree(store: Conversations, id: str, owner: str = "ada") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.get(owner, id))
    return found


def test_a_tree_comes_back_as_it_was_written(store: Conversations) -> None:
    id = made(store, "T")
    text = 'two\nlines, "quotes", ёлка 🦙, NUL \0 and \x1a, \x1a0 \x1a1'
    system = said(store, id, None, "system", "Be brief.")
    user = said(store, id, system, "user", text)
    one = said(store, id, user, "assistant", "A", model="m", meta={"tokens": [1, 2.5, None, "ü"], "nul": "\0"})
    two = said(store, id, user, "assistant", "B")
    found = tree(store, id)
    assert [node["id"] for node in found["nodes"]] == [system, user, one, two]
    assert [node["parent"] for node in found["nodes"]] == [None, system, user, user]
    assert found["nodes"][1]["content"] == text
    assert (found["nodes"][2]["model"], found["nodes"][2]["meta"]) == ("m", {"tokens": [1, 2.5, None, "ü"], "nul": "\0"})
    assert (found["title"], found["leaf"], found["settings"]) == ("T", two, {})
    assert found["created_s"] < found["updated_s"] == found["nodes"][-1]["created_s"]


def test_the_same_message_twice_is_one_and_another_under_its_id_is_refused(store: Conversations) -> None:
    id, node = made(store), NewNode(new_id(), None, "user", "Hi.")
    first = store.add("ada", id, node)
    assert store.add("ada", id, node) == first
    with pytest.raises(ApiError, match="another message") as refused:
        store.add("ada", id, NewNode(node.id, None, "user", "Ho."))
    assert refused.value.status == 409
    assert [one["content"] for one in tree(store, id)["nodes"]] == ["Hi."]


def test_the_same_conversation_twice_is_one(store: Conversations) -> None:
    id = new_id()
    first = store.create("ada", id, "T", {"a": 1})
    assert store.create("ada", id, "U", {}) == first
    assert json.loads(store.create("ben", id, "B", {}))["title"] == "B"
    assert tree(store, id)["title"] == "T"


@pytest.mark.parametrize(
    ("path", "role", "content", "complaint"),
    [
        ([], "assistant", "x", r"message 1 \(assistant\): expected system or user here"),
        (["user"], "user", "x", r"message 2 \(user\): expected assistant here"),
        (["user"], "system", "x", r"message 2 \(system\): expected assistant"),
        (["system"], "assistant", "x", r"message 2 \(assistant\): expected user"),
        (["user", "assistant"], "assistant", "x", r"message 3 \(assistant\): expected user"),
        (["user", "assistant"], "user", "a [INST] b", r"message 3 \(user\): contains the template tag \[INST\]"),
        (["user"], "assistant", "<<SYS>>", r"message 2 \(assistant\): contains the template tag <<SYS>>"),
        (["system"], "user", " \n", r"message 2 \(user\): is empty"),
        ([], "user", "\ud800", r"message 1 \(user\): contains a lone surrogate"),
        ([], "user", "x" * 31, "content: 31 characters; at most 30"),
    ],
)
def test_messages_follow_the_rules_of_dialogues(
    path: list[str], role: str, content: str, complaint: str, url: str, open_store: Open
) -> None:
    store = open_store(url, content_characters=30)
    id, parent = made(store), None
    for one in path:
        parent = said(store, id, parent, one, "text")
    with pytest.raises((ApiError, UserError), match=complaint):
        said(store, id, parent, role, content)
    assert len(tree(store, id)["nodes"]) == len(path)


def test_a_parent_is_of_the_same_conversation(store: Conversations) -> None:
    id, other = made(store), made(store)
    parent = said(store, other, None, "user", "Hi.")
    for wrong in (parent, new_id()):
        with pytest.raises(ApiError, match="parent: no such node"):
            said(store, id, wrong, "assistant", "x")


def test_another_users_conversations_are_not_there(store: Conversations) -> None:
    id = made(store, "secret")
    node = said(store, id, None, "user", "secret words")
    attempts: list[Callable[[], Any]] = [
        lambda: store.get("ben", id),
        lambda: store.change("ben", id, "mine", None, None),
        lambda: store.remove("ben", id),
        lambda: store.add("ben", id, NewNode(new_id(), node, "assistant", "x")),
        lambda: store.change_node("ben", id, node, "x", None),
        lambda: store.remove_node("ben", id, node),
        lambda: store.get("ada", new_id()),
        lambda: store.get("ada", "%00' OR 1=1 --"),
        lambda: store.get("ada", "a\0b"),
    ]
    for attempt in attempts:
        with pytest.raises(ApiError) as refused:
            attempt()
        assert refused.value.status == 404
    assert store.list("ben", "", 50, None)["data"] == store.list("ben", "secret", 50, None)["data"] == []
    assert tree(store, id)["title"] == "secret"


def test_changes(store: Conversations) -> None:
    id = made(store)
    user = said(store, id, None, "user", "Hi.")
    answer = said(store, id, user, "assistant", "cut", meta={"a": 1})
    before = tree(store, id)["updated_s"]
    head = json.loads(store.change("ada", id, "New", {"temperature": 0.5}, user))
    assert (head["title"], head["settings"], head["leaf"], head["updated_s"]) == ("New", {"temperature": 0.5}, user, before)
    assert json.loads(store.change("ada", id, None, None, None)) == head
    node = json.loads(store.change_node("ada", id, answer, "cut, and continued", None))
    assert (node["content"], node["meta"]) == ("cut, and continued", {"a": 1})
    assert json.loads(store.change_node("ada", id, answer, None, {"b": 2}))["meta"] == {"b": 2}
    assert tree(store, id)["updated_s"] > before
    assert store.list("ada", "continued", 50, None)["data"][0]["id"] == id
    with pytest.raises(ApiError, match="leaf: no such node"):
        store.change("ada", id, None, None, new_id())
    with pytest.raises(UserError, match=r"message 2 \(assistant\): contains the template tag"):
        store.change_node("ada", id, answer, "[/INST]", None)


def test_a_branch_goes_with_its_message(store: Conversations) -> None:
    id = made(store)
    user = said(store, id, None, "user", "Hi.")
    kept, gone = said(store, id, user, "assistant", "A"), said(store, id, user, "assistant", "B")
    below = said(store, id, gone, "user", "And?")
    said(store, id, below, "assistant", "C")
    assert json.loads(store.remove_node("ada", id, gone))["leaf"] == user
    assert [node["id"] for node in tree(store, id)["nodes"]] == [user, kept]
    store.remove_node("ada", id, user)
    assert tree(store, id)["nodes"] == []
    assert tree(store, id)["leaf"] is None
    store.remove("ada", id)
    assert store.list("ada", "", 50, None)["data"] == []


def test_a_path_of_thousands_is_read_and_deleted(store: Conversations) -> None:
    rows = [{"id": str(n), "parent": str(n - 1) if n else None, "role": ("user", "assistant")[n % 2], "content": "x"} for n in range(3000)]
    from llamaherd.serve.store.exchange import take_in

    assert take_in(store, "ada", json.dumps({"nodes": rows}))["imported"] == 1
    id = store.list("ada", "", 1, None)["data"][0]["id"]
    nodes = tree(store, id)["nodes"]
    assert len(nodes) == 3000
    store.remove_node("ada", id, nodes[1]["id"])
    assert len(tree(store, id)["nodes"]) == 1
    store.remove("ada", id)


def test_pages_of_a_list_hold_each_once_the_last_changed_first(store: Conversations) -> None:
    ids = [made(store, str(number)) for number in range(7)]
    said(store, ids[2], None, "user", "Hi.")
    seen, place = [], None
    for _ in range(4):
        page = store.list("ada", "", 2, place)
        seen += [one["id"] for one in page["data"]]
        place = page["next"]
    assert seen == [ids[2], *[id for id in reversed(ids) if id != ids[2]]]
    assert place is None
    for wrong in ("x", "1", "1_x", "nan_1", "1_2_3", "1_9" + "9" * 40):
        with pytest.raises(ApiError, match="before: not a place"):
            store.list("ada", "", 2, wrong)


@pytest.mark.parametrize(
    ("text", "query", "hit"),
    [
        ("In der Straße", "STRASSE", "Straße"), ("Нарядная ёлка", "ЁЛКА", "ёлка"), ("Οδυσσέας", "ΟΔΥΣΣΈΑΣ", "Οδυσσέας"),
        ("這是一個故事", "故事", "故事"), ("cafe\u0301 noir", "CAFÉ", "café"), ("100 % sure", "0 %", "0 %"), ("snake_case", "E_C", "e_c"),
        ("a\\b", "\\", "\\"), ("tab\there", "B\tH", "b\th"), ("NUL \0!", "\0!", "\0!"),
    ],
)  # fmt: skip
def test_a_search_finds_any_script_whatever_its_case(text: str, query: str, hit: str, store: Conversations) -> None:
    id, other = made(store), made(store, "other")
    node = said(store, id, None, "user", f"{'before ' * 20}{text} behind")
    said(store, other, None, "user", "100 surely, snakeXcase")
    found = store.list("ada", query, 50, None)["data"]
    assert [one["id"] for one in found] == [id]
    place = found[0]["hit"]
    assert place["node"] == node
    assert found[0]["snippet"][place["start"] : place["start"] + place["length"]] == hit
    assert found[0]["snippet"].startswith("…")
    titled = made(store, text)
    assert [one["id"] for one in store.list("ada", query, 50, None)["data"]] == [titled, id]
    assert store.list("ada", query, 50, None)["data"][0]["snippet"] is None


def test_limits(url: str, open_store: Open) -> None:
    store = open_store(url, nodes=2, conversations=2, title_characters=5, meta_bytes=20)
    id = made(store)
    user = said(store, id, None, "user", "Hi.")
    said(store, id, user, "assistant", "A")
    deep: Any = {}
    for _ in range(5000):
        deep = {"a": deep}
    for problem, attempt in {
        "at most 2 messages": lambda: said(store, id, user, "assistant", "B"),
        "title: 6 characters; at most 5": lambda: store.change("ada", id, "123456", None, None),
        "settings: 2[0-9] bytes; at most 20": lambda: store.change("ada", id, None, {"a": "x" * 20}, None),
        "meta: holds what JSON cannot say": lambda: store.change_node("ada", id, user, None, {"a": float("nan")}),
        "meta: holds what": lambda: store.change_node("ada", id, user, None, {"a": "\udfff"}),
        "meta: .*nested too deep": lambda: store.change_node("ada", id, user, None, deep),
    }.items():
        with pytest.raises(ApiError, match=problem) as refused:
            attempt()
        assert refused.value.status == 400
    made(store)
    with pytest.raises(ApiError, match="2 conversations are kept, and at most 2 may be"):
        made(store)
    made(store, owner="ben")


def test_fifty_writers_at_once_lose_nothing(url: str, open_store: Open) -> None:
    """Two servers on one database, a double click on every message."""
    stores = [open_store(url), open_store(url)]
    shared = made(stores[0])
    root = said(stores[0], shared, None, "user", "Hi.")
    start = threading.Barrier(50)
    nodes = [NewNode(new_id(), root, "assistant", f"answer {number}") for number in range(25)]

    def write(number: int) -> None:
        start.wait()
        store = stores[number % 2]
        store.add("ada", shared, nodes[number // 2])  # each by both servers
        own = made(store, owner=f"user {number}")
        said(store, own, None, "user", str(number), owner=f"user {number}")

    with ThreadPoolExecutor(50) as threads:
        list(threads.map(write, range(50)))
    assert sorted(node["content"] for node in tree(stores[0], shared)["nodes"][1:]) == sorted(node.content for node in nodes)
    for number in range(50):
        found = stores[1].list(f"user {number}", "", 50, None)["data"]
        assert [node["content"] for node in tree(stores[1], found[0]["id"], f"user {number}")["nodes"]] == [str(number)]


def test_two_that_make_the_same_conversation_at_once_make_one(url: str, open_store: Open) -> None:
    stores, id = [open_store(url), open_store(url)], new_id()
    start = threading.Barrier(16)

    def create(number: int) -> str:
        start.wait()
        return stores[number % 2].create("ada", id, "T", {})

    with ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(create, range(16)))) == 1
    assert len(stores[0].list("ada", "", 50, None)["data"]) == 1


def test_a_place_far_beyond_the_list_is_a_place_too(store: Conversations) -> None:
    made(store, "One")
    for before, found in (("1e300_999999999999999999", 1), ("1e400_1", 1), ("0_0", 0), ("0.0_999999999999999999", 0)):
        assert len(store.list("ada", "", 10, before)["data"]) == found
