import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamaherd.chat.dialogue import parse_dialogue
from llamaherd.cli import main
from llamaherd.core.seeds import python_rng
from llamaherd.reward.model import RewardModel
from llamaherd.stages import score


@pytest.fixture
def reward_model(tiny_folder: Path) -> Path:
    return tiny_folder / "helpfulness"


def row(*turns: str, **about: Any) -> dict[str, Any]:
    return {**about, "messages": [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(turns)]}


def rows() -> list[dict[str, Any]]:
    """Dialogues of many lengths, of one and more turns."""
    rng = python_rng(0, "dialogues")
    words = ("Where", "does", "Ada", "live", "in", "Lima", "briefly", "☀")
    return [row(*(" ".join(rng.choices(words, k=rng.randint(1, 5))) for _ in range(rng.choice((2, 2, 4))))) for _ in range(23)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refused(capsys: pytest.CaptureFixture[str], model: Path, file: Path) -> str:
    """The one line of a command that prints no score at all."""
    with pytest.raises(SystemExit) as ended:
        main(["score", str(model), str(file)])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert printed.err.count("\n") == 1
    return printed.err


def test_lines_come_back_with_logit_and_its_sigmoid(reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [row("Où?", "Ici ☀.", id=7, score="old"), row("Where?", "Lima.", note=None)]
    main(["score", str(reward_model), str(write(tmp_path / "dialogues.jsonl", given))])
    printed = capsys.readouterr().out
    assert "Où?" in printed
    scored = [json.loads(line) for line in printed.splitlines()]
    assert [{**line, "score": None, "logit": None} for line in scored] == [{**line, "score": None, "logit": None} for line in given]
    assert len({line["logit"] for line in scored}) == 2
    for line in scored:
        assert line["score"] == pytest.approx(1 / (1 + math.exp(-line["logit"])))


def test_json_is_utf_8_whatever_the_terminal_is(reward_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    main(["score", str(reward_model), str(write(tmp_path / "dialogues.jsonl", [row("Où?", "Ici ☀.")]))])
    terminal.flush()
    assert json.loads(terminal.buffer.getvalue().decode())["messages"] == row("Où?", "Ici ☀.")["messages"]  # type: ignore[attr-defined]


def test_no_file_line_or_batch_changes_the_score_of_another(reward_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def logits(some: list[dict[str, Any]], batch_lines: int) -> list[float]:
        monkeypatch.setattr(score, "BATCH_LINES", batch_lines)
        return [json.loads(line)["logit"] for line in score.run(str(reward_model), write(tmp_path / "some.jsonl", some))]

    given = rows()
    whole = logits(given, 256)
    assert max(whole) - min(whole) > 0.1
    for batch_lines in (1, 2, 7, 23):
        assert logits(given, batch_lines) == pytest.approx(whole, rel=1e-5, abs=1e-5)
    assert logits(given[::-1], 5) == pytest.approx(whole[::-1], rel=1e-5, abs=1e-5)
    assert [logits([line], 1)[0] for line in given[:5]] == pytest.approx(whole[:5], rel=1e-5, abs=1e-5)


def test_no_batch_size_in_tokens_changes_a_score(reward_model: Path) -> None:
    model, dialogues = RewardModel.load(reward_model), [parse_dialogue(line) for line in rows()]
    whole = model.logits(dialogues)
    for batch_tokens in (1, 60, 200):
        assert model.logits(dialogues, batch_tokens) == pytest.approx(whole, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (row("Where?"), "line 24: message 1 (user): a finished dialogue ends with an assistant"),
        (row("Where?", "[INST]"), "line 24: message 2 (assistant): contains the template tag [INST]"),
        (row("Where?", "Lima " * 200), "tokens, and the reward model's context is 128; leave out earlier turns"),
        ({"text": "Lima"}, 'line 24: expected "messages"'),
    ],
)
def test_nothing_is_printed_when_the_last_line_is_bad(
    reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: dict[str, Any], expected: str
) -> None:
    assert expected in refused(capsys, reward_model, write(tmp_path / "dialogues.jsonl", [*rows(), bad]))


def test_a_chat_model_is_no_reward_model(scripted: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, scripted(), write(tmp_path / "dialogues.jsonl", rows()))
    assert "LlamaForCausalLM, expected LlamaForSequenceClassification (a reward model)" in line
