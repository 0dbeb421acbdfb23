import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaherd.chat.dialogue import TAGS, Message, checked
from llamaherd.core.errors import UserError
from llamaherd.core.files import ROWS_SUFFIXES
from llamaherd.data.records import (
    DOMAINS,
    GRADES,
    BadPreference,
    Preference,
    parse_preference,
    parse_prompt,
    read_dialogues,
    read_preferences,
    read_prompts,
    rows_of,
    write_preferences,
)

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


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda text: text.strip() and not any(tag in text for tag in TAGS)
)
MAYBE = st.none() | TEXT


@st.composite
def preferences(draw):
    messages = [Message("system", draw(TEXT))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        messages += [Message("user", draw(TEXT)), Message("assistant", draw(TEXT))]
    chosen, rejected = draw(st.lists(TEXT, min_size=2, max_size=2, unique_by=str.strip))
    heat = st.none() | st.floats(0, 10)
    return Preference(
        checked([*messages, Message("user", draw(TEXT))], draw(st.sampled_from(["all", "last"]))), chosen, rejected,
        draw(st.sampled_from([*GRADES, None])), draw(st.sampled_from(DOMAINS)), *draw(st.tuples(*[st.sampled_from([True, False, None])] * 2)),
        draw(st.just("") | TEXT), draw(st.just("") | TEXT), draw(MAYBE), draw(MAYBE), draw(heat), draw(MAYBE), draw(heat),
    )  # fmt: skip


@settings(max_examples=10)
@given(st.lists(preferences(), min_size=1, max_size=4))
def test_every_dress_gives_back_what_was_written(tmp_path_factory, written):
    folder = tmp_path_factory.mktemp("dresses")
    for suffix in ROWS_SUFFIXES:
        path = folder / f"p{suffix}"
        assert write_preferences(path, iter(written)) == len(written)
        assert read_preferences(path) == written
    for suffix in ROWS_SUFFIXES:
        write_preferences(folder / f"again{suffix}", read_preferences(folder / "p.parquet"))
        assert (folder / f"again{suffix}").read_bytes() == (folder / f"p{suffix}").read_bytes(), "parquet equals JSON lines, to the byte"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}{suffix}" for name in ("p", "again") for suffix in ROWS_SUFFIXES
    )


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    def failing():
        yield parse_preference(PAIR)
        raise UserError("bad row")

    for suffix in ROWS_SUFFIXES:
        with pytest.raises(UserError, match="bad row"):
            write_preferences(tmp_path / f"p{suffix}", failing())
    with pytest.raises(UserError, match=r"p.csv: expected a name that ends in one of .jsonl, .jsonl.gz, .jsonl.zst, .parquet"):
        write_preferences(tmp_path / "p.csv", failing())
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_name_are_text_and_temperatures_are_numbers():
    read = parse_preference({**PAIR, "annotator": 7, "batch": 3, "chosen_model": 5, "chosen_temperature": 1})
    assert (read.annotator, read.batch, read.chosen_model, read.chosen_temperature) == ("7", "3", "5", 1.0)
    assert isinstance(read.chosen_temperature, float)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": None}, "empty answer"), ({"chosen": 5}, "malformed"), ({"rejected": "In Oslo. "}, "equal answers"),
        ({"chosen": "<<SYS>>"}, "template tag"), ({"messages": []}, "malformed"), ({"grade": ["better"]}, "malformed"),
        ({"source": ["web"]}, "malformed"), ({"annotator": True}, "malformed"), ({"chosen_temperature": -1}, "malformed"),
        ({"chosen_temperature": 10**400}, "malformed"),
    ],
)  # fmt: skip
def test_bad_preferences_say_what_to_count_them_under(change, reason):
    with pytest.raises(BadPreference, match="^here") as caught:
        parse_preference({**PAIR, **change}, "here")
    assert caught.value.reason == reason
