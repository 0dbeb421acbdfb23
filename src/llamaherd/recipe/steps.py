"""One step: an artifact to be made, and how. Chains are lists of steps; the executor works through any of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.config import Config, build, dump
from ..core.seeds import seed_for


@dataclass(frozen=True)
class Step:
    """One artifact of a folder: its name there, the stage that makes it, that stage's settings, where its randomness starts."""

    name: str
    stage: str
    config: Config
    seed: int
    threads: int | None = None
    """CPU threads, where not those of the other steps."""
    reads: tuple[str, ...] = ()
    """Artifacts of the folder that its settings name as text, as they do where an endpoint may stand in a model's place."""


def step(name: str, stage: str, kind: type[Config], seed: int, settings: Config | None = None, **inputs: Any) -> Step:
    """A step whose settings are a recipe's with the inputs added or put in their place. Raises ConfigError.

    `seed` is the run's; the step draws from a stream named after it. All versions are asked with the same draws, so that
    the models are what differs.
    """
    config = build(kind, {**(dump(settings) if settings else {}), **inputs})
    return Step(name, stage, config, step_seed(seed, name, stage))


def step_seed(seed: int, name: str, stage: str) -> int:
    """The seed of a step of that name in a run with that seed."""
    return seed_for(seed, "evaluate" if stage == "evaluate" else name)


def order_for(made: Step, folder: Path, threads: int | None) -> dict[str, Any]:
    """What a worker is told, as JSON: the step, the folder in which its artifact shall stand, and the threads of steps without their own."""
    return {
        "name": made.name, "stage": made.stage, "settings": dump(made.config), "seed": made.seed, "folder": str(folder),
        "threads": made.threads or threads,
    }  # fmt: skip
