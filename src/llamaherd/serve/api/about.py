"""What there is, and how it is: models and health."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from .fields import service

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> JSONResponse:
    """`{"status": "loading" | "ready" | "draining" | "failed"}`; 200 only when ready. Needs no key."""
    state = service(request).state
    return JSONResponse({"status": state}, 200 if state == "ready" else 503)


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """Every name that can be asked for: models, and adapters on them."""
    return {
        "object": "list",
        "data": [
            {"id": one.name, "object": "model", "created": one.created_s, "owned_by": "llamaherd", "root": one.base.name}
            for one in service(request).models.values()
        ],
    }
