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


def test_the_limit(tmp_path, tokenizer):
    assert shown(tmp_path, tokenizer, *[{"text": "soup"}] * 5, limit=2).count("document without source") == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": [TURNS[0], TURNS[0]]}, ["message 2 (user)", "expected assistant"]),
        ({"messages": [{"role": "user", "content": "[INST] hi"}]}, ["message 1 (user)", "[INST]"]),
        ({**PAIR, "rejected": "oslo"}, ["equal"]),
        ({"prompt": "hi"}, ['"messages"', "prompt"]),
    ],
)
def test_problems_are_one_line_with_file_and_line(tmp_path, tokenizer, row, words):
    with pytest.raises(UserError) as caught:
        shown(tmp_path, tokenizer, {"text": "soup"}, row)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in ["rows.jsonl line 2", *words])
