"""docs/ppo.md names every setting with its default, and its commands work as they stand."""

import re
from pathlib import Path

import pytest
from tests.docs.pages import DOCS, commands

from llamaherd import cli
from llamaherd.core.config import describe
from llamaherd.core.metrics import read_metrics
from llamaherd.rlhf.config import PpoConfig

PAGE = (DOCS / "ppo.md").read_text("utf-8")


def test_every_setting_and_its_default() -> None:
    table = PAGE.partition("## Settings")[2].partition("###")[0]
    written = dict(re.findall(r"^\| `([\w.]+)` \| (\S+) \|", table, re.MULTILINE))
    assert written == {name.removeprefix("--").partition("=")[0]: default for name, default, _ in describe(PpoConfig)}


@pytest.mark.parametrize("command", commands(PAGE), ids=" ".join)
def test_commands(command: list[str], tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, place in (("v5-rejection", "v0"), ("v5-helpfulness", "helpfulness"), ("v5-safety", "safety"), ("open-reward", "safety")):
        (tmp_path / name).symlink_to(tiny_folder / place)
    for name, place in (("prompts", "prompts"), ("held-out", "harmless")):
        (tmp_path / f"{name}.jsonl").symlink_to(tiny_inputs / f"{place}.jsonl")
    program, *words = command
    assert program == "llamaherd"
    cut = ["--ppo.iterations=1", "--ppo.batch=12", "--ppo.mini_batch=4", "--ppo.max_new_tokens=24"]
    assert cli.main([*words, *cut]) in (0, None)
    out = words[words.index("--out") + 1]
    rows = read_metrics(tmp_path / out / "metrics.jsonl")
    keys = {key for row in rows for key in row}
    named = set(re.findall(r"`(ppo/\w+)`", PAGE))
    assert named - keys <= ({"ppo/held_out_guard"} if "--guard" not in words else set())
