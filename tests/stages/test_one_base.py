"""Stages that sample and judge on one base: adapters give what they give by themselves, and a base in few bits takes their place."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llamaherd.assistant.local import Assistant
from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows
from llamaherd.data.records import read_prompts
from llamaherd.generate.config import SamplingConfig
from llamaherd.reward.model import RewardModel
from llamaherd.rlhf.roles import answering_on_one_base
from llamaherd.stages import curves, distill, ghost, pretrain, reject, reward, sft

LORA = {"r": 4, "alpha": 8}


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model and two reward models, all adapters on v0."""
    place = tmp_path_factory.mktemp("on-one-base")
    common = {"model": str(tiny_folder / "v0"), "lora": LORA, "optimizer": {"lr": 1e-2}}
    for domain in ("helpfulness", "safety"):
        given = common | {"data": str(tiny_inputs / "preferences.jsonl"), "domain": domain, "batch_pairs": 4, "test_share": 0.25}
        reward.run(build(reward.RewardConfig, given), place / domain, 0)
    sft.run(build(sft.SftConfig, common | {"data": str(tiny_inputs / "dialogues.jsonl"), "epochs": 1, "batch_rows": 2}), place / "chat", 0)
    return place


def test_they_are_what_they_are_by_themselves(made: Path, tiny_inputs: Path) -> None:
    together, judges = answering_on_one_base(made / "chat", [made / "helpfulness", made / "safety"], 32, torch.device("cpu"))
    alone = Assistant.load(made / "chat")
    prompts = [prompt.dialogue for prompt in read_prompts(tiny_inputs / "prompts.jsonl")]
    sampling = SamplingConfig(temperature=0, max_new_tokens=12)
    first, second = ([answer.text for answer in each.answers(prompts, sampling, range(len(prompts)))] for each in (together, alone))
    assert first == second
    assert together.name == alone.name
    dialogues = [prompt.followed_by("assistant", "Ada lives in Lima.") for prompt in prompts]
    for judge, name in zip(judges, ("helpfulness", "safety"), strict=True):
        assert judge.logits(dialogues) == pytest.approx(RewardModel.load(made / name).logits(dialogues), abs=1e-4)
    # Whoever judged last, it is the chat model's turn when it answers.
    assert [answer.text for answer in together.answers(prompts, sampling, range(len(prompts)))] == second


@pytest.mark.parametrize("bits", [16, 4])
def test_every_stage_that_samples_takes_it(made: Path, tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, bits: int) -> None:
    judges = {"helpfulness": str(made / "helpfulness"), "safety": str(made / "safety"), "bits": bits}
    prompts = {"prompts": str(tiny_inputs / "prompts.jsonl"), "max_new_tokens": 12}
    model = {"model": str(tiny_folder / "v0" if bits == 16 else made / "chat")}
    done = reject.run(build(reject.RejectConfig, model | judges | prompts | {"k": 4}), tmp_path / "samples", 0)
    assert done.metrics["candidates"] == 48
    assert all(row["answer"] for _, row in read_rows(done.path / "best.jsonl"))
    of_curves = {"samples": 2, "temperatures": [1.0]}
    assert curves.run(build(curves.CurvesConfig, model | judges | prompts | of_curves), tmp_path / "curves", 0).kind == "samples"
    safe = {"safety": judges["safety"], "bits": bits, "prompts": str(tiny_inputs / "distil.jsonl"), "sampling": {"max_new_tokens": 12}}
    assert distill.run(build(distill.DistillConfig, model | safe), tmp_path / "distilled", 0).metrics["harmless"] == 0
    scripts = {"bits": bits, "scripts": str(tiny_inputs / "scripts.jsonl"), "sampling": {"max_new_tokens": 12}}
    assert ghost.run(build(ghost.GhostConfig, model | scripts), tmp_path / "ghost", 0).metrics["dialogues"] > 0


def test_reward_models_of_another_base_are_refused(made: Path, tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    given = {
        "model": str(tiny_folder / "v0-early"), "helpfulness": str(made / "helpfulness"), "safety": str(made / "safety"), "bits": 16,
        "prompts": str(tiny_inputs / "prompts.jsonl"),
    }  # fmt: skip
    with pytest.raises(UserError, match="another model; give that base"):
        reject.run(build(reject.RejectConfig, given), tmp_path / "samples", 0)
    assert not (tmp_path / "samples").exists()


def test_checkpointing_changes_no_weight(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    def weights(name: str, **more: Any) -> tuple[Artifact, Artifact]:
        given = {
            "model": str(tiny_folder / "v0"), "data": str(tiny_inputs / "preferences.jsonl"), "domain": "safety", "batch_pairs": 4,
            "lora": LORA, "test_share": 0.25,
        }  # fmt: skip
        judge = reward.run(build(reward.RewardConfig, given | more), tmp_path / f"{name}-judge", 0)
        shape = {"shards": str(tiny_inputs / "shards"), "model": "tiny", "steps": 3, "row_tokens": 32, "optimizer": {"warmup_steps": 1}}
        return judge, pretrain.run(build(pretrain.PretrainConfig, shape | more), tmp_path / f"{name}-base", 0)

    for plain, again in zip(weights("plain"), weights("again", checkpointing=True), strict=True):
        files = [name for name in plain.manifest["files"] if name.endswith(".safetensors")]
        assert files
        assert [again.manifest["files"][name] for name in files] == [plain.manifest["files"][name] for name in files]
