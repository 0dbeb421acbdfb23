"""`POST /v1/chat/completions` and the exact prompt that it makes."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, JsonValue
from starlette.responses import Response

from ...assistant.local import Trim
from ...chat.dialogue import Dialogue, checked
from ...chat.fit import Overflow, demand_possible, demand_room
from ...core.errors import UserError
from ...generate.config import MOST_ALTERNATIVES
from ...generate.sequence import Event
from ...tokenizer.sentencepiece import Tokenizer
from ..answers import Begun, Said, Source, at_work, chat_log_probs, events, fingerprint, spoken, usage
from ..config import LimitsConfig
from ..errors import ApiError
from ..service import Served, Service
from ..streams import unless_gone
from ..tools import Reader, Turn, in_three_roles, with_tools
from ..worker import Asked, Ticket
from .fields import MOST_ITEMS, Sampled, admitted, demand_length, drawn, owner, replied, sequence_seed, service
from .forms import Form, Formed, Part, ToolCall, form_of
from .shapes import BAD, ERRORS, ChatChunk, ChatCompletion, Preview, streamed

router = APIRouter()

EXAMPLE: dict[str, JsonValue] = {
    "model": "miniature", "messages": [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "What is a herd?"}],
    "temperature": 0.7, "seed": 7, "max_completion_tokens": 100,
}  # fmt: skip


class TextPart(Part):
    type: Literal["text"]
    text: str


class ChatMessage(Part):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    """`developer` is another word for `system`, which may only come first."""
    content: str | Annotated[list[TextPart], Field(fail_fast=True, max_length=MOST_ITEMS)] | None = None
    """Text, or parts of text, which are put together. Only an assistant that calls may say nothing."""
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True, max_length=MOST_ITEMS, default_factory=list)]
    """What an assistant called."""
    tool_call_id: str | None = None
    """Which of these calls a tool's message answers."""
    name: str | None = None
    """Passed over: Llama 2's format has no place for it."""
    parsed: JsonValue = None
    """Passed over: OpenAI's client keeps beside an answer what it read of it, and sends that back."""

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())

    def turn(self, where: str) -> Turn:
        """Raises ApiError for fields that its role does not have, and for text that is none."""
        role = "system" if self.role == "developer" else self.role
        if self.content is None and not self.tool_calls:
            raise ApiError(400, f"{where}: has no content", "messages")
        if self.tool_calls and role != "assistant":
            raise ApiError(400, f"{where}: only an assistant's message has tool_calls", "messages")
        if (self.tool_call_id is not None) != (role == "tool"):
            raise ApiError(400, f"{where}: a message of role tool has a tool_call_id, and no other has", "messages")
        if "\0" in self.text:
            raise ApiError(400, f"{where}: contains NUL (U+0000), which is no text; remove it", "messages")
        return Turn(role, self.text, tuple(call.read(where) for call in self.tool_calls), self.tool_call_id)


class ChatBody(Formed, Sampled):
    """What is asked of a chat model."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    messages: Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=MOST_ITEMS)]
    """The dialogue: a system text or none, then user and assistant in turn."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The newer name of `max_tokens`."""
    logprobs: bool = False
    """Whether tokens come with their log-probabilities: the model's own, before temperature and the rest."""
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    """So many of the likeliest tokens are told beside each; asks for `logprobs`."""
    continue_final_message: bool = False
    """The last message is an assistant's, and the answer goes on from it. An extension."""
    overflow: Overflow = "refuse"
    """What happens when the context is full: a refusal, or the oldest turns are left out (and counted in `llamaherd.dropped_turns`)
    and the system text stays. An extension."""

    def demand(self, limits: LimitsConfig) -> None:
        """Raises ApiError for more of anything than one request may ask for, and for fields that contradict each other."""
        super().demand(limits)
        if len(self.messages) > limits.messages:
            raise ApiError(400, f"messages holds {len(self.messages)}, and this server takes at most {limits.messages}", "messages")
        if self.max_tokens == 0:
            raise ApiError(400, "max_tokens is 0, and an answer has at least one token", "max_tokens")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ApiError(
                400, f"max_tokens is {self.max_tokens} and max_completion_tokens is {self.max_completion_tokens}; give one of them",
                "max_completion_tokens",
            )  # fmt: skip
        demand_length(self.max_completion_tokens, "max_completion_tokens", limits)
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs asks for logprobs; set it to true as well", "top_logprobs")

    @property
    def dialogue(self) -> Dialogue:
        """Raises ApiError when the messages break a rule of dialogues."""
        dialogue = dialogue_of(self.messages)
        if dialogue.last.role != ("assistant" if self.continue_final_message else "user"):
            rule = (
                "what continue_final_message goes on from is an assistant" if self.continue_final_message else "a prompt ends with a user"
            )
            raise ApiError(400, f"message {len(self.messages)} ({dialogue.last.role}): {rule} message", "messages")
        return dialogue


