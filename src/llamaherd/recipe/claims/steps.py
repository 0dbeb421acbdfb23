"""What each claim needs beyond the run, in the order of the ledger; `report/claims` says what is read from it.

Names of artifacts are the claim's own. What differs between two that are compared is what the call here changes.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from ...core.config import build, dump
from ...losses.margins import MARGINS
from ...model.config import ModelConfig
from ...stages.likelihood import LikelihoodConfig
from ...stages.pretrain import shape
from ...stages.temperatures import TemperatureConfig
from ..chain import chain
from ..config import MiniatureRecipe
from ..links import DOMAINS
from ..schedule import needs
from ..steps import Step
from .variants import Variants

ALL = 1e9
"""A share, a budget or a patience that nothing exceeds."""


def joint_reward(plan: Variants) -> None:
    """One reward model on all comparisons of both domains, with the safety model's auxiliary loss."""
    plan.add("joint-reward", f"{plan.last}-safety", {"other_share": ALL})


def hot_ppo(plan: Variants) -> None:
    """PPO with too high a rate and too little hold, with and without the recipe's guard: KL budget, patience, choice of the best look."""
    hot = {"optimizer.lr": plan.settings.hot_lr, "ppo.beta": plan.settings.hot_beta}
    unguarded = {"ppo.kl_budget_nats": ALL, "ppo.patience": int(ALL), "ppo.check_every": plan.recipe.ppo.ppo.iterations}
    for name, guard in (("hot-ppo", unguarded), ("guarded-ppo", {})):
        plan.add(name, plan.last, {**hot, **guard})
        plan.asked(name, "helpfulness", "rewards")


def distillation(plan: Variants) -> None:
    """The last tuning with all distilled answers, chosen by nobody, and with none."""
    if "distilled" not in plan.made:
        return
    for name, file in (("distilled-without-choice", plan.of_run("distilled", "without-choice.jsonl")), ("undistilled", None)):
        plan.tuned(name, plan.rejection, {"distilled": file})
        plan.asked(name, "helpfulness", "safety", "borderline")


def safety_data(plan: Variants) -> None:
    """The last tuning with a part of the answers to safety prompts, of rejection sampling and of distillation."""
    for share in plan.settings.safety_shares:
        name = safety_arm(share)
        plan.add(name, plan.rejection, {"safety_share": share})
        plan.asked(name, "helpfulness", "safety", "borderline", "rewards")


def safety_arm(share: float) -> str:
    """`0.25` -> `safety-25`."""
    return f"safety-{100 * share:g}"


def margins(plan: Variants) -> None:
    """The helpfulness reward model with the margins that the recipe's does not have."""
    for margin in MARGINS:
        if margin != plan.recipe.helpfulness.margin:
            plan.add(f"margin-{margin}", f"{plan.last}-helpfulness", {"margin": margin})


def auxiliary_loss(plan: Variants) -> None:
    """The safety reward model without its auxiliary loss."""
    plan.add("no-auxiliary", f"{plan.last}-safety", {"safety_weight": 0.0})


def reward_scaling(plan: Variants) -> None:
    """Helpfulness reward models on fewer comparisons, from V0 and from a smaller model raised like it."""
    demonstrations = plan.of_run("world", "demonstrations.jsonl")
    base = plan.add("small-base", "base", {"model": dump(half(plan.recipe))})
    starts = {"large": plan.of_run("v0"), "small": plan.add("small-v0", "v0", {"model": base, "data": [demonstrations]})}
    for size, model in starts.items():
        for pairs in (*plan.settings.reward_pairs, None):
            plan.add(f"{size}-reward-{pairs or 'all'}", f"{plan.last}-helpfulness", {"model": model, "most_pairs": pairs})


