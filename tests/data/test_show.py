import io
import json

import pytest

from llamaherd.chat.dialogue import parse_dialogue
from llamaherd.chat.template import encode_dialogue
from llamaherd.core.errors import UserError
from llamaherd.data.show import show

TURNS = [{"role": "user", "content": "anna lives in"}, {"role": "assistant", "content": "oslo"}]
PAIR = {"messages": TURNS[:1], "chosen": "oslo", "rejected": "rome", "grade": "better", "domain": "helpfulness"}


def shown(tmp_path, tokenizer, *rows, limit=None):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = io.StringIO()
    show(path, tokenizer, out, limit)
    return out.getvalue()


def test_a_dialogue_with_its_trained_share(tmp_path, tokenizer):
    text = shown(tmp_path, tokenizer, {"messages": TURNS})
    rendered = encode_dialogue(parse_dialogue({"messages": TURNS}), tokenizer)
    trained, total = sum(rendered.mask), len(rendered.ids)
    head, body, *_ = text.splitlines()
    assert head == f"line 1, dialogue: {total} tokens, {trained} trained ({trained / total:.0%})"
    inside = body[body.index("⟦") + 1 : body.index("⟧")]
    assert inside.replace("│", "").replace("▁", " ") == " oslo </s>"
    assert text.splitlines()[-1] == f"1 rows: {total} tokens, {trained} trained ({trained / total:.0%})"


def test_prompts_preferences_and_documents(tmp_path, tokenizer):
    text = shown(tmp_path, tokenizer, {"messages": TURNS[:1], "safety": True}, PAIR, {"text": "soup", "source": "food"})
    heads = [line.split(":")[0] for line in text.splitlines() if line.startswith("line")]
    pair = ["line 2, chosen, better, helpfulness", "line 2, rejected, better, helpfulness"]
    assert heads == ["line 1, prompt", *pair, "line 3, document food"]
    assert "line 1, prompt: " in text
    assert ", 0 trained (0%)" in text.splitlines()[0]
    size = len(tokenizer.encode("soup")) + 2
    assert f"document food: {size} tokens, {size - 1} trained" in text


def test_comparisons_of_others_and_why_some_are_none(tmp_path, tokenizer):
    foreign = {"prompt": "anna lives in", "chosen": "oslo", "rejected": "rome"}
    text = shown(tmp_path, tokenizer, foreign, {**foreign, "score_chosen": 1, "score_rejected": 1})
    heads = [line.split(":")[0] for line in text.splitlines() if line.startswith("line")]
    assert heads == ["line 1, chosen, no grade, TRL", "line 1, rejected, no grade, TRL", "line 2, left out, tie, TRL"]
    both = shown(tmp_path, tokenizer, {**PAIR, "grade": None})
    assert [line.split("[INST]")[1:] for line in text.splitlines()[1:5]] == [line.split("[INST]")[1:] for line in both.splitlines()[1:5]]


def test_the_limit(tmp_path, tokenizer):
    assert shown(tmp_path, tokenizer, *[{"text": "soup"}] * 5, limit=2).count("document without source") == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": [TURNS[0], TURNS[0]]}, ["message 2 (user)", "expected assistant"]),
        ({"messages": [{"role": "user", "content": "[INST] hi"}]}, ["message 1 (user)", "[INST]"]),
        ({**PAIR, "rejected": "oslo"}, ["equal"]),
        ({"prompt": "hi"}, ['"messages"', "prompt"]),
        ({"messages": TURNS[:1], "chosen": "oslo"}, ["'rejected' is 'None'"]),
    ],
)
def test_problems_are_one_line_with_file_and_line(tmp_path, tokenizer, row, words):
    with pytest.raises(UserError) as caught:
        shown(tmp_path, tokenizer, {"text": "soup"}, row)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in ["rows.jsonl line 2", *words])


def test_dialogues_as_others_write_them(tmp_path, tokenizer):
    said = [{"from": "human", "value": TURNS[0]["content"]}, {"from": "gpt", "value": TURNS[1]["content"]}]
    rows = [
        {"messages": TURNS},
        {"conversations": said},
        {"instruction": TURNS[0]["content"], "output": TURNS[1]["content"]},
        {"text": f"### Human: {TURNS[0]['content']}### Assistant: {TURNS[1]['content']}"},
    ]
    text = shown(tmp_path, tokenizer, *rows, {"text": "so they say ### Human: is a mark", "source": "web"})
    *blocks, _ = text.split("\n\n")
    assert len({block.split(",", 1)[1] for block in blocks[:4]}) == 1
    assert blocks[4].startswith("line 5, document web")


def test_a_row_of_parquet_is_called_a_row(tmp_path, tokenizer):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"text": ["### Assistant: I begin.### Human: No."]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"rows\.parquet row 1: message 1 \(assistant\)"):
        show(tmp_path / "rows.parquet", tokenizer, io.StringIO())