def dialogue_of(messages: Sequence[ChatMessage]) -> Dialogue:
    """Raises ApiError when the messages break a rule of dialogues."""
    turns = [one.turn(f"message {number} ({one.role})") for number, one in enumerate(messages, 1)]
    try:
        return checked(in_three_roles(turns))
    except UserError as error:
        raise ApiError(400, str(error), "messages") from None


@dataclass(frozen=True)
class Prompt:
    """A dialogue as the model reads it, `dialogue` being what is left of it."""

    dialogue: Dialogue
    ids: list[int]
    dropped_turns: int
    context: int


def read_prompt(served: Served, body: ChatBody, form: Form) -> Prompt:
    """Takes as long as tokenising does, so in a thread. Raises ApiError for messages that break a rule or do not fit."""
    dialogue, assistant = body.dialogue, served.worker.assistant
    if form.wanted:
        dialogue = with_tools(dialogue, form.wanted)
    context, dropped = assistant.model.config.context, 0
    try:
        if body.overflow == "drop-turns":
            wanted = body.max_completion_tokens or body.max_tokens or context
            dialogue, dropped = assistant.fitted(dialogue, body.sampling(wanted))
        demand_possible(dialogue, assistant.tokenizer, context, "the prompt")
        ids = assistant.prompt_ids(dialogue)
        demand_room(len(ids), context, "the prompt")
    except UserError as error:
        raise ApiError(400, str(error), "messages", "context_length_exceeded") from None
    return Prompt(dialogue, ids, dropped, context)


def read_body(serving: Service, served: Served, body: ChatBody) -> tuple[Form, Prompt]:
    """What is asked, in a thread. Raises ApiError."""
    form = form_of(body, serving.config.grammar)
    if form.where and body.continue_final_message:
        raise ApiError(
            400, f"continue_final_message goes on with a text, which {form.where} has begun anew; leave one of them out", form.where
        )
    return form, read_prompt(served, body, form)


def told_message(form: Form, said: Said) -> tuple[dict[str, Any], str]:
    """(the message that a whole answer is, its finish_reason)."""
    if said.refused:
        return {"role": "assistant", "content": said.text, "refusal": None}, said.finish_reason
    reader = form.reader()
    content = reader.feed(said.text)[0] + reader.close()
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if reader.calls:
        message |= {"content": None, "tool_calls": [call.told for call in reader.calls]}
    return message, reader.finish_reason(said.finish_reason)


@router.post(
    "/v1/chat/completions", response_model=None, tags=["chat"], responses={200: {"model": ChatCompletion, **streamed(ChatChunk)}, **ERRORS}
)
async def chat_completions(request: Request, body: ChatBody) -> Response:
    """An answer to a dialogue, or several."""
    serving = service(request)
    served, limits = admitted(request, body)
    form, prompt = await unless_gone(request, asyncio.to_thread(read_body, serving, served, body))
    constraints = await unless_gone(request, form.constraints(served.grammars, body.n))
    longest = body.max_completion_tokens or body.max_tokens or limits.new_tokens
    sampling = body.sampling(longest, body.top_logprobs or 0)
    seed = drawn(body)
    asked = [
        Asked(prompt.ids, sampling, sequence_seed(seed, index), served.adapter, owner(request), constraint, body.continue_final_message)
        for index, constraint in enumerate(constraints)
    ]
    begun = [Begun(prompt.dialogue.prompt.messages, body.messages[-1].text if body.continue_final_message else "")]
    tickets, sources = await unless_gone(request, at_work(served.worker, asked, serving.guard, begun, not body.stream))
    answering = Answering(body, form, served, prompt, tickets, sources, limits.deadline_s)
    return await replied(request, body, answering, tickets, limits)


@router.post("/v1/chat/preview", response_model=Preview, tags=["chat"], responses=BAD)
async def chat_preview(request: Request, body: ChatBody) -> dict[str, Any]:
    """The exact prompt that `/v1/chat/completions` makes of the same body, token by token; nothing is answered."""
    serving = service(request)
    served = serving.model(body.model)
    body.demand(serving.config.limits)
    _, prompt = await unless_gone(request, asyncio.to_thread(read_body, serving, served, body))
    tokenizer = served.worker.assistant.tokenizer
    tokens = [{"id": id, "piece": tokenizer.piece(id), "text": spoken(tokenizer, id)[0]} for id in prompt.ids]
    return {
        "model": served.name, "prompt": shown_prompt(prompt.ids, tokenizer), "tokens": tokens, "count": len(tokens), "context": prompt.context,
        "room": prompt.context - len(tokens), "dropped_turns": prompt.dropped_turns,
    }  # fmt: skip


