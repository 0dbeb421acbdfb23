"""What the bodies of requests have in common. null equals absent; what cannot be honoured is refused by name."""

import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import JSONResponse, Response

from ...core.errors import UserError, did_you_mean, one_line
from ...core.seeds import seed_for
from ...generate.config import MOST_ALTERNATIVES, SamplingConfig
from ...tokenizer.sentencepiece import check_unicode
from ..answers import cancel
from ..config import LimitsConfig
from ..errors import ApiError
from ..service import Served, Service
from ..streams import EventStream, unless_gone
from ..worker import Ticket

HINTS = frozenset({"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"})
"""What changes no answer, and is passed over."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "modalities": (["text"],), "best_of": (1,), "suffix": ("",),
    "reasoning_effort": ("none",), "verbosity": ("medium",),
}  # fmt: skip
"""What is not supported, but asks for nothing at these values."""
LARGEST_SEED = (1 << 63) - 1
LEAST_TEMPERATURE = 1e-4
"""Below, what stands in the exponent is no longer a number."""
MOST_ITEMS = 1 << 14
"""Longest list of messages, prompts or stop texts that is looked at before the operator's limits are."""

Texts = Annotated[list[str], Field(fail_fast=True, max_length=MOST_ITEMS)]


MOST_NAMED = 8
"""Fields that one refusal names."""


class Body(BaseModel):
    """A request's body: typed strictly, unknown fields refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
    hints: ClassVar[frozenset[str]] = HINTS

    @model_validator(mode="before")
    @classmethod
    def _what_is_asked(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        asked = {
            key: value
            for key, value in raw.items()
            if value is not None and (key in cls.model_fields or not (key in cls.hints or value in NEUTRAL.get(key, ())))
        }
        if unknown := [key for key in asked if key not in cls.model_fields]:
            named = [f"{one_line(key, 80)}: {_why_not(key, cls.model_fields)}" for key in unknown[:MOST_NAMED]]
            more = [f"and {len(unknown) - MOST_NAMED} more"] if len(unknown) > MOST_NAMED else []
            raise ApiError(400, "; ".join([*named, *more]), param=one_line(unknown[0], 80))
        return asked


def _why_not(key: str, known: Any) -> str:
    if key in NEUTRAL:
        return f"is not supported at any value but {' or '.join(map(repr, NEUTRAL[key]))}; leave it out"
    return f"is not supported{did_you_mean(key, known)}; leave it out"


class StreamOptions(Body):
    """What a stream says besides the answer."""

    include_usage: bool = False
    """A last chunk, without choices, that counts the tokens."""
    include_obfuscation: Literal[False] = False
    """Chunks are never padded."""


class Sampled(Body):
    """What says how an answer is sampled, and how it comes."""

    model: str
    """A name of `GET /v1/models`: a model, or an adapter on one."""
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.6
    """0 takes the likeliest token each time."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Nucleus: the likeliest tokens are kept while what stands before them has at most this probability."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Only so many of the likeliest tokens are kept; 0 keeps all. An extension."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Tokens are kept while they have at least this share of the likeliest one's probability. An extension."""
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """Above 1: tokens that were there already are less likely. An extension."""
    seed: Annotated[int, Field(ge=-LARGEST_SEED, le=LARGEST_SEED)] | None = None
    """For the same answers again; without it every request gets others."""
    stop: str | Texts = []
    """Texts that end an answer, which is cut before the first of them."""
    n: Annotated[int, Field(ge=1)] = 1
    """So many answers."""
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    """Longest answer. What the context has no room for is not said: the answer ends there with `finish_reason` `length`."""
    stream: bool = False
    """Whether the answer comes as server-sent events, a chunk each, and `[DONE]`."""
    stream_options: StreamOptions | None = None
    """Only together with `stream`."""

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def demand(self, limits: LimitsConfig) -> None:
        """Raises ApiError for more of anything than one request may ask for."""
        if 0 < self.temperature < LEAST_TEMPERATURE:
            raise ApiError(
                400,
                f"temperature is {self.temperature:g}; give 0 for the likeliest token, or at least {LEAST_TEMPERATURE:g}",
                "temperature",
            )
        if self.n > limits.answers:
            raise ApiError(400, f"n is {self.n}, and this server gives at most {limits.answers} answers to one prompt", "n")
        if len(self.stops) > limits.stops:
            raise ApiError(400, f"stop holds {len(self.stops)} texts, and this server looks for at most {limits.stops}", "stop")
        if "" in self.stops:
            raise ApiError(400, "stop: an empty text would stop every answer before it begins; leave it out", "stop")
        for stop in self.stops:
            demand_unicode(stop, "stop")
        longest = max(map(len, self.stops), default=0)
        if longest > limits.stop_characters:
            raise ApiError(400, f"stop: a text has {longest} characters, and at most {limits.stop_characters} may be asked for", "stop")
        if self.stream_options and not self.stream:
            raise ApiError(400, "stream_options is for streams; set stream to true or leave it out", "stream_options")
        demand_length(self.max_tokens, "max_tokens", limits)

    def sampling(self, most_new_tokens: int, alternatives: int = 0, prompt_log_probs: bool = False) -> SamplingConfig:
        """For the engine."""
        return SamplingConfig(
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, min_p=self.min_p, repetition_penalty=self.repetition_penalty,
            max_new_tokens=most_new_tokens, stop=tuple(self.stops),
            top_log_probs=min(alternatives, MOST_ALTERNATIVES), prompt_log_probs=prompt_log_probs,
        )  # fmt: skip


