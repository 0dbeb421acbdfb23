"""Saved conversations of whoever asks, for the chat page: trees of messages, searched, exported, imported."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, Field
from starlette.responses import JSONResponse, Response, StreamingResponse

from ..store.conversations import UUID, NewNode
from ..store.exchange import TAIL, export, head
from ..store.intake import taken_in
from .fields import Body, owner, service
from .shapes import ERRORS, Imported, Saved, SavedFile, SavedList, SavedMessage, SavedTree

router = APIRouter(
    prefix="/api",
    tags=["conversations"],
    responses={400: ERRORS[400], 404: {**ERRORS[404], "description": "There is no such conversation or message."}},
)
LONGEST_QUERY = 200
FILE = {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SavedFile"}}}}
"""The body that a route reads itself."""


def _uuid(id: str) -> str:
    if not UUID.fullmatch(id):
        raise ValueError("expected a UUID, as crypto.randomUUID() makes them")
    return id


Id = Annotated[str, AfterValidator(_uuid)]


class NewConversation(Body):
    id: Id | None = None
    title: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)


class ConversationChange(Body):
    title: str | None = None
    settings: dict[str, Any] | None = None
    leaf: Id | None = None


class NewMessage(Body):
    """A message under `parent`, or without one the first."""

    id: Id
    parent: Id | None = None
    role: Literal["system", "user", "assistant"]
    content: str
    model: Annotated[str, Field(max_length=500)] | None = None
    meta: dict[str, Any] = Field(default_factory=dict)


class MessageChange(Body):
    content: str | None = None
    meta: dict[str, Any] | None = None


def _json(text: str) -> Response:
    return Response(text.encode(), media_type="application/json")


@router.get("/conversations", responses={200: {"model": SavedList}})
async def conversations(
    request: Request,
    query: Annotated[str, Query(max_length=LONGEST_QUERY)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str, Query(max_length=60)] = "",
) -> JSONResponse:
    """Heads, the last changed first. `next` is the `before` of the next page. With `query`, those whose title or texts hold it:
    `snippet` is a line around the first hit in a text, `hit` says in which message (`node`) and where in the snippet.
    """
    store = service(request).store
    return JSONResponse(await store.database.do(store.list, owner(request), query, limit, before))


@router.post("/conversations", response_model=None, responses={200: {"model": SavedTree}})
async def create(request: Request, body: NewConversation) -> Response:
    """A new conversation; with an `id` that there is already, that one as it is."""
    store = service(request).store
    return _json(await store.database.do(store.create, owner(request), body.id, body.title, body.settings))


@router.get("/conversations/{id}", response_model=None, responses={200: {"model": SavedTree}})
async def conversation(request: Request, id: str) -> Response:
    """With all of its messages, parents before their children."""
    store = service(request).store
    return _json(await store.database.do(store.get, owner(request), id))


@router.patch("/conversations/{id}", response_model=None, responses={200: {"model": Saved}})
async def change(request: Request, id: str, body: ConversationChange) -> Response:
    """Title, settings (as a whole) or the message that the page stands at; answers with the head, without messages."""
    store = service(request).store
    return _json(await store.database.do(store.change, owner(request), id, body.title, body.settings, body.leaf))


@router.delete("/conversations/{id}", status_code=204, response_model=None)
async def remove(request: Request, id: str) -> Response:
    """With all of its messages."""
    store = service(request).store
    await store.database.do(store.remove, owner(request), id)
    return Response(status_code=204)


@router.post("/conversations/{id}/nodes", response_model=None, responses={200: {"model": SavedMessage}})
async def add(request: Request, id: str, body: NewMessage) -> Response:
    """A message under another one, or the first. The same one again, with the same id, changes nothing and gets the same answer."""
    store = service(request).store
    return _json(await store.database.do(store.add, owner(request), id, NewNode(**dict(body))))


@router.patch("/conversations/{id}/nodes/{node}", response_model=None, responses={200: {"model": SavedMessage}})
async def change_node(request: Request, id: str, node: str, body: MessageChange) -> Response:
    """Another text, or what is kept beside it, each as a whole."""
    store = service(request).store
    return _json(await store.database.do(store.change_node, owner(request), id, node, body.content, body.meta))


@router.delete("/conversations/{id}/nodes/{node}", response_model=None, responses={200: {"model": Saved}})
async def remove_node(request: Request, id: str, node: str) -> Response:
    """A message and all that followed on it; answers with the head of the conversation."""
    store = service(request).store
    return _json(await store.database.do(store.remove_node, owner(request), id, node))


def _file(content: Any, name: str) -> StreamingResponse:
    return StreamingResponse(
        content,
        media_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
    )


@router.get("/export", response_model=None, responses={200: {"model": SavedFile}})
async def export_all(request: Request) -> Response:
    """All conversations of whoever asks, as one file that /api/import reads."""
    store = service(request).store
    return _file(await store.database.do(export, store, owner(request)), "llamaherd-conversations.json")


@router.get("/conversations/{id}/export", response_model=None, responses={200: {"model": SavedFile}})
async def export_one(request: Request, id: str) -> Response:
    """One conversation, in the same format."""
    store = service(request).store
    text = await store.database.do(store.get, owner(request), id)
    return _file(iter([head(), text, TAIL]), f"llamaherd-conversation-{id}.json")


@router.post("/import", responses={200: {"model": Imported}}, openapi_extra={"requestBody": FILE})
async def import_file(request: Request) -> JSONResponse:
    """A file of ours, or dialogues `{"messages": [...]}`: one, a list, or lines. Everything gets new ids, so nothing is overwritten.

    `{"imported": how many, "left_out": [{"index", "why"}]}`.
    """
    store = service(request).store
    return JSONResponse(await taken_in(store, owner(request), await request.body()))
