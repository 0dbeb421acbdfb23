from collections import Counter
from pathlib import Path

import pytest

from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows
from llamaherd.stages import texts
from llamaherd.stages.texts import TextsConfig

SMALL = {
    "held_out": {"tinystories": 0.1, "c4": 0.2, "wikipedia": 0.1},
    "most_groups": 30,
    "most_dialogues": 40,
    "safety_demonstrations": 20,
}


def test_documents_held_out_ones_and_dialogues(data: Path, tmp_path: Path) -> None:
    artifact = texts.run(build(TextsConfig, {**SMALL, "data": str(data)}), tmp_path / "texts", 3)
    trained, held, dialogues = (
        [row for _, row in read_rows(tmp_path / "texts" / f"{name}.jsonl")] for name in ("documents", "held-out", "demonstrations")
    )
    assert Counter(row["source"] for row in trained) == artifact.metrics["sources"]
    assert Counter(row["source"] for row in held) == artifact.metrics["held_out"]
    assert set(artifact.metrics["sources"]) == set(artifact.metrics["held_out"]) == set(SMALL["held_out"])  # type: ignore[call-overload]
    assert not {row["text"] for row in trained} & {row["text"] for row in held}
    assert len(dialogues) == 40
    assert "documents" in texts.headline(artifact)
    assert "too long" in texts.headline(artifact)
    again = texts.run(build(TextsConfig, {**SMALL, "data": str(data)}), tmp_path / "again", 3)
    for name in ("documents", "held-out", "demonstrations"):
        assert (again.path / f"{name}.jsonl").read_bytes() == (artifact.path / f"{name}.jsonl").read_bytes()


def test_a_folder_without_the_files_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="public files are absent"):
        texts.run(build(TextsConfig, {"data": str(tmp_path / "data")}), tmp_path / "texts", 0)
    assert not (tmp_path / "texts").exists()


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ConfigError, match="no source newspapers; expected some of novels"):
        build(TextsConfig, {"held_out": {"newspapers": 0.1}})
