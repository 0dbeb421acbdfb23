"""The chat page: one HTML file and what it loads, all of it from this package."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ..errors import ApiError

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parent / "static"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
TYPES |= {".svg": "image/svg+xml"}
HEADERS = {"Cache-Control": "no-cache", "Permissions-Policy": "camera=(), geolocation=(), microphone=()"}
"""Asked for anew each time, and answered in a few bytes while it stays the same; what keeps the browser safe is the door's."""


class File(NamedTuple):
    """A file of the page, and the tag that changes with it."""

    content: bytes
    media_type: str
    tag: str


def _read(path: Path) -> File:
    content = path.read_bytes()
    return File(content, TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


FILES = {path.name: _read(path) for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES}
"""All that is served, by name: read once, so that no name in a request ever becomes a path."""


def _answer(request: Request, file: File) -> Response:
    headers = {**HEADERS, "ETag": file.tag}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    if file.tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The chat page."""
    return _answer(request, FILES["index.html"])


@router.api_route("/static/{name}", methods=["GET", "HEAD"])
async def static(request: Request, name: str) -> Response:
    """What the page loads: a style sheet, a script or a picture. 404 for any other name."""
    if name not in FILES:
        raise ApiError(404, "there is no such file")
    return _answer(request, FILES[name])
