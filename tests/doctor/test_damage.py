"""Damaged folders: what is broken is a finding, and everything else is looked at all the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows
from llamaherd.core.metrics import read_metrics
from llamaherd.doctor.examine import examine

from .conftest import comparison, findings, said

Break = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, train_reward: Callable[..., Artifact]) -> Path:
    """Two reward models in a folder; the second learned from the first one's rows too."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    for name in ("first", "second"):
        train_reward(folder / name, [comparison(n, said(n, "Lima"), said(n, "Oslo")) for n in range(20)])
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda folder: cut(folder / "tested.jsonl"), "not JSON"),
        (lambda folder: cut(folder / "metrics.jsonl"), "ends in the middle of a line"),
        (lambda folder: (folder / "metrics.jsonl").write_bytes(b"\xff\xfe\x00\n"), "not UTF-8"),
        (lambda folder: (folder / "metrics.jsonl").write_text("[1]\n"), "no object with a step"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: not there any more"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "has no kind and hash"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
    ],
)  # fmt: skip
def test_one_damaged_folder_is_named_and_the_other_examined(whole: Path, tmp_path: Path, broken: Break, told: str) -> None:
    assert "damaged" not in findings(whole)
    shutil.copytree(whole, tmp_path / "run")
    broken(tmp_path / "run" / "second")
    [found] = findings(tmp_path / "run")["damaged"]
    assert found.artifact == "second"
    assert told in found.said
    checks = {one.check for one in examine(whole)[1] if one.artifact == "first"}
    assert {one.check for one in examine(tmp_path / "run")[1] if one.artifact == "first"} == checks


def test_rows_that_nobody_hashed(tmp_path: Path) -> None:
    """A file of one's own has no manifest."""
    file = tmp_path / "mine" / "preferences.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(comparison(0, "a", "b")) + '\n{"messages": [')
    [found] = findings(file.parent)["damaged"]
    assert "line 2: not JSON" in found.said
    with pytest.raises(UserError, match="line 2"):
        list(read_rows(file))


@pytest.mark.parametrize(("content", "told"), [(b"\xff\xfe\n", "not UTF-8"), (b"[1]\n", "no object"), (b'{"loss": 1}\n', "no object")])
def test_a_log_that_is_none(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_metrics(tmp_path / "metrics.jsonl")
