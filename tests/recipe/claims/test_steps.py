"""Steps of the claims: each differs from the run's own in what its claim is about, and in nothing else."""

from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.config import dump
from llamaherd.model.config import ModelConfig
from llamaherd.recipe.chain import chain
from llamaherd.recipe.claims.steps import CLAIMS, OWN_ARMS, both_attentions, claim_steps, half, run_steps
from llamaherd.recipe.config import MiniatureRecipe, load_recipe
from llamaherd.recipe.forecast import work
from llamaherd.recipe.schedule import needs
from llamaherd.recipe.steps import Step

RUN = Path("runs/claims/seed-0")
OWN = RUN / "claims"
REWARDS = {"helpfulness", "safety"}
ARMS: dict[str, tuple[str, set[str]]] = {
    "joint-reward": ("v5-safety", {"other_share"}),
    "hot-ppo": ("v5", {"optimizer.lr", "ppo.beta", "ppo.kl_budget_nats", "ppo.patience", "ppo.check_every"}),
    "guarded-ppo": ("v5", {"optimizer.lr", "ppo.beta"}),
    "distilled-without-choice": ("v5-rejection", {"data"}),
    "undistilled": ("v5-rejection", {"data", "shares"}),
    "safety-0": ("v5-rejection", {"safety_share"}),
    "safety-25": ("v5-rejection", {"safety_share"}),
    "margin-none": ("v5-helpfulness", {"margin"}),
    "margin-large": ("v5-helpfulness", {"margin"}),
    "no-auxiliary": ("v5-safety", {"safety_weight"}),
    "small-base": ("base", {"model"}),
    "small-v0": ("v0", {"model"}),
    "large-reward-600": ("v5-helpfulness", {"model", "most_pairs"}),
    "large-reward-all": ("v5-helpfulness", {"model"}),
    "small-reward-all": ("v5-helpfulness", {"model"}),
    "newest-samples": ("v5-samples", {"pool"}),
    "newest-only": ("v5-rejection", {"data"}),
    "stale-safety": ("v5-safety", {"data", "test", "most_pairs"}),
    "fresh-safety": ("v5-safety", {"data", "test", "most_pairs"}),
    "fresh-corpus": ("corpus", {"documents"}),
    "grouped-base": ("base", {"model", "steps"}),
    "multi-head-base": ("base", {"model", "steps"}),
    "few-good": ("v0", {"data", "steps"}),
    "many-mixed": ("v0", {"steps"}),
    "ghostless": ("v4", {"data", "shares"}),
    "hot-ppo-evaluation": ("v5-evaluation", {"model", "tasks", *REWARDS}),
    "safety-0-evaluation": ("v5-rejection-evaluation", {"model", "tasks", *REWARDS}),
    "ghostless-evaluation": ("v4-evaluation", {"model", "tasks"}),
}
"""What an arm is compared with, and the settings in which it may differ."""


def both(recipe: MiniatureRecipe) -> tuple[dict[str, Step], dict[str, Step]]:
    return {step.name: step for step in chain(recipe, RUN)}, {step.name: step for step in claim_steps(recipe, RUN)}


@pytest.fixture(scope="module")
def miniature() -> MiniatureRecipe:
    return load_recipe("miniature")


def differing(before: Any, now: Any, name: str = "") -> set[str]:
    if isinstance(before, dict) and isinstance(now, dict) and name != "model":
        return {
            found for key in before.keys() | now.keys() for found in differing(before.get(key), now.get(key), f"{name}.{key}".strip("."))
        }
    return set() if before == now else {name}


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_differs_in_what_its_claim_is_about(name: str, miniature: MiniatureRecipe) -> None:
    run, claims = both(miniature)
    like, expected = ARMS[name]
    assert differing(dump(run[like].config), dump(claims[name].config)) == expected
    assert (claims[name].stage, claims[name].seed) == (run[like].stage, run[like].seed), "the same draws"


