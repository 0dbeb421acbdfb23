"""Conversations as one JSON file, out and in again, and dialogues of others in."""

import json
import math
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from ...chat.dialogue import parse_dialogue
from ...core.errors import UserError, one_line
from ..errors import ApiError
from .conversations import Conversations, NewNode, whole
from .tables import Conversation, Node

Tree = tuple[Conversation, list[Node]]
FORMAT, VERSION = "llamaherd-conversations", 1
TITLE_CHARACTERS = 60
"""Of a dialogue that brings none: so much of its first question."""


def export(kept: Conversations, owner: str) -> Iterator[str]:
    """All of the owner's, in pieces: one conversation is held in memory at a time, and none is kept locked for a slow reader.

    The database is asked before this returns, and again for each piece.
    """
    with kept.database.reading() as session:
        keys = session.scalars(select(Conversation.key).where(Conversation.owner == owner).order_by(Conversation.key)).all()
    return _pieces(kept, owner, keys)


def _pieces(kept: Conversations, owner: str, keys: Sequence[int]) -> Iterator[str]:
    yield head()
    before = ""
    for key in keys:
        with kept.database.reading() as session:
            one = session.get(Conversation, key)
            text = whole(session, one) if one is not None and one.owner == owner else None
        if text is not None:  # deleted meanwhile
            yield before + text
            before = ",\n"
    yield TAIL


def head() -> str:
    """What stands before the conversations of a file."""
    return f'{{"format": "{FORMAT}", "version": {VERSION}, "exported_s": {time.time()!r}, "conversations": [\n'


TAIL = "\n]}\n"


def take_in(kept: Conversations, owner: str, text: str) -> dict[str, Any]:
    """All that can be read of a file, under new ids; what cannot is counted and named. All of it is written, or nothing."""
    coming: list[Tree] = []
    left_out: list[dict[str, Any]] = []
    try:
        for index, row in enumerate(entries(text)):
            if index == kept.config.conversations:
                raise ApiError(400, f"the file holds more than {index} conversations; split it", code="too_many")
            try:
                coming.append(_tree(kept, owner, row))
            except (UserError, ApiError) as error:
                left_out.append({"index": index, "why": one_line(str(error))})
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the file is not JSON: {one_line(str(error), 100)}") from None
    if coming:
        with kept.database.writing() as session:
            kept.demand_room(session, owner, len(coming))
            for conversation, nodes in coming:
                session.add(conversation)
                session.flush()
                for node in nodes:
                    node.conversation = conversation.key
                session.add_all(nodes)
                session.flush()
                session.expunge_all()
    return {"imported": len(coming), "left_out": left_out}


def entries(text: str) -> Iterator[Any]:
    """Every conversation or dialogue in a file: one, a list, an object with a list `conversations`, or lines of such.

    Read one by one, since a whole file is read without a break in which others get their turn. Raises ValueError.
    """
    place = _skip(text, 1 if text.startswith("\ufeff") else 0)
    if place == len(text):
        raise UserError("the file is empty; expected conversations or dialogues as JSON")
    while place < len(text):
        place = yield from _value(text, place)
        place = _skip(text, place)
        if text[place : place + 1] == ",":
            raise ValueError(f"a comma after the end at character {place}")


def _value(text: str, place: int) -> Generator[Any, None, int]:
    """What an entry of a file holds; returns where it ends."""
    if text[place] == "[":
        return (yield from _items(text, place))
    if text[place] != "{":
        raise UserError("expected conversations or dialogues as JSON: objects, or a list of them")
    start, place = place, _skip(text, place + 1)
    while text[place : place + 1] == '"':
        key, place = _decode(text, place)
        place = _demand(text, _skip(text, place), ":")
        if key == "conversations" and text[place : place + 1] == "[":
            place = _skip(text, (yield from _items(text, place)))
            while text[place : place + 1] == ",":  # what stands behind the list
                _, place = _decode(text, _skip(text, place + 1))
                _, place = _decode(text, _demand(text, _skip(text, place), ":"))
                place = _skip(text, place)
            return _demand(text, place, "}")
        if key in ("messages", "nodes"):
            break
        _, place = _decode(text, place)
        place = _skip(text, place)
        place = _skip(text, place + 1) if text[place : place + 1] == "," else place
    row, end = _decode(text, start)
    yield row
    return end


