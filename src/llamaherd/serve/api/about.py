"""What there is, and how it is: models and health."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from ...core.errors import did_you_mean, one_line
from ..errors import ApiError
from ..rewards import Reward
from ..service import Served
from .fields import owner, service
from .shapes import ERRORS, Health, Me, Model, Models

router = APIRouter()


@router.head("/health", include_in_schema=False)
@router.get("/health", response_model=Health, tags=["about"], responses={503: {"model": Health, "description": "Not ready."}})
async def health(request: Request) -> JSONResponse:
    """`{"status": "loading" | "ready" | "draining" | "failed"}`; 200 only when ready. Needs no key."""
    state = service(request).health
    return JSONResponse({"status": state}, 200 if state == "ready" else 503)


@router.get("/api/me", response_model=Me, tags=["about"])
async def me(request: Request) -> dict[str, Any]:
    """Whose conversations these are, and whether a session in a browser says so, which `POST /logout` ends."""
    return {"name": owner(request), "signed_in": getattr(request.state, "signed_in", False)}


@router.get("/v1/models", response_model=Models, tags=["about"])
async def models(request: Request) -> dict[str, Any]:
    """Every name that can be asked for: models, and adapters on them."""
    serving = service(request)
    rewards = [_told_reward(one, serving.started_s) for one in serving.rewards.models.values()]
    return {"object": "list", "data": [_told(one) for one in serving.models.values()] + rewards}


@router.get("/v1/models/{name:path}", response_model=Model, tags=["about"], responses={404: ERRORS[404]})
async def model(request: Request, name: str) -> dict[str, Any]:
    """One of them."""
    known, rewards = service(request).models, service(request).rewards.models
    if name in rewards:
        return _told_reward(rewards[name], service(request).started_s)
    if name not in known:
        shown = one_line(name, 100)
        raise ApiError(404, f"no model {shown!r}{did_you_mean(name, known)}; there are {', '.join(known)}", "model", "model_not_found")
    return _told(known[name])


def _told(one: Served) -> dict[str, Any]:
    """`max_model_len` is the context in tokens, null until the model is loaded; `parent` the model that an adapter is on."""
    worker = one.base.worker
    return {
        "id": one.name, "object": "model", "created": one.created_s, "owned_by": "llamaherd", "root": one.base.name,
        "parent": one.base.name if one.adapter else None, "max_model_len": worker.assistant.model.config.context if worker else None,
        "type": "chat",
    }  # fmt: skip


def _told_reward(one: Reward, started_s: int) -> dict[str, Any]:
    return {
        "id": one.name, "object": "model", "created": started_s, "owned_by": "llamaherd", "root": one.name, "parent": None,
        "max_model_len": one.model.scorer.config.context if one.model else None, "type": "reward",
    }  # fmt: skip