def half(recipe: MiniatureRecipe) -> ModelConfig:
    """The recipe's model with half the width and half the layers."""
    model = shape(recipe.pretrain, recipe.tokenizer.vocab_size)
    smaller = {"dim": model.dim // 2, "layers": max(1, model.layers // 2), "ffn": model.ffn_width // 2, "head_dim": None}
    return build(ModelConfig, {**dump(model), **smaller})


def pool(plan: Variants) -> None:
    """The last tuning on the newest samples alone."""
    samples = plan.add("newest-samples", f"{plan.last}-samples", {"pool": []})
    plan.tuned("newest-only", plan.rejection, {f"{plan.last}-samples": f"{samples}/dialogues.jsonl"})
    plan.asked("newest-only", "helpfulness", "safety")


def fresh_preferences(plan: Variants) -> None:
    """Reward models that learn from the first or from the newest batch alone, equally many comparisons, tested on the newest."""
    newest = plan.of_run(f"{plan.last}-preferences")
    for domain in DOMAINS:
        for name, batch in (("stale", plan.of_run("v1-preferences")), ("fresh", newest)):
            changes = {"data": [batch], "test": [newest], "most_pairs": plan.settings.batch_pairs}
            plan.add(f"{name}-{domain}", f"{plan.last}-{domain}", changes)


def temperatures(plan: Variants) -> None:
    """Answers of every version over temperatures, for diversity and for the best temperature; one pair of judges for all."""
    for version in (f"v{n}" for n in range(plan.recipe.world.versions + 1)):
        plan.new(
            f"{version}-temperatures", "temperatures", TemperatureConfig, plan.settings.temperatures, model=plan.of_run(version),
            world=dump(plan.recipe.world.world), **plan.rewards,
        )  # fmt: skip


def attention(plan: Variants) -> None:
    """Two base models of equal size, one with a key-value head for every query head, on documents that neither has seen."""
    world = plan.add("fresh-world", "world", {"documents": plan.settings.held_out_documents, "dialogues": 1}, fresh=True)
    documents = plan.add("fresh-corpus", "corpus", {"documents": [f"{world}/documents.jsonl"]})
    steps = plan.settings.attention_steps
    for name, model in zip(("grouped", "multi-head"), both_attentions(plan.recipe), strict=True):
        warmup = min(plan.recipe.pretrain.optimizer.warmup_steps, steps // 2)
        base = plan.add(f"{name}-base", "base", {"model": dump(model), "steps": steps, "optimizer.warmup_steps": warmup})
        seen = [plan.of_run("corpus")]
        plan.new(f"{name}-likelihood", "likelihood", LikelihoodConfig, model=base, documents=[documents], seen=seen)


def both_attentions(recipe: MiniatureRecipe) -> tuple[ModelConfig, ModelConfig]:
    """The recipe's model with grouped queries, and with as many key-value heads as query heads in as many parameters."""
    model = shape(recipe.pretrain, recipe.tokenizer.vocab_size)
    grouped = model.model_copy(
        update={"kv_heads": model.kv if model.kv < model.heads else max(1, model.heads // 2), "ffn": model.ffn_width}
    )
    # Keys and values of more heads cost width of the three feed-forward matrices (section 1's comparison).
    narrower = round(2 * model.head_size * (model.heads - grouped.kv) / 3)
    return grouped, grouped.model_copy(update={"kv_heads": model.heads, "ffn": model.ffn_width - narrower})


def few_good_examples(plan: Variants) -> None:
    """Supervised fine-tuning on few dialogues of good answers, and on all of the recipe's mixture, for as many steps."""
    mixture = {f"demonstrations.{quality}": 0.0 for quality in ("plain", "terse", "wrong", "rude")}
    few = {"dialogues": plan.settings.few_dialogues, "documents": 1, "demonstrations.good": 1.0, **mixture}
    good = plan.add("good-world", "world", few)
    for name, world in (("few-good", good), ("many-mixed", plan.of_run("world"))):
        plan.add(name, "v0", {"data": [f"{world}/demonstrations.jsonl"], "steps": plan.settings.sft_steps})
        plan.asked(name, "helpfulness")


def ghost_attention(plan: Variants) -> None:
    """The first version with Ghost Attention rows, tuned without them."""
    if "ghost" in plan.made:
        plan.tuned("ghostless", plan.with_ghost, {"ghost": None})
        plan.asked("ghostless", "ghost")


def nothing_more(plan: Variants) -> None:
    """For claims that the run's own evaluations answer."""


CLAIMS: dict[str, Callable[[Variants], None]] = {
    "joint-reward-model": joint_reward, "hot-ppo": hot_ppo, "distillation": distillation, "safety-data": safety_data, "margins": margins,
    "auxiliary-loss": auxiliary_loss, "reward-scaling": reward_scaling, "pool-of-all-versions": pool, "fresh-preferences": fresh_preferences,
    "multi-turn-safety": nothing_more, "diversity": temperatures, "best-temperature": temperatures, "grouped-queries": attention,
    "few-good-examples": few_good_examples, "ghost-attention": ghost_attention,
}  # fmt: skip
"""What makes the arms of each claim, by its id."""
OWN_ARMS: dict[str, tuple[str, ...]] = {
    "joint-reward-model": DOMAINS, "margins": ("helpfulness",), "auxiliary-loss": ("safety",), "reward-scaling": (), "fresh-preferences": (),
}  # fmt: skip
"""The last reward models of the run that a claim reads beside its own arms. Claims that are not here read more of the run."""


def claim_steps(recipe: MiniatureRecipe, run: Path, only: Collection[str] = ()) -> list[Step]:
    """All steps of the claims about one run, or of those with these ids; their settings are built, and so checked, here."""
    plan = Variants(recipe, run)
    for make in dict.fromkeys(make for name, make in CLAIMS.items() if not only or name in only):
        make(plan)
    return plan.steps


def run_steps(recipe: MiniatureRecipe, run: Path, only: Collection[str] = ()) -> list[Step]:
    """The run's own steps that these claims need: all of them, unless each claim reads reward models alone."""
    steps = chain(recipe, run)
    if not only or not set(only) <= OWN_ARMS.keys():
        return steps
    last = recipe.world.versions
    wanted = {f"v{last}-{domain}" for name in only for domain in OWN_ARMS[name]}
    wanted |= {name for step in claim_steps(recipe, run, only) for name in needs(step, run)}
    for step in reversed(steps):
        if step.name in wanted:
            wanted |= needs(step, run)
    return [step for step in steps if step.name in wanted]
