"""`POST /v1/rewards`: scores of any reward model that is served."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from ...chat.dialogue import parse_dialogue
from ...measures.calibration import sigmoid
from ..errors import ApiError
from ..streams import unless_gone
from .fields import Body, service
from .forms import Part
from .shapes import BAD, RewardList

router = APIRouter()


class DialogueMessage(Part):
    """One message."""

    role: Literal["system", "user", "assistant"]
    content: str


class FinishedDialogue(Part):
    """A line of the file that `llamaherd score` reads."""

    messages: Annotated[list[DialogueMessage], Field(min_length=1)]


class RewardBody(Body):
    """Dialogues that end with an assistant. `model` may be left out where there is one reward model."""

    model: str | None = None
    dialogues: Annotated[list[FinishedDialogue], Field(min_length=1)]


@router.post("/v1/rewards", response_model=RewardList, tags=["rewards"], responses=BAD)
async def rewards(request: Request, body: RewardBody) -> dict[str, Any]:
    """How good the last answer of each dialogue is, as `llamaherd score` says: "score" (0 to 1) and "logit"."""
    serving = service(request)
    serving.demand_ready()
    limits, reward = serving.config.limits, serving.rewards.named(body.model)
    if len(body.dialogues) > limits.prompts:
        raise ApiError(400, f"{len(body.dialogues)} dialogues; at most {limits.prompts} are scored at once", "dialogues")
    names = [f"dialogues[{index}]" for index in range(len(body.dialogues))]
    for name, one in zip(names, body.dialogues, strict=True):
        if len(one.messages) > limits.messages:
            raise ApiError(400, f"{name} has {len(one.messages)} messages; at most {limits.messages} are read", "dialogues")
    dialogues = [parse_dialogue(one.model_dump(), name, "assistant") for name, one in zip(names, body.dialogues, strict=True)]
    assert reward.model is not None, "all are loaded when the server is ready"
    work = partial(reward.model.logits, dialogues, names=names, turn=serving.compute)
    logits = await unless_gone(request, serving.rewards.scored(work, len(dialogues)))
    return {
        "object": "list",
        "model": reward.name,
        "data": [{"object": "reward", "index": index, "score": sigmoid(logit), "logit": logit} for index, logit in enumerate(logits)],
    }
