"""How the work of a chain is spread over its steps, for the time left: the factors are from runs of the packaged recipes on a CPU."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..stages.pretrain import shape
from .config import RecipeConfig
from .steps import Step

_TURN_TOKENS = 40
"""A question with its answer, roughly; only the proportions between steps matter."""
_SECONDS_PER_WEIGHT = 4e-11
"""Of pretraining, for each token and weight."""
_TWO_THREADS = 1.4
"""What a second thread of pretraining brings, on an idle machine."""
_LEAST_S = 0.05
"""What starting and writing any step costs."""


def work(step: Step, recipe: RecipeConfig) -> float:
    """Expected seconds of a step on one core, from its settings and from how much the recipe's world writes."""
    config: Any = step.config
    if step.stage in ("world", "corpus", "tokenizer", "shards"):
        documents: int = config.documents if step.stage == "world" else recipe.world.documents
        return _LEAST_S + documents * (2e-4 if step.stage == "corpus" else 2e-5)
    weights = shape(recipe.pretrain, recipe.tokenizer.vocab_size).parameters
    if step.stage == "pretrain":
        own = shape(config, recipe.tokenizer.vocab_size).parameters
        tokens: int = config.steps * config.batch_rows * config.row_tokens
        return _LEAST_S + _SECONDS_PER_WEIGHT * own * 3.0 * tokens / (_TWO_THREADS if (step.threads or 1) > 1 else 1.0)
    return _LEAST_S + _SECONDS_PER_WEIGHT * weights * _TURN_TOKENS * _TURNS[step.stage](config, recipe)


def _tuning(config: Any, recipe: RecipeConfig) -> float:
    if config.steps:
        return float(2 * config.steps * config.batch_rows * (config.row_tokens or 4096) / _TURN_TOKENS)
    shares = config.shares or [1.0] * len(config.data)
    dialogues = sum(share * _dialogues(path, recipe) for path, share in zip(config.data, shares, strict=True))
    return float(6.0 * config.epochs * dialogues)


def _dialogues(path: Path, recipe: RecipeConfig) -> float:
    """Dialogues of a file, roughly."""
    if path.name == "demonstrations.jsonl":
        return recipe.world.dialogues
    return 4.0 * recipe.world.ghost_dialogues if path.parent.name == "ghost" else 2.0 * recipe.world.rejection_prompts


def _rewarding(config: Any, recipe: RecipeConfig) -> float:
    world = recipe.world
    own, other = world.helpfulness_pairs, world.safety_pairs
    if config.domain == "safety":
        own, other = other, own
    pairs = min(config.most_pairs or math.inf, 0.75 * len(config.data) * (own + min(other, config.other_share * own)))
    return float(7.7 * config.epochs * pairs)


def _evaluating(config: Any, recipe: RecipeConfig) -> float:
    costs = {
        "helpfulness": 40.0 * config.helpfulness_prompts, "safety": 20.0 * config.safety_prompts,
        "borderline": 20.0 * config.borderline_prompts, "people": 20.0 * config.people_prompts,
        "ghost": 40.0 * config.ghost_dialogues * max(config.ghost_turns),
        "rewards": (2.0 if config.answers else 22.0) * (config.helpfulness_prompts + config.safety_prompts),
    }  # fmt: skip
    return sum(float(costs.get(task, 0)) for task in config.tasks)


_TURNS: dict[str, Callable[[Any, RecipeConfig], float]] = {
    "sft": _tuning,
    "collect": lambda config, recipe: 15.0 * (recipe.world.helpfulness_pairs + recipe.world.safety_pairs),
    "reward": _rewarding,
    "reject": lambda config, recipe: (
        8.0 * (recipe.world.rejection_prompts * config.k if config.prompts else recipe.world.best_of_prompts * config.judged_k)
    ),
    "ppo": lambda config, recipe: 30.0 * config.ppo.iterations * config.ppo.batch,
    "ghost": lambda config, recipe: 5.0 * recipe.world.ghost_dialogues * sum(recipe.world.ghost_turns),
    "distill": lambda config, recipe: 50.0 * recipe.world.distilled_prompts,
    "evaluate": _evaluating,
    "temperatures": lambda config, recipe: 7.0 * config.prompts * config.samples * len(config.temperatures),
    "likelihood": lambda config, recipe: float(recipe.claims.held_out_documents),
}
"""Turns of a dialogue that a stage's work is worth."""
