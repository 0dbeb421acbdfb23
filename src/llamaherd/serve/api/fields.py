"""What the bodies of requests have in common. null equals absent; what cannot be honoured is refused by name."""

from typing import Annotated, Any, ClassVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...generate.config import MOST_ALTERNATIVES, SamplingConfig
from ..service import Service

HINTS = frozenset({"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"})
"""What changes no answer, and is passed over."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "modalities": (["text"],), "best_of": (1,), "suffix": ("",),
    "parallel_tool_calls": (True, False),
}  # fmt: skip
"""What is not supported, but asks for nothing at these values."""
LARGEST_SEED = (1 << 63) - 1


class Body(BaseModel):
    """A request's body: typed strictly, unknown fields refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    hints: ClassVar[frozenset[str]] = HINTS

    @model_validator(mode="before")
    @classmethod
    def _what_is_asked(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        return {
            key: value
            for key, value in raw.items()
            if value is not None and key not in cls.hints and not (key in NEUTRAL and value in NEUTRAL[key])
        }


class Sampled(Body):
    """What says how an answer is sampled."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.6
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    seed: Annotated[int, Field(ge=-LARGEST_SEED, le=LARGEST_SEED)] | None = None
    stop: str | list[str] = []
    n: Annotated[int, Field(ge=1)] = 1
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stream: bool = False

    def sampling(self, alternatives: int = 0, prompt_log_probs: bool = False, most_new_tokens: int = 256) -> SamplingConfig:
        """For the engine."""
        return SamplingConfig(
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, min_p=self.min_p, repetition_penalty=self.repetition_penalty,
            max_new_tokens=most_new_tokens, stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop),
            top_log_probs=min(alternatives, MOST_ALTERNATIVES), prompt_log_probs=prompt_log_probs,
        )  # fmt: skip


def service(request: Request) -> Service:
    """The service that a route belongs to."""
    found: Service = request.app.state.service
    return found


def owner(request: Request) -> str:
    """Who asks: the name of the key that was shown, or `local` where no keys are asked for."""
    name: str = getattr(request.state, "owner", "local")
    return name
