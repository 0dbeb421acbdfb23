"""`POST /v1/moderations`, answered by the guard's reward model."""

import secrets
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from ...chat.dialogue import Dialogue, Message, checked, parse_dialogue
from ...measures.calibration import sigmoid
from ..errors import ApiError
from ..guard import Guard, Score
from ..streams import unless_gone
from .fields import Body, service
from .forms import Part
from .rewards import DialogueMessage
from .shapes import BAD, Moderation

router = APIRouter()


class InputPart(Part):
    """A piece of text, as OpenAI's newer form has it."""

    type: Literal["text"]
    text: str


class ModerationBody(Body):
    """Texts, or one dialogue: of one that ends with an assistant its answer is judged, otherwise the prompt."""

    model: str | None = None
    input: str | list[str] | list[InputPart] | None = None
    messages: Annotated[list[DialogueMessage], Field(min_length=1)] | None = None


@router.post("/v1/moderations", response_model=Moderation, tags=["rewards"], responses=BAD)
async def moderations(request: Request, body: ModerationBody) -> dict[str, Any]:
    """How unsafe texts are: `flagged` when they score below the guard's threshold."""
    serving = service(request)
    serving.demand_ready()
    guard = serving.guard
    if guard is None:
        raise ApiError(404, "this server has no guard that could judge; start it with --guard REWARD_MODEL", "model", "no_guard")
    if body.model not in (None, guard.name):
        raise ApiError(404, f"moderations come from {guard.name!r}, not {body.model!r}; leave model out", "model", "model_not_found")
    dialogues = _dialogues(body, serving.config.limits.prompts, serving.config.limits.messages)
    scores = await unless_gone(request, serving.rewards.scored(partial(guard.scores, dialogues), len(dialogues)))
    results = [_result(guard, one, score) for one, score in zip(dialogues, scores, strict=True)]
    return {"id": f"modr-{secrets.token_hex(12)}", "model": guard.name, "results": results}


def _dialogues(body: ModerationBody, most_texts: int, most_messages: int) -> list[Dialogue]:
    if (body.input is None) == (body.messages is None):
        raise ApiError(400, "give either input, a text or a list of texts, or messages, one dialogue", "input")
    if body.messages is not None:
        if len(body.messages) > most_messages:
            raise ApiError(400, f"{len(body.messages)} messages; at most {most_messages} are judged at once", "messages")
        return [parse_dialogue({"messages": [one.model_dump() for one in body.messages]})]
    given = [body.input] if isinstance(body.input, str) else body.input or []
    parts = [one.text for one in given if isinstance(one, InputPart)]
    texts = ["".join(parts)] if parts else [one for one in given if isinstance(one, str)]
    if not 0 < len(texts) <= most_texts:
        raise ApiError(400, f"{len(texts)} texts; from 1 to {most_texts} are judged at once", "input")
    return [checked((Message("user", text),), where=f"input {number}") for number, text in enumerate(texts, 1)]


def _result(guard: Guard, dialogue: Dialogue, score: Score) -> dict[str, Any]:
    flagged = score.value < guard.threshold("prompt" if dialogue.last.role == "user" else "answer")
    return {
        "flagged": flagged,
        "categories": {"unsafe": flagged},
        "category_scores": {"unsafe": sigmoid(-score.logit)},
        "category_applied_input_types": {"unsafe": ["text"]},
        "turns_left_out": score.left_out,
    }
