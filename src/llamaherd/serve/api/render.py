"""Text of models and people as HTML that is safe to show, and the colours of its code."""

import json
import time
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from ..renderer import Renderer, escaped
from .fields import Body
from .shapes import Rendered

router = APIRouter(prefix="/api")
PATIENCE_S = 20.0
"""After so long the texts that are left in a request are shown as they were written: others wait for the same process."""


class StyleSheet(Response):
    media_type = "text/css"


class RenderBody(Body):
    texts: Annotated[list[str], Field(max_length=1000)]


@router.post("/render", response_model=None, tags=["page"], responses={200: {"model": Rendered}})
async def render(request: Request, body: RenderBody) -> Response:
    """`{"html": [[block, ...], ...]}`: for each text of Markdown its blocks from top to bottom, so that a page can add them one by one."""
    renderer: Renderer = request.app.state.renderer
    end = time.monotonic() + PATIENCE_S
    made = [await renderer.blocks(text) if time.monotonic() < end else json.dumps(list(escaped(text))) for text in body.texts]
    return Response(f'{{"html": [{", ".join(made)}]}}', media_type="application/json")


@router.get("/pygments.css", response_model=None, response_class=StyleSheet, tags=["page"])
async def pygments_css() -> Response:
    """Colours of code, light and dark."""
    from ..colours import stylesheet

    return StyleSheet(stylesheet(), headers={"Cache-Control": "max-age=3600"})
