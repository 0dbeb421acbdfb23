"""`GET /metrics`, for Prometheus."""

from fastapi import APIRouter, Request
from prometheus_client.exposition import choose_encoder
from starlette.responses import PlainTextResponse, Response

from .fields import service

router = APIRouter()


@router.get("/metrics", response_class=PlainTextResponse, tags=["about"])
def metrics(request: Request) -> Response:
    """What the server has counted since it started, in the text form that is asked for."""
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(service(request).metrics.registry), media_type=media_type)
