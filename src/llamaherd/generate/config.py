"""How answers are sampled."""

from pydantic import Field

from ..core.config import Config


class SamplingConfig(Config):
    """Temperature, nucleus and length of generated answers."""

    temperature: float = Field(0.6, ge=0)
    """0 takes the most likely token; the reference code's default otherwise."""
    top_p: float = Field(0.9, gt=0, le=1)
    """Nucleus: tokens are kept while the probability before them is at most this."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer; one that is cut here is marked as unfinished."""
