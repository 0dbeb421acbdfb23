import json

import pyarrow
import pyarrow.parquet
import pytest

from llamaherd.core.errors import UserError
from llamaherd.data.records import parse_preference, parse_prompt, read_dialogues, read_preferences, read_prompts, rows_of

ASKED = [{"role": "user", "content": "Where does Anna live?"}]
PAIR = {
    "messages": ASKED, "chosen": "In Oslo.", "rejected": "Go away.", "grade": "better", "domain": "safety",
    "chosen_safe": True, "rejected_safe": False,
}  # fmt: skip


def test_rows_survive_reading_and_writing(tmp_path):
    path = tmp_path / "rows.jsonl"
    for row, read in [
        ({"messages": [*ASKED, {"role": "assistant", "content": "In Oslo."}], "trained": "last"}, read_dialogues),
        ({"messages": ASKED, "safety": True, "kind": "city"}, read_prompts),
        ({**PAIR, "batch": "3", "chosen_model": "v1", "chosen_temperature": 0.7, "annotator": "a"}, read_preferences),
    ]:
        path.write_text(json.dumps(row) + "\n")
        (written,) = rows_of(read(path))
        assert {key: value for key, value in written.items() if value not in (None, "")} == row


def test_parquet_rows_lack_what_is_null_in_them(tmp_path):
    path = tmp_path / "rows.parquet"
    full = {"messages": ASKED, "trained": "last", "safety": True, "kind": "city", "source": "web"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([full, {"messages": ASKED}]), path)
    prompt = read_prompts(path)[1]
    assert (prompt.dialogue.trained, prompt.safety, prompt.about) == ("all", False, {})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**PAIR, "source": "web", "batch": "3"}, {**PAIR, "grade": None}]), path)
    assert read_preferences(path)[1] == parse_preference({**PAIR, "grade": None})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"chosen": " "}, "'chosen'"),
        ({"rejected": None}, "'rejected'"),
        ({"rejected": " In Oslo. "}, "equal"),
        ({"rejected": "[INST]"}, "[INST]"),
        ({"grade": "much"}, "'grade'"),
        ({"domain": None}, "'domain'"),
        ({"chosen_safe": 1}, "'chosen_safe'"),
        ({"chosen_safe": 1.0}, "'chosen_safe'"),
        ({"rejected_safe": "no"}, "'rejected_safe'"),
        ({"chosen_temperature": "hot"}, "'chosen_temperature'"),
        ({"rejected_temperature": True}, "'rejected_temperature'"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "Hm."}]}, "message 2 (assistant)"),
    ],
)
def test_bad_preferences_name_the_field(change, word):
    with pytest.raises(UserError) as caught:
        parse_preference({**PAIR, **change}, "here")
    assert str(caught.value).startswith("here")
    assert word in str(caught.value)


def test_safety_of_a_prompt_is_true_or_false():
    assert parse_prompt({"messages": ASKED}).safety is False
    assert parse_prompt({"messages": ASKED, "safety": None}).safety is False
    with pytest.raises(UserError, match='here: "safety" is 1'):
        parse_prompt({"messages": ASKED, "safety": 1}, "here")
