"""Steps that are a run's own, but for what a claim changes: same stage, same settings, same draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.config import Config, build, dump, merged
from ...stages.evaluate import Task
from ..chain import chain
from ..config import MiniatureRecipe
from ..links import DOMAINS
from ..steps import Step, step, step_seed

FOLDER = "claims"
"""In a run's folder, what is made for the claims."""


class Variants:
    """Gathers the steps of the claims about one run."""

    def __init__(self, recipe: MiniatureRecipe, run: Path):
        self.recipe, self.run, self.settings = recipe, run, recipe.claims
        self.made = {made.name: made for made in chain(recipe, run)}
        """The run's own steps."""
        self.steps: list[Step] = []
        last = recipe.world.versions
        self.last, self.rejection = f"v{last}", f"v{last}-rejection"
        """The version after PPO, and what it was before."""
        with_ghost = min(recipe.ghost_after + 1, last)
        self.with_ghost = self.rejection if with_ghost == last else f"v{with_ghost}"
        """The first version with Ghost Attention rows in its mix, where the run makes such rows."""

    def of_run(self, name: str, file: str = "") -> str:
        """Path of an artifact of the run, or of a file in it."""
        assert name in self.made, name
        return str(self.run / name / file)

    def own(self, name: str, file: str = "") -> str:
        """Path of an artifact that was made for the claims, or of a file in it."""
        assert any(made.name == name for made in self.steps), name
        return str(self.run / FOLDER / name / file)

    @property
    def rewards(self) -> dict[str, str]:
        """The last reward models."""
        return {domain: self.of_run(f"{self.last}-{domain}") for domain in DOMAINS}

    def add(self, name: str, like: str, changes: Mapping[str, Any], *, fresh: bool = False) -> str:
        """The run's step `like` under another name, with these settings changed (dotted names within others); its path.

        It draws as the run's step does, or, if `fresh`, anew.
        """
        original = self.made[like]
        config = build(type(original.config), merged(dump(original.config), changes))
        seed = step_seed(self.recipe.seed, f"{FOLDER} {name}", original.stage) if fresh else original.seed
        self.steps.append(Step(name, original.stage, config, seed))
        return self.own(name)

    def new(self, name: str, stage: str, kind: type[Config], settings: Config | None = None, **inputs: Any) -> str:
        """A step of a stage that the run has not; its path."""
        self.steps.append(step(name, stage, kind, self.recipe.seed, settings, **inputs))
        return self.own(name)

    def tuned(self, name: str, like: str, files: Mapping[str, str | None]) -> str:
        """A tuning of the run in whose mix each of these artifacts gives way to another file, or to none; its path."""
        config: Any = self.made[like].config
        mix = [(files.get(path.parent.name, str(path)), share) for path, share in zip(config.data, config.shares, strict=True)]
        kept = [(path, share) for path, share in mix if path is not None]
        assert kept != [(str(path), share) for path, share in zip(config.data, config.shares, strict=True)], "nothing changed"
        return self.add(name, like, {"data": [path for path, _ in kept], "shares": [share for _, share in kept]})

    def asked(self, name: str, *tasks: Task) -> None:
        """An evaluation of a model made for the claims: the prompts, draws and judges of the run's own evaluations."""
        rewards = self.rewards if "rewards" in tasks else {}
        changes = {"model": self.own(name), "tasks": list(tasks), **rewards}
        self.add(f"{name}-evaluation", f"{self.last}-evaluation", changes)
