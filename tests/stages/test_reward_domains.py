"""A reward model is taken for what its manifest declares: no stage lets helpfulness stand in for safety."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.stages import distill, evaluate, judge, ppo, reject, reward, temperatures
from llamaherd.stages.common import declared_domain, reward_path


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("domains")
    for domain in ("helpfulness", "safety"):
        given = {"model": str(tiny_folder / "v0"), "data": str(tiny_inputs / "preferences.jsonl"), "domain": domain, "epochs": 0.1}
        reward.run(build(reward.RewardConfig, given), folder / f"{domain}-model", 0)
    return folder


def test_what_a_manifest_declares(made: Path, tiny_folder: Path) -> None:
    assert declared_domain(made / "safety-model") == "safety"
    assert reward_path(made / "safety-model", "safety") == made / "safety-model"
    assert declared_domain(tiny_folder / "safety") is None
    assert reward_path(tiny_folder / "safety", "helpfulness") == tiny_folder / "safety", "without a manifest it is taken as it is"


STAGES: dict[str, tuple[Callable[..., Artifact], Any, dict[str, str]]] = {
    "ppo": (ppo.run, ppo.PpoStageConfig, {"prompts": "prompts.jsonl"}),
    "reject": (reject.run, reject.RejectConfig, {"prompts": "prompts.jsonl"}),
    "distill": (distill.run, distill.DistillConfig, {"prompts": "distil.jsonl"}),
    "evaluate": (evaluate.run, evaluate.EvaluateConfig, {}),
    "temperatures": (temperatures.run, temperatures.TemperatureConfig, {}),
}


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_refuses_the_other_one_in_one_line(stage: str, made: Path, tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    run, settings, files = STAGES[stage]
    given = {"model": str(tiny_folder / "v0"), **{name: str(tiny_inputs / file) for name, file in files.items()}}
    swapped = {"helpfulness": str(tiny_folder / "helpfulness"), "safety": str(made / "helpfulness-model")}
    if stage == "distill":
        del swapped["helpfulness"]
    with pytest.raises(
        UserError, match=r"helpfulness-model: is a helpfulness reward model, as its manifest says; safety expects one that was"
    ) as error:
        run(build(settings, {**given, **swapped}), tmp_path / "out", 0)
    assert "\n" not in str(error.value)
    if stage != "distill":
        other = {"helpfulness": str(made / "safety-model"), "safety": str(tiny_folder / "safety")}
        with pytest.raises(UserError, match=r"safety-model: is a safety reward model, as its manifest says; helpfulness expects one"):
            run(build(settings, {**given, **other}), tmp_path / "out", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_judge_of_two_refuses_them_the_other_way_round(made: Path, tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    chat = str(tiny_folder / "v0")
    given = {"model": chat, "opponent": chat, "tasks": "win-rate", "prompts": str(tiny_inputs / "prompts.jsonl")}
    swapped = f"{made / 'safety-model'},{made / 'helpfulness-model'}"
    with pytest.raises(UserError, match=r"safety-model: is a safety reward model, as its manifest says; helpfulness expects one"):
        judge.run(build(judge.JudgeConfig, {**given, "judge": swapped}), tmp_path / "out", 0)
    assert list(tmp_path.iterdir()) == []
