"""Every stage that trains or samples, killed with -9 on its way and started again, ends with what an undisturbed one wrote."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import open_artifact
from llamaherd.core.metrics import read_metrics

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

TRAINING, SAMPLING = ("pretrain", "sft", "reward", "ppo"), ("collect", "reject", "ghost", "distill")
TIMES = ("seconds", "tokens_per_s", "flop_utilisation", "ppo/seconds_", "ppo/tokens_per_s", "ppo/sampled_tokens_per_s")
OFTEN = {"lr": 1e-2, "warmup_steps": 2, "checkpoint_every_s": 0}


def settings(models: Path, inputs: Path) -> dict[str, Any]:
    model, rewards = str(models / "v0"), {name: str(models / name) for name in ("helpfulness", "safety")}
    sampling = {"temperature": 0.8, "top_p": 0.95, "max_new_tokens": 24}
    shape = {"dim": 16, "layers": 1, "heads": 2, "kv_heads": 1, "ffn": 24, "vocab_size": 340, "context": 128}
    return {
        "pretrain": {
            "shards": str(inputs / "shards"), "model": shape, "row_tokens": 32, "batch_rows": 3, "micro_rows": 2, "steps": 14, "optimizer": OFTEN,
        },
        "sft": {"model": model, "data": str(inputs / "dialogues.jsonl"), "epochs": 5, "batch_rows": 2, "micro_rows": 1, "optimizer": OFTEN},
        "reward": {
            "model": model, "data": str(inputs / "preferences.jsonl"), "domain": "safety", "epochs": 3, "batch_pairs": 3, "micro_pairs": 2,
            "test_share": 0.25, "optimizer": OFTEN,
        },
        "ppo": {
            "model": model, **rewards, "prompts": str(inputs / "prompts.jsonl"), "held_out": str(inputs / "harmless.jsonl"),
            "ppo": {
                "iterations": 8, "batch": 8, "mini_batch": 4, "micro_batch": 2, "max_new_tokens": 12, "check_every": 2, "patience": 9,
                "kl_budget_nats": 1e9,
            },
            "optimizer": OFTEN | {"lr": 1e-3},
        },
        "collect": {
            "newest": model, "previous": str(models / "v0-early"), "batch": "v1", "max_new_tokens": 24,
            "helpfulness": str(inputs / "prompts.jsonl"), "safety": str(inputs / "distil.jsonl"),
        },
        "reject": {
            "model": model, **rewards, "prompts": str(inputs / "prompts.jsonl"), "judged_prompts": str(inputs / "harmless.jsonl"), "k": 8,
            "max_new_tokens": 24, "chunk_prompts": 1,
        },
        "ghost": {"model": model, "scripts": str(inputs / "scripts.jsonl"), "sampling": sampling, "chunk_scripts": 1},
        "distill": {
            "model": model, "safety": rewards["safety"], "prompts": str(inputs / "distil.jsonl"), "harmless": str(inputs / "harmless.jsonl"),
            "sampling": sampling, "chunk_prompts": 1,
        },
    }  # fmt: skip


@dataclass(frozen=True)
class Runs:
    whole: Path
    killed: Path
    kills: dict[str, int]


@pytest.fixture(scope="module")
def runs(tiny_folder: Path, tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("stages")
    (folder / "spec.json").write_text(json.dumps(settings(tiny_folder, tiny_inputs)))
    program = [sys.executable, str(Path(__file__).with_name("killed_stages.py")), str(folder / "spec.json")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "damaged" not in done.stderr, "a kill never leaves half a state where loading looks"
    return Runs(folder / "whole", folder / "killed", json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("stage", TRAINING + SAMPLING)
def test_was_really_killed(runs: Runs, stage: str) -> None:
    assert runs.kills[stage] >= 1
    assert not list(runs.killed.glob("*.partial"))


@pytest.mark.parametrize("stage", TRAINING)
def test_training_ends_with_the_same_weights_and_log(runs: Runs, stage: str) -> None:
    whole, killed = runs.whole / stage, runs.killed / stage
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
    logs = [
        [{key: value for key, value in row.items() if not key.startswith(TIMES)} for row in read_metrics(folder / "metrics.jsonl")]
        for folder in (whole, killed)
    ]
    assert logs[0] == logs[1]
    assert [row["step"] for row in logs[0]] == list(range(1, len(logs[0]) + 1))
    assert open_artifact(whole).metrics == open_artifact(killed).metrics


@pytest.mark.parametrize("stage", SAMPLING)
def test_sampling_ends_with_the_same_files(runs: Runs, stage: str) -> None:
    whole, killed = open_artifact(runs.whole / stage), open_artifact(runs.killed / stage)
    assert (whole.hash, whole.metrics) == (killed.hash, killed.metrics)
    assert any((whole.path / name).stat().st_size for name in whole.manifest["files"])
