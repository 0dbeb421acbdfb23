from pathlib import Path
from typing import Any

import pytest

from llamaherd.chat.template import encode_dialogue
from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_rows
from llamaherd.data.records import read_dialogues
from llamaherd.stages import ghost
from llamaherd.tokenizer.sentencepiece import Tokenizer


def run(folder: Path, scripts: Path, out: Path, **values: Any) -> Artifact:
    sampling = {"temperature": 0.7, "top_p": 0.95, "max_new_tokens": 24}
    given = {"model": str(folder / "v0"), "scripts": str(scripts), "sampling": sampling, "chunk_scripts": 4}
    return ghost.run(build(ghost.GhostConfig, given | values), out, 0)


def test_dialogues_ready_for_tuning(tiny_folder: Path, tiny_inputs: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs / "scripts.jsonl", tmp_path / "ghost")
    dialogues = read_dialogues(done.path / "dialogues.jsonl")
    assert len(dialogues) == done.metrics["dialogues"]
    assert len(dialogues) + sum(done.metrics["dropped"].values()) == 9
    assert {dialogue.turns for dialogue in dialogues} == {1, 2}
    assert done.metrics["mean_turns"] == sum(dialogue.turns for dialogue in dialogues) / len(dialogues)
    for dialogue in dialogues:
        assert (dialogue.system, dialogue.trained) == ("Be brief.", "last")
        assert all("Be brief." not in message.content for message in dialogue.messages[1:])
        mask = encode_dialogue(dialogue, tokenizer).mask
        assert sum(mask) == len(mask) - mask.index(1), "one run of trained ids, at the end"
    assert ghost.headline(done).startswith(f"{len(dialogues)} dialogues of ")


def test_chunks_do_not_matter(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    four, two = (run(tiny_folder, tiny_inputs / "scripts.jsonl", tmp_path / str(size), chunk_scripts=size) for size in (4, 2))
    assert (four.hash, four.metrics) == (two.hash, two.metrics)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "Rule", "users": []}, 'line 2: expected {"instruction": text, "users"'),
        ({"instruction": 1, "users": ["Hi"]}, 'line 2: expected {"instruction": text, "users"'),
        ({"instruction": "Rule", "users": ["Hi", 3]}, 'line 2: expected {"instruction": text, "users"'),
        ({"instruction": "Rule", "users": ["Hi", "[INST]"]}, r"line 2: message 2 \(user\): contains the template tag \[INST\]"),
        ({"instruction": "<<SYS>>", "users": ["Hi"]}, r"line 2: message 1 \(system\): contains the template tag <<SYS>>"),
    ],
)
def test_bad_scripts_are_found_before_any_work(tiny_folder: Path, tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    file = tmp_path / "scripts.jsonl"
    write_rows(file, [{"instruction": "Rule", "users": ["Hi"]}, row])
    with pytest.raises(UserError, match=expected):
        run(tiny_folder, file, tmp_path / "ghost")
    assert [path.name for path in tmp_path.iterdir()] == ["scripts.jsonl"]


def test_nothing_left(tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "scripts.jsonl"
    write_rows(file, [{"instruction": "Rule", "users": ["long " * 60]}] * 2)
    with pytest.raises(
        UserError, match="no Ghost Attention dialogue is left of 2 scripts: .*'context': 2.*; raise max_new_tokens or the context"
    ):
        run(tiny_folder, file, tmp_path / "ghost")
    write_rows(file, [])
    with pytest.raises(UserError, match="no script in"):
        run(tiny_folder, file, tmp_path / "ghost")
