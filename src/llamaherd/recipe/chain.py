"""The chain from documents to the last version: which stage reads what, all of it known before the first one starts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .config import MiniatureRecipe, PublicRecipe, RecipeConfig
from .links import Links
from .miniature import MiniatureChain
from .public import PublicChain
from .steps import Step

CHAINS: Mapping[type[RecipeConfig], Callable[[Any, Path], Links[Any]]] = {MiniatureRecipe: MiniatureChain, PublicRecipe: PublicChain}
"""What makes the steps of each kind of recipe."""


def chain(recipe: RecipeConfig, run: Path) -> list[Step]:
    """All steps of a run in order; their settings are built, and so checked, here."""
    return CHAINS[type(recipe)](recipe, run).steps


def sample_prompts(recipe: RecipeConfig, run: Path) -> Path:
    """The file of fixed prompts whose answers are shown while a run goes on."""
    return CHAINS[type(recipe)](recipe, run).samples
