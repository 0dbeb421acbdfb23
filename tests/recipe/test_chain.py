"""The chain: each step reads what earlier ones wrote, and versions are made as the paper says."""

from pathlib import Path

import pytest

from llamaherd.recipe.chain import chain
from llamaherd.recipe.config import MiniatureRecipe, load_recipe
from llamaherd.recipe.forecast import work
from llamaherd.recipe.schedule import needs
from llamaherd.recipe.steps import Step

RUN = Path("runs/x")


def made(*overrides: str) -> dict[str, Step]:
    return {step.name: step for step in chain(load_recipe("tiny", overrides), RUN)}


def inputs(step: Step) -> set[str]:
    return set(needs(step, RUN))


@pytest.mark.parametrize("versions", [1, 2, 5, 12])
@pytest.mark.parametrize("ghost_after", [1, 3, 5])
def test_every_step_reads_earlier_steps_only(versions, ghost_after):
    seen: set[str] = set()
    for step in chain(load_recipe("tiny", [f"--world.versions={versions}", f"--ghost_after={ghost_after}"]), RUN):
        assert inputs(step) <= seen, step.name
        assert step.name not in seen
        seen.add(step.name)
    assert {f"v{n}" for n in range(versions + 1)} <= seen
    assert ("ghost" in seen) == ("distilled" in seen) == (ghost_after < versions)


def test_two_variants_answer_and_rewards_learn_from_all_batches_so_far():
    steps = made()
    assert inputs(steps["v1-preferences"]) == {"v0", "v0-early", "world"}
    assert inputs(steps["v4-preferences"]) == {"v3", "v2", "world"}
    batches = ["v1-preferences", "v2-preferences", "v3-preferences"]
    assert inputs(steps["v3-safety"]) == {"v2", *batches}
    learned = steps["v3-safety"].config.model_dump()
    assert [[path.name for path in learned[name]] for name in ("data", "test")] == [batches, batches]


def test_each_version_is_tuned_from_the_start_on_the_pool_of_all_earlier_ones():
    steps = made("--tune_from=base")
    assert inputs(steps["v3-samples"]) == {"v2", "v3-helpfulness", "v3-safety", "v1-samples", "v2-samples", "world"}
    assert inputs(steps["v3"]) == {"base", "v3-samples", "world"}
    assert inputs(steps["v4"]) == {"base", "v4-samples", "ghost", "distilled", "world"}
    assert inputs(steps["v5-rejection"]) == {"base", "v5-samples", "ghost", "distilled", "world"}
    assert inputs(made()["v3"]) == {"v0", "v3-samples", "world"}


def test_the_last_version_is_ppo_after_rejection_sampling():
    steps = made()
    assert [name for name, step in steps.items() if step.stage == "ppo"] == ["v5"]
    assert inputs(steps["v5"]) == {"v5-rejection", "v5-helpfulness", "v5-safety", "world"}


def test_all_versions_are_evaluated_alike_and_in_the_world_they_learned():
    steps = made("--world.world.seed=7")
    for kind in ("evaluation", "rewards"):
        names = [f"{version}-{kind}" for version in ("v0", "v1", "v2", "v3", "v4", "v5-rejection", "v5")]
        settings = [steps[name].config.model_dump() for name in names]
        long = [name for name, values in zip(names, settings, strict=True) if "ghost" in values["tasks"]]
        assert long == (["v3-evaluation", "v4-evaluation", "v5-evaluation"] if kind == "evaluation" else [])
        ignored = {"model": None, "answers": None, "tasks": None}
        assert len({str({**values, **ignored}) for values in settings}) == 1
        assert settings[0]["world"]["seed"] == 7
    assert inputs(steps["v0-evaluation"]) == {"v0"}, "nothing has to wait for it, and it waits for nothing else"
    assert inputs(steps["v0-rewards"]) == {"v0", "v0-evaluation", "v5-helpfulness", "v5-safety"}, "one pair of judges, the last one"
    assert sum(step.stage == "evaluate" for step in steps.values()) == 14


def test_every_step_has_a_cost():
    recipe = load_recipe("miniature", ["--alone_threads=1"])
    costs = {step.name: work(step, recipe) for step in chain(recipe, RUN)}
    assert min(costs.values()) > 0
    assert max(costs, key=lambda name: costs[name]) == "base"
    assert costs["v2-helpfulness"] > costs["v1-helpfulness"]


def test_the_default_recipe_is_a_valid_chain():
    assert chain(MiniatureRecipe(), RUN)