def demand_unicode(text: str, name: str) -> None:
    """Raises ApiError for a lone surrogate."""
    try:
        check_unicode(text)
    except UserError as error:
        raise ApiError(400, f"{name}: {error}", name) from None


def demand_length(tokens: int | None, name: str, limits: LimitsConfig) -> None:
    """Raises ApiError for answers that are longer than any may be."""
    if tokens is not None and tokens > limits.new_tokens:
        raise ApiError(400, f"{name} is {tokens}, and this server's answers have at most {limits.new_tokens} tokens", name)


def sequence_seed(seed: int, index: int) -> int:
    """The engine's seed of the answer with this index: the first one's is the seed itself, so it is the answer that
    `Assistant.answers(..., seeds=[seed])` gives.
    """
    return seed % (1 << 64) if index == 0 else seed_for(seed, "answer", index)


def service(request: Request) -> Service:
    """The service that a route belongs to."""
    found: Service = request.app.state.service
    return found


def owner(request: Request) -> str:
    """Who asks: the name of the key that was shown, or `local` where no keys are asked for."""
    name: str = getattr(request.state, "owner", "local")
    return name


def admitted(request: Request, body: Sampled, prompts: int = 1) -> tuple[Served, LimitsConfig]:
    """The model that is asked, and this server's limits. Raises ApiError for a body beyond them, and where the queue has no room."""
    serving = service(request)
    served, limits = serving.model(body.model), serving.config.limits
    body.demand(limits)
    served.worker.demand_room(prompts * body.n)
    return served, limits


def drawn(body: Sampled) -> int:
    """The seed that was asked for, or any."""
    return secrets.randbits(32) if body.seed is None else body.seed


class Replying(Protocol):
    """A request at work, which is told whole or in pieces."""

    async def whole(self) -> dict[str, Any]:
        """The object that a request without `stream` gets."""

    def chunks(self) -> AsyncGenerator[list[dict[str, Any]]]:
        """The objects of a stream, those that come at once together."""


async def replied(request: Request, body: Sampled, replying: Replying, tickets: Sequence[Ticket], limits: LimitsConfig) -> Response:
    """The answer in the form that was asked for; whoever leaves before its end frees its places."""
    if body.stream:
        return EventStream(replying.chunks(), limits.silence_s, lambda: cancel(tickets))
    return JSONResponse(await unless_gone(request, replying.whole()))
