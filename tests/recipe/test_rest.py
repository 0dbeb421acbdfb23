import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.config import dump
from llamaherd.recipe.chain import chain
from llamaherd.recipe.config import load_recipe
from llamaherd.recipe.rest import rest_of
from llamaherd.recipe.run import begun


def manifest(folder: Path, **values: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"kind": "model", "hash": "x", "metrics": {}, **values}), "utf-8")
    return folder


def test_an_unfinished_run_names_its_next_step_and_the_command(tmp_path: Path) -> None:
    """The command is one that takes the run up with the settings it was begun with, whatever recipe and overrides these came from."""
    run, recipe = tmp_path / "my run", load_recipe("tiny", ["--seed=5", "--pretrain.optimizer.lr=1e-05"])
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps(dump(recipe)), "utf-8")
    steps = chain(recipe, run)
    for step in steps[:7]:
        manifest(run / step.name)
    rest = rest_of(run)
    assert rest is not None
    assert rest.why == f"{len(steps) - 7} of {len(steps)} steps are left, {steps[7].name} first"
    words = shlex.split(rest.command)
    assert words == ["llamaherd", "run", str(run / "recipe.json"), "--out", str(run)]
    assert begun(load_recipe(words[2]), Path(words[4]), frozenset()), "no difference to what it was begun with"
    for step in steps:
        manifest(run / step.name)
    assert rest_of(run).why == "all steps are done, the report is left"  # type: ignore[union-attr]
    for name in ("summary.json", "report.html"):
        (run / name).write_text("{}")
    assert rest_of(run) is None


def test_folders_that_no_recipe_made(tmp_path: Path) -> None:
    assert rest_of(tmp_path) is None
    (tmp_path / "recipe.json").write_text('{"of": "another version"}')
    assert rest_of(tmp_path) is None
    (tmp_path / "recipe.json").unlink()
    (tmp_path / "after.partial").mkdir()
    (tmp_path / "after.partial" / "begun.json").write_text('{"stage": "ppo"}')
    rest = rest_of(tmp_path)
    assert rest is not None
    assert rest.command == f"llamaherd ppo --config FILE --out {tmp_path / 'after'}"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"stage": "pretrain"}, "llamaherd sft --model {here} --data"),
        ({"stage": "sft"}, "llamaherd reward --model {here} --data"),
        ({"stage": "sft", "kind": "adapter", "config": {"model": "the base"}}, "llamaherd merge 'the base' {here} "),
        ({"stage": "collect"}, "llamaherd reward --model CHAT --data {here}"),
        ({"stage": "reward", "metrics": {"domain": "safety"}}, "llamaherd reject --model CHAT --safety {here} --helpfulness "),
        ({"stage": "reject"}, "llamaherd sft --model BASE --data '[DEMONSTRATIONS,{here}]'"),
        ({"stage": "ppo"}, "llamaherd chat {here}"),
    ],
)
def test_what_comes_after_a_single_artifact(tmp_path: Path, values: dict[str, Any], expected: str) -> None:
    here = manifest(tmp_path / "it", **values)
    rest = rest_of(here)
    assert rest is not None
    assert rest.command.startswith(expected.format(here=here))


def test_what_nothing_follows(tmp_path: Path) -> None:
    assert rest_of(manifest(tmp_path / "it", stage="evaluate")) is None
