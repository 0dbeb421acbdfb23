"""Dialogues as others write them: what becomes of each form, worked by hand, and of real files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from llamaherd.chat.dialogue import Dialogue
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_rows
from llamaherd.data.importers import as_dialogue, import_dialogues


def said(dialogue: Dialogue) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in dialogue.messages]


HELLO = [("user", "Hi"), ("assistant", "Hello!")]
FORMS: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "messages": ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}, HELLO),
    "sharegpt": ({"id": "7", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}, HELLO),
    "sharegpt, system turn": (
        {"conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]},
        [("system", "Be kind."), *HELLO],
    ),
    "sharegpt, system beside": (
        {"system": "Be kind.", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]},
        [("system", "Be kind."), *HELLO],
    ),
    "sharegpt with roles": ({"conversations": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}, HELLO),
    "alpaca": ({"instruction": "Add.", "input": "2 and 3", "output": "5"}, [("user", "Add.\n\n2 and 3"), ("assistant", "5")]),
    "alpaca, no input": ({"instruction": "Hi", "input": "", "output": "Hello!"}, HELLO),
    "alpaca, absent input": ({"instruction": "Hi", "output": "Hello!", "text": "### Instruction: Hi"}, HELLO),
    "alpaca, input alone": ({"instruction": "", "input": "Hi", "output": "Hello!"}, HELLO),
    "alpaca, history": (
        {"instruction": "More?", "output": "No.", "history": [["Hi", "Hello!"]], "system": "Be kind."},
        [("system", "Be kind."), *HELLO, ("user", "More?"), ("assistant", "No.")],
    ),
    "guanaco": ({"text": "### Human: Hi### Assistant: Hello!"}, HELLO),
    "guanaco, lines": (
        {"text": "### Human: Hi\n### Assistant: Hello!\n### Human: a\n\nb### Assistant:\nC: ### no turn"},
        [*HELLO, ("user", "a\n\nb"), ("assistant", "C: ### no turn")],
    ),
    "guanaco, text before": ({"text": "Be kind.\n\n### Human: Hi ### Assistant: Hello!\n"}, [("system", "Be kind."), *HELLO]),
}


@pytest.mark.parametrize(("row", "expected"), FORMS.values(), ids=FORMS)
def test_each_form(row: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert said(as_dialogue(row, "here")) == expected


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "Hi", "completion": "Hello!"}, "has prompt, completion; expected messages, conversations"),
    ({}, "has no field; expected messages"),
    ({"instruction": "Hi"}, "has an instruction and no output"),
    ({"instruction": ["Hi"], "output": "Hello!"}, r"instruction is \"\['Hi'\]\"; expected text"),
    ({"instruction": "Hi", "output": ""}, r"message 2 \(assistant\): is empty"),
    ({"instruction": " ", "output": "Hello!"}, r"message 1 \(user\): is empty"),
    ({"instruction": "Hi [INST]", "output": "Hello!"}, r"contains the template tag \[INST\]"),
    ({"instruction": "Hi", "output": "Hello!", "history": [["a"]]}, "history has"),
    ({"conversations": []}, "conversations is '\\[\\]'; expected a list"),
    ({"conversations": [{"from": "human", "value": "Hi"}]}, "a finished dialogue ends with an assistant message"),
    ({"conversations": [{"from": "gpt", "value": "Hello!"}, {"from": "human", "value": "Hi"}]}, "a finished dialogue|expected system or user"),
    ({"conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}, {"from": "gpt", "value": "c"}]}, "message 2 .user.: expected assistant"),
    ({"conversations": [{"from": "tool", "value": "a"}, {"from": "gpt", "value": "c"}]}, "message 1: expected .*human"),
    ({"conversations": ["Hi"]}, "message 1: expected .*got Hi"),
    ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": 3}]}, "message 2: expected"),
    ({"text": "Once upon a time."}, "text has no ### Human: or ### Assistant:"),
    ({"text": "### Human: Hi"}, "a finished dialogue ends with an assistant"),
    ({"text": "### Assistant: Hello!### Human: Hi### Assistant: So"}, "expected system or user here"),
    ({"text": "### Human: Hi### Assistant: <<SYS>>"}, "contains the template tag <<SYS>>"),
    ({"messages": [{"role": "user", "content": "Hi"}]}, "a finished dialogue ends with an assistant message"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "expected"), BAD)
def test_bad_rows_name_themselves(row: dict[str, Any], expected: str, tmp_path: Path) -> None:
    good, _ = FORMS["guanaco"]
    file = tmp_path / "rows.jsonl"
    write_rows(file, [good, row, good])
    with pytest.raises(UserError, match=expected) as found:
        import_dialogues(file)
    assert str(found.value).startswith(f"{file} line 2: ")
    assert "\n" not in str(found.value)
    imported = import_dialogues(file, "leave out")
    assert [said(dialogue) for dialogue, _ in imported.dialogues] == [HELLO, HELLO]
    assert imported.left_out == [str(found.value)]


def test_what_is_no_row_is_never_left_out(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "### Human: Hi### Assistant: Hello!"}\n[1, 2]\n')
    with pytest.raises(UserError, match="line 2: a JSON list; each line is one JSON object"):
        import_dialogues(file, "leave out")


def test_forms_may_be_mixed_and_come_in_any_file(tmp_path: Path) -> None:
    rows = [row for row, _ in FORMS.values()]
    expected = [turns for _, turns in FORMS.values()]
    write_rows(tmp_path / "rows.jsonl", rows)
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=2))
    (tmp_path / "lines.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    alpaca = [row for name, (row, _) in FORMS.items() if name.startswith("alpaca, no")] * 3
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(alpaca), tmp_path / "rows.parquet")
    for name in ("rows.jsonl", "rows.json", "lines.json"):
        assert [said(dialogue) for dialogue, _ in import_dialogues(tmp_path / name).dialogues] == expected
    assert [said(dialogue) for dialogue, _ in import_dialogues(tmp_path / "rows.parquet").dialogues] == [HELLO] * 3


def test_parquet_of_conversations_and_its_row_in_messages(tmp_path: Path) -> None:
    rows = [FORMS["sharegpt"][0], {"id": "8", "conversations": [{"from": "human", "value": "Hi"}]}]
    for name, write in (
        ("rows.parquet", lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)),
        ("rows.json", lambda path: path.write_text(json.dumps(rows))),
    ):
        write(tmp_path / name)
        with pytest.raises(UserError, match=rf"{name} row 2: message 1 \(user\)"):
            import_dialogues(tmp_path / name)


def test_damaged_lists(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    for text, expected in (
        ("[1]", "row 1: a JSON int; expected a list of objects"),
        ('[{"a": 1}', "not JSON"),
        ('[{"a": 1, "a": 2}]', "stands twice"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=expected):
            import_dialogues(file)


@pytest.mark.parametrize(
    ("name", "rows", "turns"),
    [
        ("instruction/alpaca_en_demo.jsonl.gz", 999, 1),
        ("instruction/instruction_1100.jsonl", 1100, 1),
        ("instruction/gpteacher_roleplay.jsonl.gz", 3146, 1),
        ("safety/safety_sft_instructions.jsonl.gz", 2483, 1),
        ("instruction/vicuna_dummy_conversations.jsonl.gz", 500, 3),
    ],
)
def test_real_files(public_data: Callable[[str], Path], name: str, rows: int, turns: int) -> None:
    found = import_dialogues(public_data(name))
    assert (len(found.dialogues), found.left_out) == (rows, [])
    assert max(dialogue.turns for dialogue, _ in found.dialogues) >= turns


def test_a_real_file_of_comparisons_is_no_file_of_dialogues(public_data: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match=r"line 1: is a comparison \(conversations, chosen, rejected\); expected a dialogue"):
        import_dialogues(public_data("preference/llamafactory_dpo_en_demo.jsonl.gz"))
