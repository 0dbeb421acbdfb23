"""Fitting a long dialogue into the context: the oldest turns go, the system text stays."""

from typing import Literal

from ..core.errors import UserError
from ..tokenizer.sentencepiece import Tokenizer
from .dialogue import Dialogue, checked
from .template import encode_prompt

Overflow = Literal["drop-turns", "refuse"]
"""What happens when the context is full: the oldest turns are left out and the system text stays, or the message is refused."""


def told(dropped: int) -> str:
    """What to say of turns that were left out."""
    return f"the context is full: the oldest {'turn is' if dropped == 1 else f'{dropped} turns are'} left out"


def fit_prompt(dialogue: Dialogue, tokenizer: Tokenizer, limit_tokens: int) -> tuple[Dialogue, int]:
    """(the dialogue without its oldest turns as far as needed, how many went): at most `limit_tokens` ids as a prompt.

    A turn is a user message with its answer. Raises UserError when the last message alone, with the system text, is too long.
    """
    system = dialogue.messages[: dialogue.system is not None]
    rest = dialogue.messages[len(system) :]
    for dropped in range(dialogue.turns):
        kept = checked((*system, *rest[2 * dropped :]), dialogue.trained)
        needed_tokens = len(encode_prompt(kept, tokenizer))
        if needed_tokens <= limit_tokens:
            return kept, dropped
    what = "the last message with the system text" if system else "the last message"
    raise UserError(f"{what} takes {needed_tokens} tokens, and there is room for {limit_tokens}; shorten it")


def demand_room(tokens: int, context: int, where: str) -> None:
    """Raises UserError when a prompt of so many tokens fills the context and so leaves no room for an answer."""
    if tokens >= context:
        raise UserError(f"{where} has {tokens} tokens, and the model's context is {context}; shorten it or leave out earlier turns")
