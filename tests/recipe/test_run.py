"""What a run prints, and what it refuses. In the end of one everything of the recipe stands in its folder."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from llamaherd.core.artifacts import find_artifact, locked, open_artifact, resolve, versions
from llamaherd.core.config import ConfigError
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_json
from llamaherd.recipe.chain import chain
from llamaherd.recipe.config import load_recipe
from llamaherd.recipe.run import run_recipe


def silent(line: str) -> None:
    raise AssertionError(f"nothing was to be said: {line}")


@pytest.fixture
def recipe(finished_run):
    return load_recipe("tiny", [token for token in finished_run.command if "=" in token])


def test_every_step_prints_what_came_out_a_sample_and_the_time_left(finished_run, recipe):
    lines = finished_run.printed.splitlines()
    steps = chain(recipe, finished_run.folder)
    seen = []
    for number, line in enumerate(lines[: len(steps)], 1):
        told = re.fullmatch(rf"\[ ?{number}/{len(steps)}\] +\d+:\d\d left  (\S+) +\S.* \(\d+:\d\d\)  \|  (\S.*)", line)
        assert told, line
        seen.append(told[1])
        if re.fullmatch(r"v\d(-rejection)?", told[1]):
            assert re.fullmatch(rf'{told[1]}: ".+" -> ".*"', told[2])
    assert sorted(seen) == sorted(step.name for step in steps)
    table = lines[len(steps) :]
    assert [line.split()[0] for line in table if re.match(r"v\d", line)] == ["v0", "v1", "v2", "v3", "v4", "v5"]
    assert table[-1] == f"report: {finished_run.folder / 'report.html'}"


def test_the_folder_holds_every_artifact_of_the_chain_and_nothing_unfinished(finished_run, recipe):
    for step in chain(recipe, finished_run.folder):
        artifact = open_artifact(finished_run.folder / step.name)
        assert artifact.manifest["stage"] == step.stage
    others = {path.name for path in finished_run.folder.iterdir() if not path.is_dir()}
    assert others == {"lock", "recipe.json", "report.html", "seconds.json", "summary.json"}
    assert versions(finished_run.folder) == ["v0", "v1", "v2", "v3", "v4", "v5"]
    assert resolve(finished_run.folder).name == "v5"


def test_the_summary_has_plain_numbers_and_intervals(finished_run):
    summary = read_json(finished_run.folder / "summary.json")
    assert summary["seed"] == 0
    in_stages = sum(stage["seconds"] for stage in summary["stages"])
    assert in_stages / 2 < summary["seconds"] < in_stages + 60, "two steps run side by side"
    assert [version["name"] for version in summary["versions"]] == ["v0", "v1", "v2", "v3", "v4", "v5"]
    for version in summary["versions"]:
        for key in ("helpfulness", "violation_rate", "false_refusal_rate"):
            assert version[key]["low"] <= version[key]["value"] <= version[key]["high"]
            assert version[key]["n"] > 0
    assert {effect["shown"] for effect in summary["effects"]} <= {"shown", "not shown", "undecided"}
    html = (finished_run.folder / "report.html").read_text("utf-8")
    assert not re.search(r'(src|href)="https?://', html)


def test_a_finished_run_says_so_within_a_second_and_without_torch(finished_run, busy_seconds):
    code = "import sys\nfrom llamaherd.cli import main\nmain(sys.argv[1:])\nsys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    command = [sys.executable, "-c", code, *finished_run.command[3:], "--out", str(finished_run.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{finished_run.folder} is finished (")
    assert 0 < min(busy_seconds(command) for _ in range(5)) < 1


def test_other_settings_are_refused_by_name(finished_run, recipe):
    other = recipe.model_copy(update={"seed": 3, "pretrain": recipe.pretrain.model_copy(update={"steps": 77})})
    expected = f"with other settings.*\n  pretrain.steps: was {recipe.pretrain.steps}, is now 77\n  seed: was 0, is now 3$"
    with pytest.raises(UserError, match=expected):
        run_recipe(other, finished_run.folder, silent)


def test_two_runs_in_one_folder(recipe, tmp_path):
    out = tmp_path / "run"
    with locked(out / "lock", "the first"), pytest.raises(UserError, match="in use by another llamaherd process"):
        run_recipe(recipe, out, silent)
    assert [path.name for path in out.iterdir()] == ["lock"]


def test_a_folder_that_is_no_run(recipe, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run of a recipe"):
        run_recipe(recipe, tmp_path, silent)
    with pytest.raises(UserError, match="is a file; --out takes a folder"):
        run_recipe(recipe, tmp_path / "thesis.txt", silent)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_kill_in_the_first_moment_does_not_make_the_folder_another_ones(recipe, tmp_path):
    for name in ("lock", ".recipe.json.123"):
        (tmp_path / name).touch()
    with locked(tmp_path / "lock", "the first"), pytest.raises(UserError, match="in use by another"):
        run_recipe(recipe, tmp_path, silent)


def test_what_cannot_work_together_is_listed_before_anything_is_written(tmp_path):
    recipe = load_recipe("tiny", ["--sft.row_tokens=9999", "--evaluate.people_prompts=9999"])
    with pytest.raises(ConfigError, match="2 problems in the settings"):
        run_recipe(recipe, tmp_path / "out", silent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "other bytes"])
def test_a_damaged_artifact_is_named(finished_run, recipe, tmp_path, damage):
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    for name in ("v5-evaluation", "summary.json"):
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    file = run / "v5" / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:1000] if damage == "cut" else b"\xff" * 64 + content[64:])
    with pytest.raises(UserError, match=r"v5.model\.safetensors: damaged or not safetensors"):
        run_recipe(recipe, run, silent)
    assert find_artifact(run / "v5-evaluation") is None


def test_a_damaged_manifest_is_named(finished_run, recipe, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    (run / "summary.json").unlink()
    (run / "v0" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"v0.manifest\.json: not JSON"):
        run_recipe(recipe, run, silent)


def test_how_many_steps_run_side_by_side_is_no_other_run(finished_run, recipe):
    said = []
    run_recipe(recipe.model_copy(update={"workers": 7, "co2_g_per_kwh": 30.0}), finished_run.folder, said.append)
    assert "is finished" in said[0]


def test_the_recipe_in_the_folder_is_the_resolved_one(finished_run, recipe):
    assert json.loads((finished_run.folder / "recipe.json").read_text("utf-8")) == recipe.model_dump(mode="json")
