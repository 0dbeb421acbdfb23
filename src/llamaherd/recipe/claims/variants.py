"""Steps that are a run's own, but for what a claim changes: same stage, same settings, same draws."""

from pathlib import Path
from typing import Any

from ...core.config import build, dump, merged
from ..chain import chain
from ..config import RecipeConfig
from ..steps import Step

FOLDER = "claims"
"""In a run's folder, what is made for the claims."""


class Variants:
    """Gathers the steps of the claims about one run."""

    def __init__(self, recipe: RecipeConfig, run: Path):
        self.recipe, self.run = recipe, run
        self.settings, self.last = recipe.claims, recipe.world.versions
        self.made = {step.name: step for step in chain(recipe, run)}
        """The run's own steps."""
        self.steps: list[Step] = []

    def of_run(self, name: str, file: str = "") -> str:
        """Path of an artifact of the run, or of a file in it."""
        assert name in self.made, name
        return str(self.run / name / file if file else self.run / name)

    def own(self, name: str, file: str = "") -> str:
        """Path of an artifact that was made for the claims, or of a file in it."""
        assert any(step.name == name for step in self.steps), name
        folder = self.run / FOLDER / name
        return str(folder / file if file else folder)

    def add(self, name: str, like: str, **changes: Any) -> str:
        """The run's step `like` under another name with these settings changed, dotted names within others. Its path."""
        original = self.made[like]
        self.steps.append(Step(name, original.stage, build(type(original.config), merged(dump(original.config), changes)), original.seed))
        return self.own(name)
