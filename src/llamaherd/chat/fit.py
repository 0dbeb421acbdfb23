"""Fitting a long dialogue into the context: the oldest turns go, the system text stays."""

from typing import Literal

from ..core.errors import UserError
from ..tokenizer.sentencepiece import Tokenizer
from .dialogue import Dialogue, checked
from .template import encode_continued, encode_prompt

Overflow = Literal["drop-turns", "refuse"]
"""What happens when the context is full: the oldest turns are left out and the system text stays, or the message is refused."""


def told(dropped: int) -> str:
    """What to say of turns that were left out."""
    return f"the context is full: the oldest {'turn is' if dropped == 1 else f'{dropped} turns are'} left out"


QUICK_CHARACTERS = 100_000
"""So many are tokenized in no time, so their number of tokens can be told exactly."""
FOLDED_TOKENS = 16
"""A turn that takes on the system text may spare so many tokens: where texts meet, pieces join."""


def encode_open(dialogue: Dialogue, tokenizer: Tokenizer) -> list[int]:
    """Ids of what a model goes on from: a prompt, or an answer that was begun."""
    return encode_prompt(dialogue, tokenizer) if dialogue.last.role == "user" else encode_continued(dialogue, tokenizer)


def fit_prompt(dialogue: Dialogue, tokenizer: Tokenizer, limit_tokens: int) -> tuple[Dialogue, int]:
    """(the dialogue without its oldest turns as far as needed, how many went): at most `limit_tokens` ids as a prompt.

    A turn is a user message with its answer. Turns are read from the newest on: what goes takes no time, however long it is.
    Raises UserError when the last message alone, with the system text, is too long.
    """
    system = dialogue.messages[: dialogue.system is not None]
    rest = dialogue.messages[len(system) :]
    last = first = dialogue.turns - 1

    def since(turn: int) -> Dialogue:
        return checked((*system, *rest[2 * turn :]), dialogue.trained)

    what = "the last message with the system text" if system else "the last message"
    demand_possible(since(last), tokenizer, limit_tokens, what)
    tokens = needed_tokens = len(encode_open(since(last), tokenizer))
    if needed_tokens > limit_tokens:
        raise UserError(f"{what} takes {needed_tokens} tokens, and there is room for {limit_tokens}; shorten it")
    while first and tokens <= limit_tokens + FOLDED_TOKENS:
        turn = checked(rest[2 * first - 2 : 2 * first])
        if least_tokens(turn, tokenizer) > limit_tokens:
            break
        tokens += len(encode_continued(turn, tokenizer))
        first -= 1
    while first < last and len(encode_open(since(first), tokenizer)) > limit_tokens:
        first += 1
    return since(first), first


def least_tokens(dialogue: Dialogue, tokenizer: Tokenizer) -> int:
    """So many tokens a dialogue has in any case, by its length alone; 0 when it is short enough to be tokenized."""
    characters = sum(len(message.content) for message in dialogue.messages)
    return characters // tokenizer.longest_piece if characters > QUICK_CHARACTERS else 0


def demand_possible(dialogue: Dialogue, tokenizer: Tokenizer, limit_tokens: int, what: str) -> None:
    """Raises UserError for a dialogue that is too long in any case, before the time is taken to make tokens of it."""
    if (tokens := least_tokens(dialogue, tokenizer)) > limit_tokens:
        raise UserError(f"{what} takes at least {tokens} tokens, and there is room for {limit_tokens}; shorten it")


def demand_room(tokens: int, context: int, where: str) -> None:
    """Raises UserError when a prompt of so many tokens fills the context and so leaves no room for an answer."""
    if tokens >= context:
        raise UserError(f"{where} has {tokens} tokens, and the model's context is {context}; shorten it or leave out earlier turns")
