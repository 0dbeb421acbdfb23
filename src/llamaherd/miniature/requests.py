"""Reading prompts back: from the text of a dialogue to the task it asks for. Judge and reference answers see nothing else."""

from functools import cache

from ..chat.dialogue import Dialogue
from .attacks import INSIST, Request, unwrapped, without_leads
from .constraints import Constraint, all_constraints
from .preprompts import all_preprompts
from .world import World


@cache
def _instructions() -> tuple[str, ...]:
    """Texts that may stand before or after a question: constraints (Ghost Attention repeats them) and safety preprompts."""
    every = all_preprompts()
    safety = (*every.generic, *(text for texts in every.by_category.values() for text in texts))
    return (*safety, *(text for constraint in all_constraints() for text in (constraint.instruction, constraint.short)))


def understood(world: World, prompt: Dialogue) -> Request | None:
    """What the last user message asks for, or None when the world never asks that.

    Constraints and safety preprompts around the question are passed over; a message that only insists stands for the
    user message before it.
    """
    for message in reversed(prompt.prompt.messages):
        if message.role == "user":
            text, _ = without_leads(message.content.strip(), _instructions())
            if text not in INSIST:
                return unwrapped(world, text)
    return None


def constraints_in(prompt: Dialogue) -> list[Constraint]:
    """The constraints that the system text or a user message of the dialogue lays down."""
    texts = [message.content for message in prompt.messages if message.role != "assistant"]
    return [
        constraint for constraint in all_constraints()
        if any(constraint.instruction in text or constraint.short in text for text in texts)
    ]  # fmt: skip
