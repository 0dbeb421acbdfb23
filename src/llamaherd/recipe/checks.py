"""What stages ask of each other: impossible combinations of settings, found before the first stage starts."""

from collections.abc import Iterator

from ..core.errors import UserError
from ..core.seeds import seed_for
from ..miniature.documents import SHARES
from ..miniature.world import World
from ..model.config import ModelConfig
from ..stages import temperatures
from ..stages.evaluate import TASKS, test_prompts
from ..stages.pretrain import shape
from ..stages.world import prompt_files
from .config import RecipeConfig

LEAST_TURN_TOKENS = 6
"""No turn takes fewer: <s>, both instruction tags, a question, an answer, </s>."""


def problems(recipe: RecipeConfig) -> list[str]:
    """Everything about a recipe that some stage would refuse later, in sentences; empty when there is nothing."""
    found = [*_sources(recipe), *_prompts(recipe)]
    try:
        model = shape(recipe.pretrain, recipe.tokenizer.vocab_size)
    except UserError as error:
        return [f"pretrain: {error}", *found]
    return [*_lengths(recipe, model), *found]


def _lengths(recipe: RecipeConfig, model: ModelConfig) -> Iterator[str]:
    """Rows, answers and dialogues that are longer than the context."""
    for name, row_tokens in (("early", recipe.early.row_tokens), ("sft", recipe.sft.row_tokens), ("tune", recipe.tune.row_tokens)):
        if row_tokens and row_tokens > model.context:
            yield f"{name}.row_tokens: given {row_tokens}, expected at most the model's context, {model.context}"
    answers = {
        "collect": recipe.collect.max_new_tokens, "reject": recipe.reject.max_new_tokens, "ppo.ppo": recipe.ppo.ppo.max_new_tokens,
        "ghost.sampling": recipe.ghost.sampling.max_new_tokens, "distill.sampling": recipe.distill.sampling.max_new_tokens,
        "evaluate.sampling": recipe.evaluate.sampling.max_new_tokens,
        "evaluate.ghost_sampling": recipe.evaluate.ghost_sampling.max_new_tokens, "claims.temperatures": recipe.claims.temperatures.max_new_tokens,
    }  # fmt: skip
    for name, tokens in answers.items():
        if tokens > model.context - LEAST_TURN_TOKENS:
            yield f"{name}.max_new_tokens: given {tokens}, which leaves no room for a prompt in the model's context, {model.context}"
    for name, turns in (("world.ghost_turns", recipe.world.ghost_turns[0]), ("evaluate.ghost_turns", max(recipe.evaluate.ghost_turns))):
        if turns * LEAST_TURN_TOKENS > model.context:
            yield f"{name}: {turns} turns never fit into the model's context, {model.context}"


def _sources(recipe: RecipeConfig) -> Iterator[str]:
    unknown = [name for name in recipe.shards.weights if name not in SHARES]
    if unknown:
        yield f"shards.weights: no source {', '.join(unknown)}; the miniature's are {', '.join(SHARES)}"
    if recipe.corpus.filters.block_list is not None:
        yield "corpus.filters.block_list: a recipe's is the miniature's own; add hosts by corpus.filters.blocked_hosts"


def _prompts(recipe: RecipeConfig) -> Iterator[str]:
    """Prompts are drawn as the stages will draw them: a world has only so many different ones."""
    world = World(recipe.world.world)
    try:
        prompt_files(world, recipe.world, seed_for(recipe.seed, "world"))
    except UserError as error:
        yield f"world: {error}"
    for task in TASKS:
        try:
            test_prompts(world, recipe.evaluate, task)
        except UserError as error:
            yield f"evaluate, {task}: {error}"
    try:
        temperatures.test_prompts(world, recipe.claims.temperatures)
    except UserError as error:
        yield f"claims.temperatures: {error}"
