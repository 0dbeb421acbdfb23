"""Files of comparisons: what rows become, what is refused or counted, and forged control tokens."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from llamaherd.chat.dialogue import TAGS
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_rows
from llamaherd.data.importers import BadRows
from llamaherd.data.preference_forms import FORMS
from llamaherd.data.preferences import OWN, Counts, comparisons_of, form_of, read_comparisons
from llamaherd.data.records import BadPreference, Preference

Row = dict[str, Any]
OURS: Row = {
    "messages": [{"role": "user", "content": "Hi"}],
    "chosen": "Hello!",
    "rejected": "Go.",
    "domain": "safety",
    "source": "desk",
    "batch": "1",
}
PLAIN: Row = {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go."}
TIE: Row = {**PLAIN, "score_chosen": 1, "score_rejected": 1}


def read(path: Path, bad_rows: BadRows | None = None, **about: str) -> tuple[list[Preference], Counts]:
    counts = Counts()
    return list(read_comparisons(path, "helpfulness", counts, bad_rows, **about)), counts


def test_forms_may_be_mixed_and_what_a_row_states_stands(tmp_path: Path) -> None:
    stateless = {key: value for key, value in OURS.items() if key not in ("domain", "source", "batch")}
    write_rows(tmp_path / "mine.v2.jsonl", [OURS, PLAIN, stateless, TIE, {**PLAIN, "source": "web"}])
    found, counts = read(tmp_path / "mine.v2.jsonl")
    assert [(one.domain, one.source, one.batch) for one in found] == [
        ("safety", "desk", "1"), ("helpfulness", "mine", None), ("helpfulness", "", None), ("helpfulness", "web", None),
    ]  # fmt: skip
    assert (dict(counts.rows), counts.comparisons, dict(counts.left_out)) == ({OWN: 2, "TRL": 3}, 4, {"tie": 1})
    named, _ = read(tmp_path / "mine.v2.jsonl", source="a", batch="b")
    assert {(one.source, one.batch) for one in named} == {("a", "b")}
    assert [one.domain for one in named] == ["safety", *["helpfulness"] * 3]


@pytest.mark.parametrize(
    ("row", "bad_rows", "refused"),
    [
        ({**OURS, "rejected": "Hello!"}, None, True), ({**OURS, "rejected": "Hello!"}, "refuse", True),
        ({**OURS, "rejected": "Hello!"}, "leave out", False), ({**OURS, "grade": "much"}, "leave out", False),
        (TIE, None, False), (TIE, "leave out", False), (TIE, "refuse", True), ({**PLAIN, "chosen": ""}, "refuse", True),
        ({**PLAIN, "chosen": "[INST]"}, None, False), ({**PLAIN, "chosen": "[INST]"}, "refuse", True),
    ],
)  # fmt: skip
def test_bad_rows_are_refused_or_counted(tmp_path: Path, row: Row, bad_rows: BadRows | None, refused: bool) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, [OURS, row, PLAIN])
    if refused:
        with pytest.raises(BadPreference, match=r"rows.jsonl line 2[: ]"):
            read(file, bad_rows)
        return
    found, counts = read(file, bad_rows)
    assert (len(found), counts.comparisons, counts.left_out.total()) == (2, 2, 1)


def test_the_row_is_named_as_its_file_counts(tmp_path: Path) -> None:
    rows = [PLAIN, {**PLAIN, "chosen": "Go."}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    for name in ("rows.parquet", "rows.json"):
        with pytest.raises(BadPreference, match=f"{name} row 2: chosen and rejected answers are equal"):
            read(tmp_path / name, "refuse")
        found, counts = read(tmp_path / name)
        assert (len(found), dict(counts.left_out)) == (1, {"equal answers": 1})


WRONG: list[tuple[Row, str]] = [
    ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}, "is a dialogue (messages)"),
    ({"messages": [{"role": "user", "content": "Hi"}], "safety": True}, "is a prompt (messages, safety)"),
    ({"text": "Once upon a time.", "source": "web"}, "is a document (text, source)"),
    ({"instruction": "Hi", "output": "Ho"}, "is a dialogue (instruction, output)"),
    ({"info": {}, "summary": {"text": "x", "axes": {}}}, "is a row (info, summary)"),
    ({}, "is a row (no field)"),
]


@pytest.mark.parametrize(("row", "what"), WRONG)
@pytest.mark.parametrize("bad_rows", [None, "leave out"])
def test_a_file_of_another_kind_is_named_with_what_was_expected(tmp_path: Path, row: Row, what: str, bad_rows: BadRows | None) -> None:
    write_rows(tmp_path / "rows.jsonl", [row])
    assert form_of(row) is None
    with pytest.raises(UserError) as caught:
        read(tmp_path / "rows.jsonl", bad_rows)
    assert str(caught.value).startswith(f"{tmp_path}/rows.jsonl line 1: {what}; expected a comparison: messages with chosen and rejected")


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("place", ["Hi", "Hello!", "Go."])
def test_a_template_tag_in_any_text_is_counted_or_refused(tmp_path: Path, tag: str, place: str) -> None:
    """Pain 20: whoever writes the texts of comparisons does not write turns."""
    rows = [json.loads(json.dumps(row).replace(place, f"{place} {tag}")) for row in (PLAIN, hh("Hi", "Hello!", "Go."), OURS)]
    for row in rows:
        write_rows(tmp_path / "rows.jsonl", [row])
        _, counts = read(tmp_path / "rows.jsonl", "leave out")
        assert (counts.comparisons, dict(counts.left_out)) == (0, {"template tag": 1})
        with pytest.raises(BadPreference, match="would forge a turn"):
            read(tmp_path / "rows.jsonl", "refuse")


def hh(asked: str, chosen: str, rejected: str) -> Row:
    return {key: f"\n\nHuman: {asked}\n\nAssistant: {answer}" for key, answer in (("chosen", chosen), ("rejected", rejected))}


DOCS = Path(__file__).parents[2] / "docs" / "preferences.md"


def documented() -> dict[str, list[Row]]:
    """The example rows under each heading of the page."""
    sections = DOCS.read_text("utf-8").split("\n### ")[1:]
    blocks = {section.split("\n")[0]: section.split("```json\n")[1:] for section in sections}
    return {name: [json.loads(block.split("```")[0]) for block in found] for name, found in blocks.items()}


def test_the_page_has_an_example_of_every_form_that_reads_as_it_says() -> None:
    assert set(documented()) == {OWN, *(form.name for form in FORMS)}
    for name, rows in documented().items():
        assert rows, name
        for row in rows:
            assert form_of(row) == name
            assert any(isinstance(one, Preference) for one in comparisons_of(row, name, "helpfulness")), name
