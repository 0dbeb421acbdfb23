"""How the work of a chain is spread over its steps, for the time left: the factors are from runs of the packaged recipes on a CPU."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..stages.pretrain import shape
from .config import MiniatureRecipe, PublicRecipe, RecipeConfig
from .steps import Step

_SECONDS_PER_WEIGHT = 4e-11
"""Of pretraining, for each token and weight."""
_TWO_THREADS = 1.4
"""What a second thread of pretraining brings, on an idle machine."""
_LEAST_S = 0.05
"""What starting and writing any step costs."""

_PUBLIC_PAIRS = 2800
"""Public comparisons of a domain, roughly."""


@dataclass(frozen=True)
class Amounts:
    """How much a run reads and asks, roughly; only the proportions between steps matter."""

    turn_tokens: int
    """A question with its answer."""
    texts_s: Mapping[str, float]
    """Seconds of stages that only read and write text."""
    dialogues: int
    """Demonstrations."""
    rejection: int
    """Prompts of one version's rejection sampling."""
    best_of: int
    """Prompts on which best-of-N is judged."""
    ghost_dialogues: int
    """Scripts of Ghost Attention."""
    ghost_turns: int
    """The least and the most turns of a script, added."""
    distilled: int
    """Prompts of safety distillation."""
    pairs: Callable[[Path], Mapping[str, float]]
    """Comparisons of each domain that a reward model learns from in a file or folder."""
    tests: int = 0
    """Test prompts of the comparison with V0."""
    held_out_documents: int = 0
    """Documents on which a likelihood is measured."""


def _in_miniature(recipe: MiniatureRecipe) -> Amounts:
    world = recipe.world
    pairs = {"helpfulness": 0.75 * world.helpfulness_pairs, "safety": 0.75 * world.safety_pairs}
    return Amounts(
        40, {"corpus": 2e-4 * world.documents, **dict.fromkeys(("tokenizer", "shards"), 2e-5 * world.documents)}, world.dialogues,
        world.rejection_prompts, world.best_of_prompts, world.ghost_dialogues, sum(world.ghost_turns), world.distilled_prompts,
        lambda path: pairs, held_out_documents=recipe.claims.held_out_documents,
    )  # fmt: skip


def _of_public(recipe: PublicRecipe) -> Amounts:
    """Sizes are those of the public files, where a recipe does not say less."""
    texts, prompts = recipe.texts, recipe.prompts
    pairs = min(1.0, (recipe.comparisons.most or math.inf) / _PUBLIC_PAIRS)
    own = {"helpfulness": {"helpfulness": 1700 * pairs}, "safety": {"safety": 1400 * pairs}, "judge": {"helpfulness": 700 * pairs}}
    part = min(1.0, (texts.most_groups or math.inf) / 1000)
    return Amounts(
        120, {"texts": 5 + 10 * part, "comparisons": 3.0, "prompts": 5.0, "corpus": 10 + 80 * part, "tokenizer": 5 + 50 * part, "shards": 30 * part},
        texts.most_dialogues or 5000, prompts.rejection_prompts, prompts.best_of_prompts, prompts.ghost_dialogues, sum(prompts.ghost_turns),
        prompts.distilled_prompts, lambda path: own.get(path.stem, {}), min(4 * (prompts.most_tests or 100), 800),
    )  # fmt: skip


AMOUNTS: Mapping[type[RecipeConfig], Callable[[Any], Amounts]] = {MiniatureRecipe: _in_miniature, PublicRecipe: _of_public}


def work(step: Step, recipe: RecipeConfig) -> float:
    """Expected seconds of a step on one core, from its settings and from how much the recipe's world writes."""
    config: Any = step.config
    amounts = AMOUNTS[type(recipe)](recipe)
    if step.stage == "world":
        return _LEAST_S + 2e-5 * float(config.documents)
    if step.stage in amounts.texts_s:
        return _LEAST_S + amounts.texts_s[step.stage]
    weights = shape(recipe.pretrain, recipe.tokenizer.vocab_size).parameters
    if step.stage == "pretrain":
        own = shape(config, recipe.tokenizer.vocab_size).parameters
        tokens: int = config.steps * config.batch_rows * config.row_tokens
        return _LEAST_S + _SECONDS_PER_WEIGHT * own * 3.0 * tokens / (_TWO_THREADS if (step.threads or 1) > 1 else 1.0)
    return _LEAST_S + _SECONDS_PER_WEIGHT * weights * amounts.turn_tokens * _TURNS[step.stage](config, amounts)


def _tuning(config: Any, amounts: Amounts) -> float:
    if config.steps:
        return float(2 * config.steps * config.batch_rows * (config.row_tokens or 4096) / amounts.turn_tokens)
    shares = config.shares or [1.0] * len(config.data)
    dialogues = sum(share * _dialogues(path, amounts) for path, share in zip(config.data, shares, strict=True))
    return float(6.0 * config.epochs * dialogues)


def _dialogues(path: Path, amounts: Amounts) -> float:
    """Dialogues of a file, roughly."""
    if path.name == "demonstrations.jsonl":
        return amounts.dialogues
    return 4.0 * amounts.ghost_dialogues if path.parent.name == "ghost" else 2.0 * amounts.rejection


def _rewarding(config: Any, amounts: Amounts) -> float:
    found = [amounts.pairs(path) for path in config.data]
    own, other = (sum(pairs.get(domain, 0) for pairs in found) for domain in (config.domain, _other(config.domain)))
    return float(7.7 * config.epochs * min(config.most_pairs or math.inf, own + min(other, config.other_share * own)))


def _other(domain: str) -> str:
    return "safety" if domain == "helpfulness" else "helpfulness"


def _evaluating(config: Any, amounts: Amounts) -> float:
    costs = {
        "helpfulness": 40.0 * config.helpfulness_prompts, "safety": 20.0 * config.safety_prompts,
        "borderline": 20.0 * config.borderline_prompts, "people": 20.0 * config.people_prompts,
        "ghost": 40.0 * config.ghost_dialogues * max(config.ghost_turns),
        "rewards": (2.0 if config.answers else 22.0) * (config.helpfulness_prompts + config.safety_prompts),
    }  # fmt: skip
    return sum(float(costs.get(task, 0)) for task in config.tasks)


_TURNS: dict[str, Callable[[Any, Amounts], float]] = {
    "sft": _tuning,
    "collect": lambda config, amounts: 15.0 * sum(amounts.pairs(Path()).values()) / 0.75,
    "reward": _rewarding,
    "reject": lambda config, amounts: 8.0 * (amounts.rejection * config.k if config.prompts else amounts.best_of * config.judged_k),
    "ppo": lambda config, amounts: 30.0 * config.ppo.iterations * config.ppo.batch,
    "ghost": lambda config, amounts: 5.0 * amounts.ghost_dialogues * amounts.ghost_turns,
    "distill": lambda config, amounts: 50.0 * amounts.distilled,
    "evaluate": _evaluating,
    "temperatures": lambda config, amounts: 7.0 * config.prompts * config.samples * len(config.temperatures),
    "judge": lambda config, amounts: 40.0 * amounts.tests,
    "benchmark": lambda config, amounts: 4.0 * len(config.tasks) * (config.most or 2000),
    "likelihood": lambda config, amounts: float(amounts.held_out_documents),
}
"""Turns of a dialogue that a stage's work is worth."""
