"""Whole recipes: their runs, and the claims held against them."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..core.errors import UserError
from .common import Settings


def run(recipe: Annotated[str, Parameter(allow_leading_hyphen=True)] = "miniature", *settings: Settings, out: Path | None = None) -> None:
    """Run a recipe from documents to the last version and its report, or go on where it was.

    Parameters
    ----------
    recipe
        A packaged name, or a YAML file.
    out
        The run's folder (default: runs/ and the recipe's name).
    """
    from ..recipe.config import load_recipe
    from ..recipe.run import run_recipe

    if recipe.startswith("--"):
        recipe, settings = "miniature", (recipe, *settings)
    run_recipe(load_recipe(recipe, settings), out or Path("runs") / Path(recipe).stem, lambda line: print(line, flush=True))


def claims(
    recipe: Annotated[str, Parameter(allow_leading_hyphen=True)] = "miniature",
    *settings: Settings,
    seeds: str = "0,1,2",
    only: str | None = None,
    out: Path | None = None,
) -> None:
    """Hold the paper's claims against a recipe: its run for every seed, what the claims need beyond it, and the ledger.

    Parameters
    ----------
    recipe
        A packaged name, or a YAML file.
    seeds
        Seeds with commas between; what is measured is pooled over them.
    only
        Ids of claims with commas between, such as margins,auxiliary-loss: what these need is made and nothing else, and the ledger has
        these (default: all claims).
    out
        Folder of a run for each seed, ledger.json and ledger.html; given again, the command goes on where it was (default:
        runs/claims, of other recipes than the miniature runs/claims- and the recipe's name).
    """
    from ..recipe.claims.run import run_claims
    from ..recipe.config import load_recipe

    if recipe.startswith("--"):
        recipe, settings = "miniature", (recipe, *settings)
    if any(token.partition("=")[0] == "--seed" for token in settings):
        raise UserError("claims takes --seeds, such as --seeds=0,1,2, and no --seed")
    usual = Path("runs") / ("claims" if recipe == "miniature" else f"claims-{Path(recipe).stem}")
    wanted = [name.strip() for name in only.split(",")] if only is not None else []
    run_claims(load_recipe(recipe, settings), _seeds(seeds), out or usual, lambda line: print(line, flush=True), wanted)


def _seeds(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise UserError(f"--seeds {text!r}: expected different numbers with commas between, such as 0,1,2")
    return list(map(int, parts))