def shown_prompt(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """Begin and end written out, and the text between them."""
    text, first = "", 0
    for place, id in enumerate([*ids, tokenizer.eos_id]):
        if tokenizer.is_control(id):
            text += tokenizer.decode(ids[first:place]) + (tokenizer.piece(id) if place < len(ids) else "")
            first = place + 1
    return text


class Answering:
    """One request at work: its sequences, and what is told of them."""

    def __init__(
        self, body: ChatBody, form: Form, served: Served, prompt: Prompt, tickets: Sequence[Ticket], sources: Sequence[Source],
        deadline_s: float,
    ):  # fmt: skip
        self._body, self._form, self._prompt, self._tickets, self._sources = body, form, prompt, tickets, sources
        self._deadline_s = deadline_s
        self._tokenizer = served.worker.assistant.tokenizer
        before = not body.continue_final_message or not body.messages[-1].text or body.messages[-1].text[-1].isspace()
        self._said = [Said(self._tokenizer, served.worker.assistant.stop_ids, body.continue_final_message, Trim(before)) for _ in sources]
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": served.name,
            "system_fingerprint": fingerprint(served),
        }  # fmt: skip

    async def whole(self) -> dict[str, Any]:
        """The object that a request without `stream` gets."""
        async for portion in events(self._sources, self._tickets, self._deadline_s):
            for index, event in portion:
                self._said[index].take(event)
        choices = [self._choice(index, said) for index, said in enumerate(self._said)]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage(), **self._extra()}

    async def chunks(self) -> AsyncGenerator[list[dict[str, Any]]]:
        """The objects of a stream, those that come at once together: the role of each answer, its pieces as they come, its end; then what
        was used, if wanted.
        """
        role = {"role": "assistant", "content": None if self._form.wanted else "", "refusal": None}
        yield [self._chunk(index, role) for index in range(len(self._said))]
        left, readers = len(self._said), [self._form.reader() for _ in self._said]
        async for portion in events(self._sources, self._tickets, self._deadline_s):
            chunks: list[dict[str, Any]] = []
            for index, event in portion:
                left -= event.reason is not None
                chunks += self._told(index, event, readers, last=not left)
            if not left and self._body.usage_wanted:
                chunks.append({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage()})
            yield chunks

    def _told(self, index: int, event: Event, readers: list[Reader], last: bool) -> list[dict[str, Any]]:
        """What one more event adds to a stream."""
        said = self._said[index]
        text, tokens = said.take(event)
        log_probs = chat_log_probs(self._tokenizer, tokens) if self._body.logprobs else None
        if said.refused:  # what the guard says is no part of a call that was begun
            readers[index] = Reader(())
        chunks = []
        for delta in _deltas(readers[index], text, bool(event.reason), bool(log_probs and tokens)):
            chunks.append(self._chunk(index, delta, log_probs))
            log_probs = None
        if event.reason:
            reason = readers[index].finish_reason(said.finish_reason)
            chunks.append(self._chunk(index, {}, None, reason, self._extra() if last else {}))
        return chunks

    def _choice(self, index: int, said: Said) -> dict[str, Any]:
        message, reason = told_message(self._form, said)
        log_probs = chat_log_probs(self._tokenizer, said.tokens) if self._body.logprobs and not said.refused else None
        return {"index": index, "message": message, "logprobs": log_probs, "finish_reason": reason}

    def _chunk(
        self, index: int, delta: dict[str, Any], log_probs: dict[str, Any] | None = None, reason: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        choice = {"index": index, "delta": delta, "logprobs": log_probs, "finish_reason": reason}
        usage_null = {"usage": None} if self._body.usage_wanted else {}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **usage_null, **(extra or {})}

    def _usage(self) -> dict[str, Any]:
        return usage([self._prompt.ids], self._said)

    def _extra(self) -> dict[str, Any]:
        """What was left out of the dialogue, where that was allowed."""
        return {"llamaherd": {"dropped_turns": self._prompt.dropped_turns}} if self._body.overflow == "drop-turns" else {}


def _deltas(reader: Reader, text: str, last: bool, tokens: bool) -> list[dict[str, Any]]:
    """What one more piece of an answer tells: content, or parts of calls, or nothing but its tokens."""
    content, calls = reader.feed(text)
    content += reader.close() if last else ""
    deltas: list[dict[str, Any]] = [{"content": content}] if content else []
    deltas += [{"tool_calls": [call]} for call in calls]
    return deltas or ([{}] if tokens else [])
