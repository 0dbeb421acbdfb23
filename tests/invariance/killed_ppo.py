"""Run as a program: SPEC, a JSON file of PPO's settings; OUT. Builds OUT/whole undisturbed and then OUT/killed, each attempt of which is
killed at a random moment, until one comes to its end. Prints how many were killed, and at which saved step each began.

Attempts are forks of this process, so that torch is imported once; this process itself computes nothing.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # the optimizer's first step would import it, in every attempt again

from llamaherd.core.config import build
from llamaherd.stages import ppo


def attempt(settings: dict, out: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        ppo.run(build(ppo.PpoStageConfig, settings), out, 0)
        code = 0
    finally:
        os._exit(code)


def main(spec: Path, out: Path) -> None:
    settings, rng = json.loads(spec.read_text()), random.Random(1)
    began = time.perf_counter()
    assert os.waitpid(attempt(settings, out / "whole"), 0)[1] == 0
    whole_s = time.perf_counter() - began
    kills: list[int] = []
    while not (out / "killed").exists():
        states = sorted(path.name for path in (out / "killed.partial" / "state").glob("step-*"))
        child = attempt(settings, out / "killed")
        until = time.perf_counter() + rng.uniform(0.1, 0.5) * whole_s
        while time.perf_counter() < until and not os.waitpid(child, os.WNOHANG)[0]:
            time.sleep(0.0005)
        if (out / "killed").exists():
            break
        try:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        except (ProcessLookupError, ChildProcessError):
            continue
        if os.WIFSIGNALED(status):
            kills.append(int(states[-1][5:]) if states else 0)
    print(json.dumps(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
