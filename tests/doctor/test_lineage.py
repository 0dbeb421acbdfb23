import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact, building
from llamaherd.core.config import Config
from llamaherd.core.files import write_json, write_rows
from llamaherd.doctor.examine import examine
from llamaherd.measures.intervals import rate

from .conftest import absent, comparison, findings, rewrite, said

TrainReward = Callable[..., Artifact]
Sample = Callable[..., Artifact]


@pytest.fixture
def run(tmp_path: Path, train_reward: TrainReward, sample: Sample, tiny_folder: Path) -> Callable[..., Path]:
    """A folder in which reward models of answers of `answered` judge those of `v1`, made by the stages themselves."""

    def make(name: str, answered: str | None) -> Path:
        folder = tmp_path / name
        shutil.copytree(tiny_folder / "v0", folder / "v1")
        models: dict[str, Any] = {"chosen_model": answered, "rejected_model": answered and "v0-early"}
        rows = {
            domain: [comparison(number, said(number, "Lima"), said(number, "Oslo"), domain, **models) for number in range(20)]
            for domain in ("helpfulness", "safety")
        }
        judges = {domain: str(train_reward(folder / f"v1-{domain}", some, domain, epochs=1).path) for domain, some in rows.items()}
        sample(folder / "v2-samples", model=str(folder / "v1"), k=2, **judges)
        return folder

    return make


def test_reward_models_that_never_saw_the_models_answers_are_seen(run: Callable[..., Path]) -> None:
    stale, fresh, people = run("stale", "v0"), run("fresh", "v1"), run("people", None)
    found = findings(stale)["stale-preferences"]
    assert [one.artifact for one in found] == ["v2-samples (helpfulness)", "v2-samples (safety)"]
    assert "v1-helpfulness was trained on answers of v0, v0-early; it judges those of v1" in found[0].said
    assert "stale-preferences" not in findings(fresh)
    assert "stale-preferences" in absent(people), "comparisons that do not say who answered"
    shutil.move(stale, stale.with_name("moved"))
    assert "stale-preferences" in findings(stale.with_name("moved")), "inputs are found again beside what was made of them"


def test_reward_models_in_each_others_place_are_seen(run: Callable[..., Path]) -> None:
    folder = run("swapped", "v1")
    config = json.loads((folder / "v2-samples" / "manifest.json").read_text("utf-8"))["config"]
    swapped = {"helpfulness": config["safety"], "safety": config["helpfulness"]}
    rewrite(folder / "v2-samples", lambda manifest: manifest["config"].update(swapped))
    assert [one.said for one in findings(folder)["reward-domain"]] == [
        "v1-safety, trained on safety, is given as the helpfulness reward model",
        "v1-helpfulness, trained on helpfulness, is given as the safety reward model",
    ]


def test_ppo_may_start_from_what_was_tuned_on_the_answers_that_were_compared(run: Callable[..., Path], tmp_path: Path) -> None:
    """The paper's order: v1 is compared, its best answers tune v2-rejection, and PPO starts there."""
    folder = run("run", "v1")

    def manifest(name: str, stage: str, model: str, parents: dict[str, Any]) -> None:
        (folder / name).mkdir()
        config = {"model": f"run/{model}", "helpfulness": "run/v1-helpfulness", "safety": "run/v1-safety"}
        value = {"kind": "model", "stage": stage, "hash": name, "config": config, "metrics": {}, "parents": parents}
        (folder / name / "manifest.json").write_text(json.dumps(value), "utf-8")

    manifest("v2-rejection", "sft", "v1", {"v2-samples": {}})
    manifest("v2", "ppo", "v2-rejection", {})
    assert {one.state for one in examine(folder / "v2")[1] if one.check == "stale-preferences"} == {"healthy"}
    rewrite(folder / "v2-rejection", lambda value: value.update(parents={}))
    assert {one.state for one in examine(folder / "v2")[1] if one.check == "stale-preferences"} == {"wrong"}


def test_a_judge_that_nothing_is_tuned_by_and_its_verdicts_are_no_trouble(run: Callable[..., Path]) -> None:
    """A run on people's comparisons: they name no models, a further reward model judges, and versions are compared by it."""
    folder = run("people", None)
    before = set(findings(folder))
    shutil.copytree(folder / "v1-helpfulness", folder / "judge")
    with building(folder / "v1-wins", kind="evaluation", stage="judge", config=Config(), parents={}, seed=0) as place:
        write_json(place.folder / "evaluation.json", {"win_rate": rate(3, 4)})
    with building(folder / "comparisons", kind="preferences", stage="comparisons", config=Config(), parents={}, seed=0) as place:
        write_rows(place.folder / "judge.jsonl", [comparison(0, "Lima.", "Oslo.")])
    patient, _ = examine(folder)
    assert {"judge", "v1-wins", "comparisons"} <= set(patient.artifacts)
    assert not patient.damaged
    assert set(findings(folder)) == before


def test_inputs_that_changed_since_are_seen(run: Callable[..., Path]) -> None:
    folder = run("changed", "v1")
    assert "inputs-changed" not in findings(folder)
    rewrite(folder / "v1-safety", lambda manifest: manifest.update(hash="another"))
    [changed] = findings(folder)["inputs-changed"]
    assert (changed.artifact, changed.numbers["changed"]) == ("v2-samples", ["v1-safety"])


def test_a_version_that_lost_is_seen(tmp_path: Path) -> None:
    """Of 40 comparisons the newest won 10; where both answers are of one model there is nothing to win."""
    folder = tmp_path / "v2-preferences"
    folder.mkdir()
    sides = [("v1", "v0")] * 10 + [("v0", "v1")] * 30 + [("v1", "v1")] * 9
    rows = [
        comparison(number, said(number, "Lima"), said(number, "Oslo"), chosen_model=won, rejected_model=lost)
        for number, (won, lost) in enumerate(sides)
    ]
    (folder / "preferences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    config = {"newest": "run/v1", "previous": "run/v0"}
    manifest = {"kind": "preferences", "stage": "collect", "hash": "x", "config": config, "metrics": {}, "parents": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    lost = findings(folder)["regression"]
    assert [one.artifact for one in lost] == ["v2-preferences (all)", "v2-preferences (helpfulness)"]
    assert (lost[0].numbers["won"]["value"], lost[0].numbers["won"]["n"]) == (0.25, 40)
