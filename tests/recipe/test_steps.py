"""Steps: what a worker is told is what the chain says."""

import importlib
import json
from pathlib import Path

import pytest

from llamaherd.core.config import ConfigError, build
from llamaherd.core.seeds import seed_for
from llamaherd.recipe.chain import chain
from llamaherd.recipe.claims.steps import claim_steps
from llamaherd.recipe.config import MiniatureRecipe, load_recipe
from llamaherd.recipe.steps import order_for, step
from llamaherd.stages.sft import SftConfig, SftSettings

RUN = Path("runs/x")


@pytest.mark.parametrize("name", ["tiny", "miniature", "real-small"])
def test_a_worker_builds_the_settings_that_the_chain_has(name: str) -> None:
    recipe = load_recipe(name)
    of_claims = claim_steps(recipe, RUN) if isinstance(recipe, MiniatureRecipe) else []
    for made in [*chain(recipe, RUN), *of_claims]:
        order = json.loads(json.dumps(order_for(made, RUN, 1)))
        stage = importlib.import_module(f"llamaherd.stages.{order['stage']}")
        assert build(stage.run.__annotations__["config"], order["settings"]) == made.config, made.name
        assert (order["name"], order["seed"], order["folder"], order["threads"]) == (made.name, made.seed, "runs/x", made.threads or 1)


def test_inputs_are_laid_over_the_recipes_settings() -> None:
    made = step("v3", "sft", SftConfig, 7, SftSettings(epochs=5), model="base", data="rows.jsonl")
    assert made.config == SftConfig(epochs=5, model=Path("base"), data=(Path("rows.jsonl"),))
    assert made.seed == seed_for(7, "v3") != step("v4", "sft", SftConfig, 7, model="base", data="x").seed
    with pytest.raises(ConfigError, match="modle: unknown setting"):
        step("v3", "sft", SftConfig, 7, modle="base", data="rows.jsonl")


def test_all_models_are_asked_with_the_same_draws() -> None:
    seeds = {made.seed for made in chain(load_recipe("tiny"), RUN) if made.stage == "evaluate"}
    assert seeds == {seed_for(0, "evaluate")}
