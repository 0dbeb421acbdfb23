"""How answers are sampled."""

from pydantic import Field, field_validator

from ..core.config import Config

MOST_ALTERNATIVES = 20
"""As many as OpenAI-compatible APIs give."""


class SamplingConfig(Config):
    """What happens to the logits, in this order: penalty, temperature, top-k, top-p, min-p; and where an answer ends."""

    temperature: float = Field(0.6, ge=0)
    """0 takes the most likely token; the reference code's default otherwise."""
    top_p: float = Field(0.9, gt=0, le=1)
    """Nucleus: tokens are kept while the probability before them is at most this."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer; one that is cut here is marked as unfinished."""
    top_k: int = Field(0, ge=0)
    """Only so many of the likeliest tokens are kept (and those that equal the last of them); 0 keeps all."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Tokens are kept while they have at least this share of the likeliest token's probability."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Logits of tokens in prompt or answer are divided by this when positive and multiplied when negative; 1 does nothing."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer, which is cut before them."""
    top_log_probs: int = Field(0, ge=0, le=MOST_ALTERNATIVES)
    """So many of the likeliest tokens are told beside each token that was taken."""
    prompt_log_probs: bool = False
    """Whether the prompt's own tokens get log-probabilities too."""

    @field_validator("stop")
    @classmethod
    def _stops_say_something(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("an empty text would stop every answer before it begins; leave it out")
        return stop
