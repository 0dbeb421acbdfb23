"""`POST /v1/chat/completions`."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from ...chat.dialogue import parse_dialogue
from ...core.seeds import seed_for
from ...generate.sequence import Completion
from ..streams import EventStream, unless_gone
from ..worker import Asked, Ticket
from .fields import Sampled, owner, service

router = APIRouter()


class TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message, its content as text or as parts of text."""

    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatBody(Sampled):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None


@router.post("/v1/chat/completions", response_model=None)
async def chat_completions(request: Request, body: ChatBody) -> Response:
    """An answer to a dialogue."""
    serving = service(request)
    model = serving.model(body.model)
    assistant = model.worker.assistant
    dialogue = parse_dialogue({"messages": [{"role": one.role, "content": one.text} for one in body.messages]}, ends_with="user")
    prompt = await asyncio.to_thread(assistant.prompt_ids, dialogue)
    sampling = body.sampling(most_new_tokens=body.max_completion_tokens or body.max_tokens or serving.config.limits.new_tokens)
    seed = secrets.randbits(32) if body.seed is None else body.seed
    asked = [Asked(prompt, sampling, seed_for(seed, "answer", index), model.adapter, owner(request)) for index in range(body.n)]
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model.name}
    tickets = model.worker.submit(asked)
    if body.stream:
        return EventStream(_chunks(tickets, head), serving.config.limits.silence_s)
    return JSONResponse(await unless_gone(request, _whole(tickets, head)))


async def _whole(tickets: list[Ticket], head: dict[str, Any]) -> dict[str, Any]:
    try:
        choices = await asyncio.gather(*(_choice(index, ticket) for index, ticket in enumerate(tickets)))
    finally:
        for ticket in tickets:
            ticket.cancel()
    return {**head, "object": "chat.completion", "choices": choices}


async def _choice(index: int, ticket: Ticket) -> dict[str, Any]:
    text = ""
    completion: Completion | None = None
    async for event in ticket:
        text += event.text
        completion = event.completion
    assert completion is not None
    reason = "stop" if completion.finished else "length"
    return {"index": index, "message": {"role": "assistant", "content": text.strip()}, "finish_reason": reason, "logprobs": None}


async def _chunks(tickets: list[Ticket], head: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    try:
        async for event in tickets[0]:
            delta = {"content": event.text}
            yield {**head, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": event.reason}]}
    finally:
        for ticket in tickets:
            ticket.cancel()