@pytest.mark.parametrize(("name", "versions"), [("miniature", 5), ("tiny", 5), ("tiny", 2), ("tiny", 1)])
def test_every_step_reads_the_run_or_earlier_steps(name: str, versions: int) -> None:
    run, claims = both(load_recipe(name, [f"--world.versions={versions}"]))
    assert run.keys().isdisjoint(claims), "a name says where it stands"
    seen: set[str] = set()
    for step in claims.values():
        assert needs(step, OWN) <= seen
        assert needs(step, RUN) - {"claims"} <= run.keys()
        assert work(step, load_recipe(name)) > 0
        seen.add(step.name)
    assert {f"v{n}-temperatures" for n in range(versions + 1)} <= seen


def test_the_last_tuning_loses_what_it_is_to_lose(miniature: MiniatureRecipe) -> None:
    run, claims = both(miniature)

    def mix(step: Step) -> list[tuple[str, float]]:
        config: Any = step.config
        return [(path.relative_to(RUN).as_posix(), share) for path, share in zip(config.data, config.shares, strict=True)]

    whole = mix(run["v5-rejection"])
    distilled, samples = ("distilled/dialogues.jsonl", 1.0), ("v5-samples/dialogues.jsonl", 1.0)
    assert mix(claims["undistilled"]) == [part for part in whole if part != distilled]
    assert mix(claims["distilled-without-choice"]) == [
        ("distilled/without-choice.jsonl", 1.0) if part == distilled else part for part in whole
    ]
    assert mix(claims["newest-only"]) == [("claims/newest-samples/dialogues.jsonl", 1.0) if part == samples else part for part in whole]
    assert mix(claims["ghostless"]) == [part for part in mix(run["v4"]) if part[0] != "ghost/dialogues.jsonl"]


def test_held_out_documents_are_drawn_anew(miniature: MiniatureRecipe) -> None:
    run, claims = both(miniature)
    assert claims["fresh-world"].seed != run["world"].seed
    settings: Any = claims["grouped-likelihood"].config
    assert (settings.documents, settings.seen) == ((OWN / "fresh-corpus",), (RUN / "corpus",))


def test_few_good_dialogues_are_good_ones_only(miniature: MiniatureRecipe) -> None:
    settings: Any = both(miniature)[1]["good-world"].config
    assert settings.demonstrations.qualities == {"good": 1, "plain": 0, "terse": 0, "wrong": 0, "rude": 0}
    assert settings.dialogues == miniature.claims.few_dialogues < miniature.world.dialogues
    assert settings.demonstrations.answered == miniature.world.demonstrations.answered


@pytest.mark.parametrize("name", ["miniature", "tiny"])
def test_both_attentions_have_as_many_parameters(name: str) -> None:
    grouped, multi_head = both_attentions(load_recipe(name))
    assert grouped.kv < grouped.heads == multi_head.kv
    assert abs(multi_head.parameters / grouped.parameters - 1) < 0.002
    assert multi_head.ffn_width < grouped.ffn_width


def test_attention_widths_by_hand() -> None:
    """128 * 32 * 2 more key and value weights in each of two more heads: 16,384, or 42.67 of the 3 * 128 weights of a feed-forward unit."""
    recipe = load_recipe(
        "miniature",
        [
            "--tokenizer.vocab_size=1024",
            "--pretrain.model={dim: 128, layers: 4, heads: 4, kv_heads: 2, ffn: 352, vocab_size: 1024, context: 1024}",
        ],
    )
    grouped, multi_head = both_attentions(recipe)
    assert (grouped.kv, grouped.ffn, multi_head.kv, multi_head.ffn) == (2, 352, 4, 309)
    every = load_recipe(
        "miniature",
        ["--tokenizer.vocab_size=1024", "--pretrain.model={dim: 128, layers: 4, heads: 4, ffn: 352, vocab_size: 1024, context: 1024}"],
    )
    assert [(model.kv, model.ffn) for model in both_attentions(every)] == [(2, 352), (4, 309)], (
        "a recipe without grouped queries gets them here"
    )


