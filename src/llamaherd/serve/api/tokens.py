"""Texts and dialogues as the ids that a model reads, and back; in the shapes of vLLM, which lm-eval knows."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from ...chat.template import encode_dialogue
from ...core.errors import UserError
from ..errors import ApiError
from ..service import Served, Service
from ..streams import unless_gone
from .chat import ChatMessage, dialogue_of
from .completions import demand_ids, demand_text
from .fields import MOST_ITEMS, Body, service
from .shapes import BAD, Detokenized, Tokenized, TokenizerInfo

router = APIRouter()


class TokenizeBody(Body):
    """A text, or a dialogue."""

    model: str | None = None
    """May be left out where all models have one tokenizer and context."""
    prompt: str | None = None
    """A text. Nothing in it becomes begin or end, whatever it says."""
    messages: Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=MOST_ITEMS)] | None = None
    """A dialogue in place of a text, as the chat format writes it: up to the answer to come, or with its last answer and end."""
    add_special_tokens: bool = True
    """Whether a text gets a begin before it. A dialogue has its own."""
    add_generation_prompt: bool = True
    """Changes nothing: the chat format has no more than the end of the user's message."""
    continue_final_message: bool = False
    """The dialogue's last answer goes on, and so has no end yet."""
    return_token_strs: bool = False
    """Whether the pieces come as well."""


class DetokenizeBody(Body):
    """Ids."""

    model: str | None = None
    """May be left out where all models have one tokenizer and context."""
    tokens: Annotated[list[int], Field(fail_fast=True)]
    """Ids; begin and end say nothing."""


@router.post("/tokenize", response_model=None, tags=["tokens"], responses={200: {"model": Tokenized}, **BAD})
async def tokenize(request: Request, body: TokenizeBody) -> Response:
    """The ids of a text or a dialogue."""
    served = _served(service(request), body.model)
    if (body.prompt is None) == (body.messages is None):
        raise ApiError(400, "give either prompt or messages", "prompt")
    limit = service(request).config.limits.messages
    if body.messages is not None and len(body.messages) > limit:
        raise ApiError(400, f"messages holds {len(body.messages)}, and this server takes at most {limit}", "messages")
    return await unless_gone(request, asyncio.to_thread(_tokenized, served, body))


@router.post("/detokenize", response_model=None, tags=["tokens"], responses={200: {"model": Detokenized}, **BAD})
async def detokenize(request: Request, body: DetokenizeBody) -> Response:
    """The text of ids."""
    served = _served(service(request), body.model)
    return await unless_gone(request, asyncio.to_thread(_detokenized, served, body))


@router.get("/tokenizer_info", response_model=TokenizerInfo, tags=["tokens"], responses=BAD)
async def tokenizer_info(request: Request, model: str | None = None) -> dict[str, Any]:
    """What lm-eval asks before it uses `/tokenize`. `bos_token` and `eos_token` are null since no text stands for them: they have ids alone."""
    served = _served(service(request), model)
    assistant = served.worker.assistant
    tokenizer = assistant.tokenizer
    return {
        "tokenizer_class": "LlamaTokenizer", "bos_token": None, "eos_token": None, "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id, "vocab_size": tokenizer.vocab_size, "max_model_len": assistant.model.config.context,
    }  # fmt: skip


def _served(serving: Service, name: str | None) -> Served:
    """The model of this name; without one, any, if all read alike. Raises ApiError."""
    if name is not None:
        return serving.model(name)
    serving.demand_ready()
    found = {(one.worker.assistant.tokenizer.hash, one.worker.assistant.model.config.context): one for one in serving.models.values()}
    if len(found) > 1:
        raise ApiError(400, f"the models have different tokenizers or contexts; name one of {', '.join(serving.models)}", "model")
    return next(iter(found.values()))


def _tokenized(served: Served, body: TokenizeBody) -> Response:
    assistant = served.worker.assistant
    tokenizer = assistant.tokenizer
    if body.prompt is not None:
        demand_text(body.prompt, "the prompt")
        try:
            ids = [tokenizer.bos_id] * body.add_special_tokens + tokenizer.encode(body.prompt)
        except UserError as error:
            raise ApiError(400, str(error), "prompt") from None
    else:
        ids = _dialogue_ids(served, body)
    pieces = [tokenizer.piece(id) for id in ids] if body.return_token_strs else None
    return JSONResponse({"count": len(ids), "max_model_len": assistant.model.config.context, "tokens": ids, "token_strs": pieces})


def _dialogue_ids(served: Served, body: TokenizeBody) -> list[int]:
    assistant = served.worker.assistant
    dialogue = dialogue_of(body.messages or [])
    if dialogue.last.role == "user" and body.continue_final_message:
        raise ApiError(400, "the last message is a user's, and continue_final_message goes on from an assistant's", "messages")
    if dialogue.last.role == "assistant" and not body.continue_final_message:
        return encode_dialogue(dialogue, assistant.tokenizer).ids
    return assistant.prompt_ids(dialogue)


def _detokenized(served: Served, body: DetokenizeBody) -> Response:
    tokenizer = served.worker.assistant.tokenizer
    demand_ids(body.tokens, tokenizer, "tokens", "tokens")
    return JSONResponse({"prompt": tokenizer.decode(body.tokens)})
