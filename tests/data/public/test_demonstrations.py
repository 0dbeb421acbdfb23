import json
from pathlib import Path

from llamaherd.data.public.demonstrations import LLAMA, SAFETY, SEED_TASKS, demonstrations


def written(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_is_taken_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    files = {
        "plain": written(
            tmp_path / "a.jsonl", {"instruction": "Say hi.", "input": "", "output": "Hi."}, {"instruction": "x" * 90, "output": "y" * 20},
            {"instruction": "Silent?", "output": " "},
        ),
        SEED_TASKS: written(
            tmp_path / "b.jsonl", {"instruction": "Add.", "instances": [{"input": "1 1", "output": "2"}, {"input": "2 2", "output": "4"}]}
        ),
        LLAMA: written(
            tmp_path / "c.jsonl", {"dataset": "vicuna", "instruction": "Tested.", "output": "No."},
            {"dataset": "koala", "instruction": "Why?", "output": "So."},
        ),
        SAFETY: written(tmp_path / "d.jsonl", *({"instruction": f"Harm {number}.", "input": "", "output": "I cannot."} for number in range(5))),
    }  # fmt: skip
    found, left_out = demonstrations(files, 2, 100, 0)
    asked = [row["messages"][0]["content"] for row in found]
    assert len(found) == 6
    assert sum(row.get("safety", False) for row in found) == 2
    assert {"Say hi.", "Why?"} < set(asked)
    assert "Tested." not in asked
    assert left_out == {"too long": 1, "breaks a rule of dialogues": 1, "safety, more than wanted": 3}
    assert demonstrations(files, 2, 100, 0)[0] == found
    assert demonstrations(files, 2, 100, 1)[0] != found
