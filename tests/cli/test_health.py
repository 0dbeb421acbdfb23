"""`doctor` and `versions` as a user calls them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


def test_the_doctor_on_a_users_own_folder_and_its_artifacts(command: Any, workshop: Any) -> None:
    """Every artifact that the commands made, alone and together; what is wrong is said with exit code 1, and nothing else."""
    outcome = command("doctor", workshop.folder)
    told = json.loads(command("doctor", workshop.folder, "--json").out)
    assert outcome.code == int(not told["healthy"])
    assert outcome.err == ""
    assert told["counts"] == {
        state: sum(one["state"] == state for one in told["findings"]) for state in ("wrong", "not measured", "healthy")
    }
    assert set(told["counts"]) == {"wrong", "not measured", "healthy"}
    for one in told["findings"]:
        assert one["said"]
        assert one["state"] == "not measured" or (one["wanted"] and one["remedy"] and one["numbers"]), one
    assert {one["artifact"] for one in told["findings"]} >= {"chat", "help", "safe", "samples", "after-ppo"}
    for name in ("chat", "help", "after-ppo", "samples"):
        alone = json.loads(command("doctor", workshop.folder / name, "--json").out)
        assert {one["artifact"].partition(" ")[0] for one in alone["findings"]} == {name}
        assert alone["next"].startswith("llamaherd ")
    text = outcome.out
    for one in told["findings"]:
        assert (f"[{one['check']}]" in text) or one["state"] != "wrong"
    assert "not measured, and so not known to be healthy:" in text


def test_ppo_without_held_out_prompts_is_named_and_a_threshold_can_be_moved(command: Any, workshop: Any) -> None:
    outcome = command("doctor", workshop.folder / "after-ppo")
    assert outcome.code == 1
    assert "[leak]" in outcome.out
    assert "no held-out prompts were given" in outcome.out
    assert "wanted: prompts of their own (held_out)" in outcome.out
    strict = command("doctor", workshop.folder / "chat", "--fewest=2", "--everything")
    assert "healthy:" in strict.out


def test_help_lists_the_thresholds(command: Any) -> None:
    text = command("doctor", "--help").out
    assert "--kl_near=float" in text
    assert "[0.9]" in text


def test_what_cannot_be_examined(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refused("doctor", tmp_path / "empty").startswith(f"{tmp_path / 'empty'}: holds nothing that llamaherd made")
    assert "no such folder" in refused("doctor", tmp_path / "nowhere")
    assert refused("versions", tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'}: no such folder")
    assert refused("versions", tmp_path / "empty").startswith(f"{tmp_path / 'empty'}: holds no run")
    assert "did you mean 'kl_near'" in refused("doctor", tmp_path, "--kl_nearr=2")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    assert "not JSON" in refused("doctor", tmp_path / "broken")


def test_a_run_that_was_just_begun(command: Any, tmp_path: Path) -> None:
    from llamaherd.core.config import dump
    from llamaherd.recipe.config import load_recipe

    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps(dump(load_recipe("tiny"))))
    for words in (("doctor", run), ("versions", run)):
        outcome = command(*words)
        assert (outcome.code, outcome.err) == (0, "")
        assert f"next: llamaherd run {run / 'recipe.json'} --out {run}" in outcome.out
    assert "no version is finished yet" in command("versions", run).out
    assert command("versions", run, "--json").out == "[]\n"


@pytest.mark.slow
def test_a_whole_tiny_run(command: Any, finished_run: Any, tmp_path: Path) -> None:
    """What the doctor says of a run that learned nothing well is true: its answers are cut off at sixteen tokens, as its rows say."""
    told = json.loads(command("doctor", finished_run.folder, "--json").out)
    wrong = [one for one in told["findings"] if one["state"] == "wrong"]
    cut = [one for one in wrong if one["check"] == "answers-end" and one["artifact"].endswith("-samples")]
    for one in cut:
        metrics = json.loads((finished_run.folder / one["artifact"] / "manifest.json").read_text("utf-8"))["metrics"]
        assert one["numbers"]["unfinished"]["value"] == metrics["unusable"]["unfinished"] / metrics["candidates"]
    assert {one["state"] for one in told["findings"] if one["check"] in ("tuning-mask", "tuning-end", "tuning-template")} == {"healthy"}
    assert {one["state"] for one in told["findings"] if one["check"] in ("inputs-changed", "stale-preferences", "nan")} == {"healthy"}
    assert told["next"] is None
    listed = json.loads(command("versions", finished_run.folder, "--json").out)
    summary = json.loads((finished_run.folder / "summary.json").read_text("utf-8"))["versions"]
    assert [{key: one[key] for key in listed[0]} for one in summary] == listed
    assert [one["name"] for one in listed] == ["v0", "v1", "v2", "v3", "v4", "v5"]
    assert [one["name"] for one in listed[5]["trained"]] == ["v5-rejection", "v5"]
    assert [one["with"] for one in listed[5]["compared"]] == ["v4", "v5-rejection"]
    part = tmp_path / "part"
    shutil.copytree(finished_run.folder, part)
    shutil.rmtree(part / "v5")
    (part / "summary.json").unlink()
    assert f"next: llamaherd run {part / 'recipe.json'} --out {part}\n      (1 of " in command("doctor", part).out
