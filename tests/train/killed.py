"""Run as a program: FOLDER KILLS SEED. Trains a small model once undisturbed in FOLDER/whole and once in FOLDER/killed, where
each attempt but the last is killed at a random moment of its steps; prints the last step saved before the last attempt.

Attempts are forks of this process, so that torch is imported once; this process itself computes nothing.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the optimizer's first step would import it, in every attempt again
from torch import nn

from llamaherd.train.config import OptimizerConfig
from llamaherd.train.loop import LossSum, train
from llamaherd.train.state import save_tensors

STEPS = 80


class Plain:
    """The least that a stage's files can be."""

    def __init__(self, model: nn.Module):
        self.model = model

    def save(self, folder: Path) -> None:
        folder.mkdir()
        save_tensors(self.model.state_dict(), folder / "model.safetensors")

    def load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.model.load_state_dict(load_file(folder / "model.safetensors"))


def work(folder: Path, begun: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))

    def source(standing: Any) -> Iterator[tuple[list[int], int]]:
        for step in count(standing or 0):
            if step > (standing or 0):
                os.write(begun, b".")
            yield [step], step + 1

    def loss(step: int) -> LossSum:
        given = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        return LossSum((model(given)[:, 0] - given.sum(-1)).square().sum(), count=16, tokens=16)

    train(
        model, loss, source, total_steps=STEPS, config=OptimizerConfig(lr=0.01, checkpoint_every_s=0), files=Plain(model),
        state=folder / "state", metrics=folder / "metrics.jsonl", label="test",
    )  # fmt: skip
    save_tensors(model.state_dict(), folder / "end.safetensors")


def attempt(folder: Path) -> tuple[int, int]:
    """A child at work, and a pipe that says when a step of its is behind it."""
    begun, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        return child, begun
    code = 1
    try:
        work(folder, tell)
        code = 0
    finally:
        os._exit(code)


def finish(folder: Path) -> float:
    """An attempt that is left alone. Returns the seconds from its first step to its end."""
    child, begun = attempt(folder)
    os.read(begun, 1)
    started = time.perf_counter()
    assert os.waitpid(child, 0)[1] == 0
    return time.perf_counter() - started


def main(folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    step_s = finish(folder / "whole") / STEPS
    for _ in range(kills):
        child, begun = attempt(folder / "killed")
        os.read(begun, 1)
        time.sleep(rng.uniform(0, 2.5 * step_s))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "this attempt came to its end"
        os.close(begun)
    print(max(int(state.name[5:]) for state in (folder / "killed" / "state").glob("step-*")))
    finish(folder / "killed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
