"""How PPO's answers are sampled, and how many at a time; torch is not imported."""

from ..core.errors import UserError
from ..generate.config import SamplingConfig
from ..model.config import ModelConfig
from ..model.memory import FLOAT, cache_bytes
from .config import PpoConfig

LOGIT_COPIES = 6
"""Of a step's logits: as they are, in float32, scaled, as probabilities, added up, as log-probabilities."""


def sampling_of(config: PpoConfig) -> SamplingConfig:
    """What the engine is asked for."""
    return SamplingConfig(temperature=config.temperature, top_p=config.sampler.top_p, max_new_tokens=config.max_new_tokens)


def sampling_bytes(shape: ModelConfig, rows: int, tokens: int, item: int = FLOAT) -> tuple[int, int]:
    """(keys and values, logits) of so many answers at a time, prompts included up to `tokens` long."""
    return cache_bytes(shape, rows, tokens + 1, item), LOGIT_COPIES * rows * shape.vocab_size * FLOAT


def rows_together(config: PpoConfig, shape: ModelConfig, longest_prompt: int, item: int = FLOAT) -> int:
    """Answers sampled at a time: so many as `sampler` allows and as fit its memory. Raises UserError when not one does."""
    if config.sampler.memory_gib is None:
        return config.sampler.together
    tokens = min(shape.context, longest_prompt + config.max_new_tokens)
    one = sum(sampling_bytes(shape, 1, tokens, item))
    rows = int(config.sampler.memory_gib * 2**30 // one)
    if rows < 1:
        raise UserError(
            f"sampler.memory_gib is {config.sampler.memory_gib:g}, and one answer of up to {tokens} tokens takes {one / 2**30:.3g}; "
            "give more, or a lower max_new_tokens"
        )
    return min(rows, config.sampler.together)
