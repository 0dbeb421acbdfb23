"""`POST /v1/completions`: raw texts or ids to go on from, without the chat format; with `echo`, log-probabilities of the prompt itself."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field
from starlette.responses import Response

from ...chat.dialogue import Message
from ...chat.fit import QUICK_CHARACTERS, demand_room
from ...core.errors import UserError
from ...generate.config import MOST_ALTERNATIVES
from ...generate.sequence import Alternatives, Completion, Event
from ...tokenizer.sentencepiece import TextStream, Tokenizer
from ..answers import LOWEST, Begun, Said, Source, Token, at_work, events, fingerprint, spoken, usage
from ..config import LimitsConfig
from ..errors import ApiError
from ..guard import Refused
from ..service import Served
from ..streams import unless_gone
from ..worker import Asked, Ticket
from .fields import MOST_ITEMS, Sampled, Texts, admitted, drawn, owner, replied, sequence_seed, service
from .shapes import ERRORS, Completed, streamed

router = APIRouter()

USUAL_TOKENS = 16
"""What OpenAI's route gives when no length is asked for."""
Ids = Annotated[list[int], Field(fail_fast=True)]


class CompletionBody(Sampled):
    """What is to be gone on from."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "miniature", "prompt": "Once", "max_tokens": 20, "logprobs": 3, "echo": True}]}
    )

    prompt: Annotated[
        str | Texts | Ids | Annotated[list[Ids], Field(fail_fast=True, max_length=MOST_ITEMS)], Field(union_mode="left_to_right")
    ]
    """A text, several, the ids of one prompt, or of several. Ids are taken as they are; a text gets a begin before it."""
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    """Longest completion, 16 if not given; 0 only with `echo`."""
    echo: bool = False
    """The prompt comes back before its completion, with `logprobs` those of its own tokens too."""
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    """Each token's log-probability (the model's own, before temperature and the rest) and so many of the likeliest beside it."""
    add_special_tokens: bool = True
    """Whether a text gets a begin before it. An extension."""

    @property
    def prompts(self) -> Sequence[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return self.prompt  # type: ignore[return-value]

    @property
    def longest(self) -> int:
        return USUAL_TOKENS if self.max_tokens is None else self.max_tokens

    def demand(self, limits: LimitsConfig) -> None:
        """Raises ApiError for more of anything than one request may ask for, and for fields that contradict each other."""
        super().demand(limits)
        count = len(self.prompts)
        if not count:
            raise ApiError(400, "prompt is an empty list; give a text or ids", "prompt")
        if count > limits.prompts:
            raise ApiError(400, f"prompt holds {count}, and this server takes at most {limits.prompts}", "prompt")
        if count * self.n > limits.waiting:
            asked = f"{count} prompts with {self.n} answers each"
            raise ApiError(400, f"{asked} are more than this server's queue has room for, {limits.waiting}", "n")
        if self.longest == 0 and not self.echo:
            raise ApiError(400, "max_tokens is 0 and echo is not set, which asks for nothing", "max_tokens")


@dataclass(frozen=True)
class Prompt:
    """`text` is what `echo` gives back."""

    text: str
    ids: list[int]


def read_prompts(served: Served, body: CompletionBody) -> list[Prompt]:
    """Takes as long as tokenising does, so in a thread. Raises ApiError for what is no prompt of this model or leaves no room in its
    context.
    """
    prompts = body.prompts
    return [
        _read(served, prompt, body, "the prompt" if len(prompts) == 1 else f"prompt {index + 1}") for index, prompt in enumerate(prompts)
    ]


def _read(served: Served, prompt: str | list[int], body: CompletionBody, name: str) -> Prompt:
    assistant = served.worker.assistant
    tokenizer, context = assistant.tokenizer, assistant.model.config.context
    if not prompt:
        begin = f"; [{tokenizer.bos_id}], the id of begin alone, starts a new text"
        raise ApiError(400, f"{name} is empty{begin}", "prompt")
    try:
        if isinstance(prompt, str):
            demand_text(prompt, name)
            if len(prompt) > QUICK_CHARACTERS:
                demand_room(len(prompt) // tokenizer.longest_piece, context, f"{name} is {len(prompt)} characters long; it")
            ids = [tokenizer.bos_id] * body.add_special_tokens + tokenizer.encode(prompt)
            text = prompt
        else:
            demand_ids(prompt, tokenizer, name, "prompt")
            demand_room(len(prompt), context, name)
            ids, text = prompt, tokenizer.decode(prompt)
        demand_room(len(ids), context, name)
    except UserError as error:
        raise ApiError(400, str(error), "prompt", "context_length_exceeded" if "context" in str(error) else None) from None
    return Prompt(text, ids)


def demand_text(text: str, name: str) -> None:
    """Raises ApiError for what no text holds."""
    if "\0" in text:
        raise ApiError(400, f"{name}: contains NUL (U+0000), which is no text; remove it", "prompt")


def demand_ids(ids: Sequence[int], tokenizer: Tokenizer, name: str, param: str) -> None:
    """Raises ApiError for ids that the tokenizer has not."""
    low, high = min(ids, default=0), max(ids, default=0)
    if low < 0 or high >= tokenizer.vocab_size:
        foreign = low if low < 0 else high
        raise ApiError(400, f"{name}: {foreign} is no id of this model, whose ids are 0 to {tokenizer.vocab_size - 1}", param)


@router.post(
    "/v1/completions", response_model=None, tags=["completions"], responses={200: {"model": Completed, **streamed(Completed)}, **ERRORS}
)
async def completions(request: Request, body: CompletionBody) -> Response:
    """What follows each prompt."""
    serving = service(request)
    served, limits = admitted(request, body, len(body.prompts))
    prompts = await unless_gone(request, asyncio.to_thread(read_prompts, served, body))
    sampling = body.sampling(max(1, body.longest), body.logprobs or 0, body.echo and body.logprobs is not None)
    seed = drawn(body)
    asked = [
        Asked(prompt.ids, sampling, sequence_seed(seed, index), served.adapter, owner(request), begun=prompt.text != "")
        for prompt in prompts for index in range(body.n)
    ]  # fmt: skip
    begun = [Begun((Message("user", prompt.text),)) for prompt in prompts]
    tickets, sources = await unless_gone(request, at_work(served.worker, asked, serving.guard, begun, not body.stream, body.longest > 0))
    completing = Completing(body, served, prompts, tickets, sources, limits.deadline_s)
    return await replied(request, body, completing, tickets, limits)


class Completing:
    """One request at work: its sequences, and what is told of them. Answer `i` is of prompt `i // n`."""

    def __init__(
        self, body: CompletionBody, served: Served, prompts: Sequence[Prompt], tickets: Sequence[Ticket],
        sources: Sequence[Source], deadline_s: float,
    ):  # fmt: skip
        self._body, self._prompts, self._tickets, self._sources, self._deadline_s = body, prompts, tickets, sources, deadline_s
        assistant = served.worker.assistant
        self._tokenizer = assistant.tokenizer
        self._said = [
            Said(assistant.tokenizer, assistant.stop_ids, self._prompt(index).text != "", None, with_end=True)
            for index in range(len(sources))
        ]
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time()), "model": served.name,
            "system_fingerprint": fingerprint(served),
        }  # fmt: skip

    async def whole(self) -> dict[str, Any]:
        """The object that a request without `stream` gets."""
        choices: dict[int, dict[str, Any]] = {}
        async for portion in events(self._sources, self._tickets, self._deadline_s):
            for index, event in portion:
                said = self._said[index]
                self._taken(said, event)
                if event.reason:
                    choices[index] = self._choice(index, said.text, said.tokens, said.finish_reason, echo=True)
        return {**self._head, "choices": [choices[index] for index in sorted(choices)], "usage": self._usage()}

    async def chunks(self) -> AsyncGenerator[list[dict[str, Any]]]:
        """The objects of a stream, those that come at once together: pieces as they come, the prompt before the first one if wanted; then
        what was used, if wanted.
        """
        begun: set[int] = set()
        left = len(self._said)
        async for portion in events(self._sources, self._tickets, self._deadline_s):
            chunks: list[dict[str, Any]] = []
            for index, event in portion:
                said = self._said[index]
                text, tokens = self._taken(said, event)
                first = index not in begun
                begun.add(index)
                left -= event.reason is not None
                if text or tokens or event.reason or (first and self._body.echo):
                    reason = said.finish_reason if event.reason else None
                    choice = self._choice(index, text, tokens, reason, echo=first)
                    chunks.append({**self._head, "choices": [choice], **({"usage": None} if self._body.usage_wanted else {})})
            if not left and self._body.usage_wanted:
                chunks.append({**self._head, "choices": [], "usage": self._usage()})
            yield chunks

    def _prompt(self, index: int) -> Prompt:
        return self._prompts[index // self._body.n]

    def _taken(self, said: Said, event: Event) -> tuple[str, list[Token]]:
        """The engine always makes a token; where none was asked for, it was made for the prompt's log-probabilities alone."""
        if self._body.longest or isinstance(event, Refused):
            return said.take(event)
        said.completion = Completion(
            prompt_log_probs=event.completion.prompt_log_probs, prompt_alternatives=event.completion.prompt_alternatives,
            known_tokens=event.completion.known_tokens,
        )  # fmt: skip
        return "", []

    def _choice(self, index: int, text: str, tokens: Sequence[Token], reason: str | None, echo: bool) -> dict[str, Any]:
        prompt = self._prompt(index)
        echoed = echo and self._body.echo
        log_probs = None
        if self._body.logprobs is not None and not self._said[index].refused:
            base = len(prompt.text) if self._body.echo else 0
            said = [Scored(token.id, token.log_prob, token.alternatives, base + token.start) for token in tokens]
            log_probs = self._log_probs(self._echoed(index) + said if echoed else said)
        return {"index": index, "text": prompt.text + text if echoed else text, "logprobs": log_probs, "finish_reason": reason}

    def _echoed(self, index: int) -> list["Scored"]:
        """The prompt's own tokens; nothing stands before the first, so it has no log-probability."""
        completion = self._said[index].completion
        assert completion is not None, "a prompt is read before its first event"
        log_probs = [None, *completion.prompt_log_probs]
        alternatives = [None, *(completion.prompt_alternatives or [[] for _ in completion.prompt_log_probs])]
        offsets, stream, length = [], TextStream(self._tokenizer), 0
        for id in self._prompt(index).ids:
            offsets.append(length)
            length += len(stream.feed(id))
        return [Scored(*one) for one in zip(self._prompt(index).ids, log_probs, alternatives, offsets, strict=True)]

    def _log_probs(self, tokens: Sequence["Scored"]) -> dict[str, Any]:
        """As in OpenAI's older completions: lists that match token by token."""
        return {
            "tokens": [spoken(self._tokenizer, token.id)[0] for token in tokens],
            "token_logprobs": [None if token.log_prob is None else max(token.log_prob, LOWEST) for token in tokens],
            "top_logprobs": [self._top(token) for token in tokens],
            "text_offset": [token.offset for token in tokens],
        }

    def _top(self, token: "Scored") -> dict[str, float] | None:
        """The likeliest tokens by their text, and the one that was taken; of two with one text the second is written as a piece."""
        if token.log_prob is None or token.alternatives is None:
            return None
        top: dict[str, float] = {}
        others = token.alternatives if token.id in dict(token.alternatives) else [*token.alternatives, (token.id, token.log_prob)]
        for id, log_prob in others:
            text = spoken(self._tokenizer, id)[0]
            top[self._tokenizer.piece(id) if text in top else text] = max(log_prob, LOWEST)
        return top

    def _usage(self) -> dict[str, Any]:
        return usage([prompt.ids for prompt in self._prompts], self._said)


@dataclass(frozen=True)
class Scored:
    """A token of prompt or completion, and where its text begins in what comes back."""

    id: int
    log_prob: float | None
    alternatives: Alternatives | None
    offset: int
