"""Fitting a long dialogue into the context: the oldest turns go, the system text stays."""

from ..core.errors import UserError
from ..tokenizer.sentencepiece import Tokenizer
from .dialogue import Dialogue, checked
from .template import encode_prompt


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