def test_half_a_model(miniature: MiniatureRecipe) -> None:
    small, large = half(miniature), ModelConfig(dim=128, layers=4, heads=4, kv_heads=2, ffn=352, vocab_size=1024, context=1024)
    assert (small.dim, small.layers, small.ffn, small.heads, small.context) == (64, 2, 176, 4, large.context)


def test_a_run_without_ghost_attention_has_no_such_claims() -> None:
    recipe = load_recipe("tiny", ["--ghost_after=5"])
    names = {step.name for step in claim_steps(recipe, RUN)}
    assert names.isdisjoint({"ghostless", "undistilled", "distilled-without-choice"})
    assert {"safety-0", "newest-only"} <= names


def test_the_first_version_with_ghost_attention_may_be_the_last() -> None:
    recipe = load_recipe("tiny", ["--ghost_after=4"])
    run, claims = both(recipe)
    assert differing(dump(run["v5-rejection"].config), dump(claims["ghostless"].config)) == {"data", "shares"}, "PPO is no part of it"


def test_the_recipes_own_margin_is_not_made_again() -> None:
    names = {step.name for step in claim_steps(load_recipe("tiny", ["--helpfulness.margin=none"]), RUN)}
    assert {name for name in names if name.startswith("margin-")} == {"margin-small", "margin-large"}


@pytest.mark.parametrize(
    ("claim", "arms", "last"),
    [
        ("margins", {"margin-none", "margin-large"}, {"v5-helpfulness"}),
        ("auxiliary-loss", {"no-auxiliary"}, {"v5-safety"}),
        ("joint-reward-model", {"joint-reward"}, {"v5-helpfulness", "v5-safety"}),
        ("fresh-preferences", {"stale-helpfulness", "fresh-helpfulness", "stale-safety", "fresh-safety"}, set()),
    ],
)
def test_a_claim_alone_needs_its_arms_and_part_of_the_run(miniature: MiniatureRecipe, claim: str, arms: set[str], last: set[str]) -> None:
    assert {step.name for step in claim_steps(miniature, RUN, [claim])} == arms
    needed = [step.name for step in run_steps(miniature, RUN, [claim])]
    assert {name for name in needed if name.startswith("v5")} == {"v5-preferences", *last}
    assert not [name for name in needed if "evaluation" in name or name.endswith("rewards")]
    assert {"v4", "v4-samples", "world", "base"} <= set(needed)
    for name in needed:
        [step] = [step for step in chain(miniature, RUN) if step.name == name]
        assert needs(step, RUN) <= set(needed[: needed.index(name)]), "what a step reads is made before it"


def test_scaling_alone_stops_at_the_comparisons(miniature: MiniatureRecipe) -> None:
    assert {step.name for step in claim_steps(miniature, RUN, ["reward-scaling"])} == {
        "small-base", "small-v0", *(f"{size}-reward-{pairs}" for size in ("small", "large") for pairs in (300, 600, 1200, "all")),
    }  # fmt: skip
    assert "v5-helpfulness" not in {step.name for step in run_steps(miniature, RUN, ["reward-scaling"])}


def test_a_claim_about_versions_needs_the_whole_run(miniature: MiniatureRecipe) -> None:
    whole = [step.name for step in chain(miniature, RUN)]
    for only in ([], ["hot-ppo"], ["margins", "multi-turn-safety"]):
        assert [step.name for step in run_steps(miniature, RUN, only)] == whole
    assert claim_steps(miniature, RUN, ["multi-turn-safety"]) == []
    assert claim_steps(miniature, RUN, list(CLAIMS)) == claim_steps(miniature, RUN)
    assert claim_steps(miniature, RUN, ["diversity", "best-temperature"]) == claim_steps(miniature, RUN, ["diversity"])
    assert OWN_ARMS.keys() < CLAIMS.keys()
