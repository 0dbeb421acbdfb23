"""The packaged recipes of the 7B, each with a short budget."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llamaherd.cli import STAGES


@dataclass(frozen=True)
class Recipe:
    """A packaged recipe with a short budget. Inputs are files of `write_data` and outputs of earlier recipes, by their settings' names."""

    inputs: Mapping[str, str]
    budget: tuple[str, ...]
    """Overrides at any width: a few steps, a state after each, and a rate at which these few show."""
    small: tuple[str, ...]
    """Overrides of lengths and passes where the width is reduced."""
    task: str | None = None
    """What `llamaherd plan` calls it."""

    @property
    def trains(self) -> bool:
        return any(word.startswith("--optimizer") for word in self.budget)


TUNED = ("--steps=6", "--batch-rows=2", "--optimizer.checkpoint_every_s=0")
JUDGED = ("--batch-pairs=8", "--most-pairs=48", "--optimizer.lr=1e-2", "--optimizer.checkpoint_every_s=0")
RECIPES = {
    "llama2-7b-pretrain": Recipe(
        {"shards": "shards"},
        ("--steps=6", "--batch-rows=4", "--optimizer.warmup_steps=2", "--optimizer.lr=3e-3", "--optimizer.checkpoint_every_s=0"),
        ("--row-tokens=128", "--micro-rows=2"),
    ),
    "llama2-7b-sft": Recipe(
        {"model": "base", "data": "dialogues.jsonl"}, (*TUNED, "--optimizer.lr=3e-3"), ("--row-tokens=256",), "sft"
    ),
    "llama2-7b-qlora": Recipe(
        {"model": "base", "data": "dialogues.jsonl"}, (*TUNED, "--optimizer.lr=1e-2"), ("--row-tokens=256",), "qlora"
    ),
    "llama2-7b-helpfulness": Recipe({"model": "base", "data": "helpfulness.jsonl"}, JUDGED, ("--micro-pairs=4",), "reward"),
    "llama2-7b-safety": Recipe({"model": "base", "data": "safety.jsonl"}, JUDGED, ("--micro-pairs=4",), "reward"),
    "llama2-7b-reject": Recipe(
        {"model": "base", "helpfulness": "llama2-7b-helpfulness", "safety": "llama2-7b-safety", "prompts": "prompts.jsonl"},
        ("--temperatures=1.0,1.1",), ("--k=4", "--max-new-tokens=32"),
    ),
    "llama2-7b-ghost": Recipe(
        {"model": "base", "scripts": "scripts.jsonl"}, ("--sampling.temperature=1.0",), ("--sampling.max-new-tokens=32", "--chunk-scripts=4")
    ),
    "llama2-7b-distill": Recipe(
        {"model": "base", "safety": "llama2-7b-safety", "prompts": "adversarial.jsonl"},
        ("--sampling.temperature=1.0",), ("--sampling.max-new-tokens=32", "--chunk-prompts=4"),
    ),
    "llama2-7b-ppo": Recipe(
        {"model": "base", "helpfulness": "llama2-7b-helpfulness", "safety": "llama2-7b-safety", "prompts": "prompts.jsonl"},
        ("--ppo.iterations=4", "--ppo.batch=16", "--ppo.mini-batch=8", "--ppo.check_every=4", "--optimizer.lr=5e-4",
         "--optimizer.checkpoint_every_s=0"),
        ("--ppo.micro-batch=4", "--ppo.max-new-tokens=48"), "ppo",
    ),
}  # fmt: skip
"""In an order in which each finds what it reads."""


def verb(name: str) -> str:
    """The command whose packaged settings these are."""
    from llamaherd.commands.common import SETTINGS

    [file] = SETTINGS.glob(f"*/{name}.yaml")
    return next(command for command, stage in STAGES.items() if stage.module == file.parent.name)


def with_inputs(names: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """These recipes and those whose outputs they read, in their order."""
    wanted = {name if name.startswith("llama2-7b-") else f"llama2-7b-{name}" for name in names}
    if unknown := wanted - set(RECIPES):
        parser.error(f"--only {', '.join(sorted(unknown))}: expected some of {', '.join(RECIPES)}")
    reads: Callable[[str], set[str]] = lambda name: set(RECIPES[name].inputs.values()) & set(RECIPES)  # noqa: E731
    wanted |= {each for name in wanted for each in reads(name)}
    return [name for name in RECIPES if name in wanted]