def _items(text: str, place: int) -> Generator[Any, None, int]:
    place = _skip(text, place + 1)
    if text[place : place + 1] == "]":
        return place + 1
    while True:
        row, place = _decode(text, place)
        yield row
        place = _skip(text, place)
        if text[place : place + 1] != ",":
            return _demand(text, place, "]")
        place = _skip(text, place + 1)


_DECODER = json.JSONDecoder()


def _decode(text: str, place: int) -> tuple[Any, int]:
    return _DECODER.raw_decode(text, place)


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _demand(text: str, place: int, mark: str) -> int:
    if text[place : place + 1] != mark:
        raise ValueError(f"expected {mark} at character {place}")
    return _skip(text, place + 1)


def _tree(kept: Conversations, owner: str, row: Any) -> Tree:
    """Rows of a conversation of ours, or of a dialogue. Raises UserError and ApiError for one that may not be kept."""
    if not isinstance(row, dict):
        raise UserError(f"a JSON {type(row).__name__}; expected a conversation or a dialogue")
    created_s = _time(row.get("created_s"), time.time())
    if "nodes" in row:
        said = _nodes(row["nodes"], created_s)
    else:
        messages = enumerate(parse_dialogue(row).messages)
        said = [NewNode(str(n), str(n - 1) if n else None, one.role, one.content, created_s=created_s) for n, one in messages]
    kept.demand_nodes(len(said))
    title, settings = row.get("title") or _asked(said), row.get("settings") or {}
    if not isinstance(title, str) or not _valid(title) or not isinstance(settings, dict):
        raise UserError("title: expected text, and settings: an object")
    conversation = kept.made(owner, str(uuid.uuid4()), title, settings, created_s)
    conversation.updated_s = _time(row.get("updated_s"), created_s)
    made: dict[str, Node] = {}
    for number, node in enumerate(said, 1):
        if node.id in made or (node.parent is not None and node.parent not in made):
            raise UserError(f"message {number}: its id stands twice, or its parent does not stand before it")
        above = None if node.parent is None else made[node.parent]
        under = replace(node, id=str(uuid.uuid4()), parent=None if above is None else above.id)
        made[node.id] = kept.node(conversation, under, above, above.depth + 1 if above else 0)
    nodes = list(made.values())
    stood = made.get(str(row.get("leaf"))) or (nodes[-1] if nodes else None)
    conversation.leaf = None if stood is None else stood.id
    return conversation, nodes


def _asked(said: list[NewNode]) -> str:
    return one_line(next((node.content for node in said if node.role == "user"), ""), TITLE_CHARACTERS)


def _nodes(raw: Any, created_s: float) -> list[NewNode]:
    if not isinstance(raw, list):
        raise UserError(f"nodes: a JSON {type(raw).__name__}; expected a list")
    return [_node(item, created_s, f"message {number}") for number, item in enumerate(raw, 1)]


def _node(item: Any, created_s: float, where: str) -> NewNode:
    if not isinstance(item, dict):
        raise UserError(f"{where}: a JSON {type(item).__name__}; expected an object")
    role, content, id, parent, model = (item.get(key) for key in ("role", "content", "id", "parent", "model"))
    if role not in ("system", "user", "assistant") or not isinstance(content, str) or not isinstance(id, str):
        raise UserError(f'{where}: expected {{"id", "parent", "role": "system|user|assistant", "content"}}')
    if not isinstance(parent, str | None) or not isinstance(model, str | None) or not _valid(model or ""):
        raise UserError(f"{where}: parent and model are text or null")
    meta = item.get("meta") or {}
    if not isinstance(meta, dict):
        raise UserError(f"{where}: meta is an object")
    return NewNode(id, parent, role, content, model, meta, _time(item.get("created_s"), created_s))


def _valid(text: str) -> bool:
    return text.encode("utf-8", "replace").decode() == text


def _time(value: Any, otherwise: float) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 1e11
    return float(value) if fits else otherwise
