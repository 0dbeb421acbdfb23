"""What stages ask of each other: impossible combinations of settings, found before the first stage starts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..core.config import dump, flat
from ..core.errors import UserError
from ..stages.pretrain import shape
from . import miniature, public
from .config import MiniatureRecipe, PublicRecipe, RecipeConfig

LEAST_TURN_TOKENS = 6
"""No turn takes fewer: <s>, both instruction tags, a question, an answer, </s>."""
TURNS: Mapping[str, Callable[[Iterable[int]], int]] = {"world.ghost_turns": min, "prompts.ghost_turns": min, "evaluate.ghost_turns": max}
"""Settings that hold numbers of turns, and which of them has to fit into a context."""
OWN: Mapping[type[RecipeConfig], Callable[[Any], Iterable[str]]] = {MiniatureRecipe: miniature.problems, PublicRecipe: public.problems}
"""What only recipes of one kind are asked."""


def problems(recipe: RecipeConfig) -> list[str]:
    """Everything about a recipe that some stage would refuse later, in sentences; empty when there is nothing."""
    found = list(OWN[type(recipe)](recipe))
    try:
        model = shape(recipe.pretrain, recipe.tokenizer.vocab_size)
    except UserError as error:
        return [f"pretrain: {error}", *found]
    return [*_lengths(flat(dump(recipe)), model.context), *found]


def _lengths(settings: Mapping[str, Any], context: int) -> Iterator[str]:
    """Rows, answers and dialogues that are longer than the context; `settings`: all of a recipe, by dotted name."""
    for name, value in settings.items():
        if name.endswith(".row_tokens") and value and value > context:
            yield f"{name}: given {value}, expected at most the model's context, {context}"
    for name, value in settings.items():
        if name.endswith(".max_new_tokens") and value > context - LEAST_TURN_TOKENS:
            yield f"{name}: given {value}, which leaves no room for a prompt in the model's context, {context}"
    for name, longest in TURNS.items():
        if name in settings and (turns := longest(settings[name])) * LEAST_TURN_TOKENS > context:
            yield f"{name}: {turns} turns never fit into the model's context, {context}"
