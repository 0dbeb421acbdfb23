"""Run as a program: SPEC, a JSON file of {stage: settings}; results go beside it. Each stage is run once undisturbed into
`whole/STAGE` and once into `killed/STAGE`, where several attempts are killed at random moments before one comes to its end.
Prints for each stage how many attempts were killed with a saved state behind them.

Attempts are forks of this process, so that torch is imported once; this process itself computes nothing.
"""

import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the optimizer's first step would import it, in every attempt again

from llamaherd.core.config import build
from llamaherd.stages import collect

CONFIGS = {
    "pretrain": "PretrainConfig", "sft": "SftConfig", "reward": "RewardConfig", "ppo": "PpoStageConfig",
    "collect": "CollectConfig", "reject": "RejectConfig", "ghost": "GhostConfig", "distill": "DistillConfig",
}  # fmt: skip
KILLS = 2


def attempt(stage: str, settings: dict[str, Any], out: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        collect.CHUNK_PROMPTS = 2
        module = importlib.import_module(f"llamaherd.stages.{stage}")
        module.run(build(getattr(module, CONFIGS[stage]), settings), out, 0)
        code = 0
    finally:
        os._exit(code)


def saved(out: Path) -> int:
    """How far the saved state of an unfinished build has come: in steps, or in chunks."""
    walk = os.walk(out.with_name(out.name + ".partial") / "state")  # bears with folders that vanish meanwhile
    names = [name for _, folders, files in walk for name in (*folders, *files)]
    steps = [int(name[5:]) for name in names if name.startswith("step-")]
    return max(steps) if steps else sum(name.startswith("chunk-") for name in names)


def kill_on_the_way(child: int, out: Path, rng: random.Random) -> bool:
    """Kills a little after one to three more steps or chunks were saved; False if the attempt came to its end first."""
    wanted = saved(out) + rng.randint(1, 3)
    while saved(out) < wanted:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    time.sleep(rng.uniform(0, 0.01))
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(spec: Path) -> None:
    kills = {}
    for stage, settings in json.loads(spec.read_text()).items():
        rng, killed = random.Random(stage), spec.parent / "killed" / stage
        child = attempt(stage, settings, spec.parent / "whole" / stage)
        assert os.waitpid(child, 0)[1] == 0, stage
        kills[stage] = 0
        while kills[stage] < KILLS and kill_on_the_way(attempt(stage, settings, killed), killed, rng):
            kills[stage] += 1
        if not killed.exists():
            assert os.waitpid(attempt(stage, settings, killed), 0)[1] == 0, stage
    print(json.dumps(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
