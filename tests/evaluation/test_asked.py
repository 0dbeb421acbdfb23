from pathlib import Path
from typing import Any

import pytest

from llamaherd.chat.dialogue import Dialogue
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_rows
from llamaherd.evaluation.asked import AskedFolder, asked_files, parse_check


def row(text: str, **about: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **about}


def script(name: str, instruction: str, *users: str, **about: Any) -> dict[str, Any]:
    return {"set": name, "instruction": instruction, "users": list(users), "check": {"kind": "mentions", "any": ["x"]}, **about}


def folder(place: Path, **rows: list[dict[str, Any]]) -> Path:
    for task, own in rows.items():
        write_rows(place / f"{task}.jsonl", own)
    return place


def fits(_: Dialogue, __: str) -> None:
    """Every prompt leaves room."""


def test_the_first_rows_are_asked_and_equal_ones_once(tmp_path: Path) -> None:
    rows = [row("a", kind="k"), row("b"), row("a", kind="other"), row("c"), row("d")]
    found = AskedFolder(folder(tmp_path, helpfulness=rows, borderline=rows[:1]), {"helpfulness": 3, "borderline": None}, fits)
    assert [prompt.dialogue.last.content for prompt in found.prompts("helpfulness")] == ["a", "b", "c"]
    assert found.prompts("helpfulness")[0].about == {"kind": "k"}
    assert found.counted == {"helpfulness": {"rows": 5, "equal": 1, "asked": 3}, "borderline": {"rows": 1, "equal": 0, "asked": 1}}
    assert len(found.all_prompts()) == 4


def test_prompts_of_safety_are_adversarial(tmp_path: Path) -> None:
    found = AskedFolder(folder(tmp_path, safety=[row("a"), row("b", safety=True, category="x")]), {"safety": 9}, fits)
    assert [(prompt.safety, prompt.about) for prompt in found.prompts("safety")] == [(True, {}), (True, {"category": "x"})]
    with pytest.raises(UserError, match=r'safety.jsonl line 2: "safety" is false; prompts of the task safety are adversarial'):
        AskedFolder(folder(tmp_path, safety=[row("a"), row("b", safety=False)]), {"safety": 1}, fits)


def test_scripts_by_set(tmp_path: Path) -> None:
    rows = [
        script("held_out", "Say x.", "Hi", "And?"), script("seen", "Say x.", "Hi"), script("held_out", "Say x.", "Hi", "And?"),
        script("held_out", "Say x!", "Hi"), script("held_out", "x?", "Hi"),
    ]  # fmt: skip
    found = AskedFolder(folder(tmp_path, ghost=rows), {"ghost": 2}, fits)
    assert {name: [one.instruction for one in scripts] for name, scripts in found.scripts().items()} == {
        "seen": ["Say x."], "held_out": ["Say x.", "Say x!"],
    }  # fmt: skip
    assert found.counted["ghost"] == {"rows": 5, "equal": 1, "asked": 3}
    first = found.scripts()["held_out"][0]
    assert (first.users, first.obeys("an X!"), first.obeys("ox")) == (("Hi", "And?"), True, False)


@pytest.mark.parametrize(
    ("check", "obeying", "not_obeying"),
    [
        ({"kind": "mentions", "any": ["Ada"]}, ["ADA!", "It is ada's.", "(Ada)"], ["Adam", "Nevada", "", "a d a"]),
        ({"kind": "mentions", "any": ["tea", "New  York"]}, ["green tea", "in new\nyork."], ["steam", "New Yorker", "York"]),
        ({"kind": "mentions", "any": ["caf\u00e9"]}, ["Caf\u0065\u0301 noir"], ["cafeteria", "cafe"]),
        ({"kind": "mentions", "any": ["c++"]}, ["I write C++."], ["c", "c+"]),
        ({"kind": "language", "code": "fr"}, ["Bonjour, je suis heureux de vous aider aujourd'hui."], ["Good morning, I am glad to help.", "", "!"]),
        ({"kind": "language", "code": "de"}, ["Ich helfe Ihnen heute gerne weiter, was ist Ihre Frage?"], ["Bonjour, comment allez-vous?"]),
    ],
)  # fmt: skip
def test_checks(check: Any, obeying: list[str], not_obeying: list[str]) -> None:
    obeys = parse_check(check, "here")
    assert [obeys(answer) for answer in obeying] == [True] * len(obeying)
    assert [obeys(answer) for answer in not_obeying] == [False] * len(not_obeying)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (None, '"check" is \'None\'; expected {"kind": "mentions"'), ({"kind": "mentions"}, '"check" is'), ({"kind": "mentions", "any": []}, "expected"),
        ({"kind": "mentions", "any": ["  "]}, "expected"), ({"kind": "mentions", "any": "tea"}, "expected"), ({"kind": "language"}, "expected"),
        ({"kind": "language", "code": "french"}, r"language 'french' is none of the \d+ that are told apart; expected a code such as fr"),
        ({"kind": "length"}, "expected"), ("mentions", "expected"),
    ],
)  # fmt: skip
def test_checks_that_say_nothing(check: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_check(check, "ghost.jsonl line 1")
    assert str(error.value).startswith("ghost.jsonl line 1: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"set": "unseen"}, "\"set\" is 'unseen'; expected seen or held_out"), ({"users": []}, 'expected {"instruction": text, "users"'),
        ({"users": ["Hi", ""]}, "is empty; a user message needs text"), ({"instruction": 3}, 'expected {"instruction"'),
        ({"instruction": "Say [INST]."}, r"template tag \[INST\]"), ({"check": {}}, '"check" is'),
    ],
)  # fmt: skip
def test_scripts_that_are_none(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder(tmp_path, ghost=[script("seen", "Say x.", "Hi"), {**script("seen", "Say x.", "Ho"), **change}])
    with pytest.raises(UserError) as error:
        AskedFolder(tmp_path, {"ghost": 1}, fits)
    assert str(error.value).startswith(f"{tmp_path / 'ghost.jsonl'} line 2")
    assert message.replace("\\", "") in str(error.value)


def test_missing_files_are_named_at_once(tmp_path: Path) -> None:
    folder(tmp_path, helpfulness=[row("a")], empty=[])
    with pytest.raises(UserError, match=r"holds no safety.jsonl and no ghost.jsonl; add .*, or ask for less: --tasks helpfulness$"):
        asked_files(tmp_path, ("helpfulness", "safety", "ghost"))
    with pytest.raises(UserError, match="none: no such folder; --asked takes one that holds safety.jsonl"):
        asked_files(tmp_path / "none", ("safety",))
    with pytest.raises(UserError, match=r"no row in .*empty.jsonl"):
        AskedFolder(tmp_path, {"empty": 1}, fits)


def test_only_what_is_asked_needs_room(tmp_path: Path) -> None:
    folder(tmp_path, helpfulness=[row("a"), row("b")], ghost=[script("seen", "Say x.", "Hi", "Ho")])
    asked: list[tuple[str, int]] = []
    AskedFolder(tmp_path, {"helpfulness": 1, "ghost": 1}, lambda dialogue, where: asked.append((Path(where).name, dialogue.turns)))
    assert asked == [("helpfulness.jsonl line 1", 1), ("ghost.jsonl line 1", 1)]
