"""PPO with every part that has a state of its own - running whitening, a guard, several epochs, both logs - killed with -9 at random
moments (while it samples, judges, updates, looks or saves) ends with the bits of an undisturbed run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamaherd.core.artifacts import open_artifact
from llamaherd.core.metrics import read_metrics

TIMES = ("seconds", "tokens_per_s", "flop_utilisation", "ppo/seconds_", "ppo/tokens_per_s", "ppo/sampled_tokens_per_s")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_at_random_moments_it_ends_with_the_same_bits(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    settings = {
        "model": str(tiny_folder / "v0"), "helpfulness": str(tiny_folder / "helpfulness"), "safety": str(tiny_folder / "safety"),
        "guard": str(tiny_folder / "safety"), "prompts": str(tiny_inputs / "prompts.jsonl"), "held_out": str(tiny_inputs / "harmless.jsonl"),
        "ppo": {
            "iterations": 10, "batch": 8, "mini_batch": 4, "micro_batch": 2, "max_new_tokens": 12, "check_every": 2, "patience": 99, "epochs": 2,
            "kl_budget_nats": 1e9, "temperature": 0.9, "guard_tolerance": 1e9, "signal": {"whiten_rewards": "running"},
        },
        "optimizer": {"lr": 1e-3, "schedule": "cosine", "warmup_steps": 2, "checkpoint_every_s": 0},
    }  # fmt: skip
    (tmp_path / "spec.json").write_text(json.dumps(settings))
    program = [sys.executable, str(Path(__file__).with_name("killed_ppo.py")), str(tmp_path / "spec.json"), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "damaged" not in done.stderr
    kills = json.loads(done.stdout.splitlines()[-1])
    assert len(kills) >= 2
    assert max(kills) > 0, "one of them went on from a saved state"
    whole, killed = (open_artifact(tmp_path / name) for name in ("whole", "killed"))
    for name in ("model.safetensors", "sampled.jsonl"):
        assert (whole.path / name).read_bytes() == (killed.path / name).read_bytes()
    assert whole.metrics == killed.metrics
    assert len(whole.metrics["looks"]) == 6
    logs = [
        [{key: value for key, value in row.items() if not key.startswith(TIMES)} for row in read_metrics(one.path / "metrics.jsonl")]
        for one in (whole, killed)
    ]
    assert logs[0] == logs[1]
