"""What may be done with saved conversations. Whose they are is asked everywhere; another's are not there."""

import asyncio
import json
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, and_, delete, exists, func, or_, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ...chat.dialogue import Message, Role, demand_text
from ..config import StoreConfig
from ..errors import ApiError
from .database import Database
from .snippets import snippet
from .tables import Conversation, Node, folded

UUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
FOLLOWS: dict[Role | None, tuple[Role, ...]] = {
    None: ("system", "user"), "system": ("user",), "user": ("assistant",), "assistant": ("user",),
}  # fmt: skip
"""Which roles may follow which; None: at the beginning."""


@dataclass(frozen=True)
class NewNode:
    """A message to be added under `parent`."""

    id: str
    parent: str | None
    role: Role
    content: str
    model: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    created_s: float | None = None
    """null: now."""

    def under(self, parent: Node | None, depth: int) -> None:
        """Raises ApiError unless it may stand there; counts messages from 1."""
        name = f"message {depth + 1} ({self.role})"
        expected = FOLLOWS[cast(Role, parent.role) if parent else None]
        if self.role not in expected:
            order = "roles go [system] user assistant user assistant ..."
            raise ApiError(400, f"{name}: expected {' or '.join(expected)} here; {order}", "role")
        demand_text(Message(self.role, self.content), name)


class Conversations:
    """All users' in one database. Every method is one transaction, takes as long as that does, and raises ApiError."""

    def __init__(self, database: Database, config: StoreConfig):
        self.database, self.config = database, config
        self.importing = asyncio.Lock()

    def list(self, owner: str, query: str, limit: int, before: str | None) -> dict[str, Any]:
        """A page of heads, the last changed first, and where the next one begins; with a query only those that hold it."""
        sought = folded(query.strip())
        wanted = select(Conversation).where(Conversation.owner == owner)
        if sought:
            inside = exists().where(Node.conversation == Conversation.key, Node.folded.contains(sought, autoescape=True))
            wanted = wanted.where(or_(Conversation.folded.contains(sought, autoescape=True), inside))
        if before:
            wanted = wanted.where(tuple_(Conversation.updated_s, Conversation.key) < tuple_(*_place(before)))
        wanted = wanted.order_by(Conversation.updated_s.desc(), Conversation.key.desc()).limit(limit + 1)
        with self.database.reading() as session:
            found = list(session.scalars(wanted))
            data = [{**_head(one), **_hit(session, one, query.strip())} for one in found[:limit]]
        last = found[limit - 1] if len(found) > limit else None
        return {"data": data, "next": last and f"{last.updated_s!r}_{last.key}"}

    def create(self, owner: str, id: str | None, title: str, settings: dict[str, Any]) -> str:
        """An empty one, or the one that has this id already (asked twice, or the answer got lost)."""
        id = id or str(uuid.uuid4())
        try:
            with self.database.writing() as session:
                if session.scalar(_conversation(owner, id)) is None:
                    self.demand_room(session, owner, 1)
                    session.add(self.made(owner, id, title, settings, time.time()))
        except IntegrityError:  # made meanwhile by another process
            pass
        return self.get(owner, id)

    def get(self, owner: str, id: str) -> str:
        """The whole tree as JSON, parents before their children."""
        with self.database.reading() as session:
            return whole(session, _found(session, owner, id))

    def change(self, owner: str, id: str, title: str | None, settings: dict[str, Any] | None, leaf: str | None) -> str:
        """What is not None; the head as JSON. None of it counts as a change of the conversation's text."""
        with self.database.writing() as session:
            conversation = _found(session, owner, id, lock=True)
            if title is not None:
                conversation.title, conversation.folded = self._title(title), folded(title)
            if settings is not None:
                conversation.settings = self.json(settings, "settings")
            if leaf is not None:
                conversation.leaf = _node(session, conversation, leaf, ApiError(400, "leaf: no such node in this conversation", "leaf")).id
            return _head_json(conversation)

    def remove(self, owner: str, id: str) -> None:
        """With all of its messages."""
        with self.database.writing() as session:
            conversation = _found(session, owner, id, lock=True)
            session.execute(delete(Node).where(Node.conversation == conversation.key))
            session.delete(conversation)

    def add(self, owner: str, id: str, new: NewNode) -> str:
        """The message as JSON, and the conversation stands at it. Once, however often it is asked for with the same id and text."""
        with self.database.writing() as session:
            conversation = _found(session, owner, id, lock=True)
            there = session.scalar(select(Node).where(Node.conversation == conversation.key, Node.id == new.id))
            if there is not None:
                if (there.parent, there.role, there.content) != (new.parent, new.role, new.content):
                    raise ApiError(409, "id: another message of this conversation has it; give a new one a new id", "id", "conflict")
                return node_json(there)
            parent = None
            if new.parent is not None:
                parent = _node(session, conversation, new.parent, ApiError(400, "parent: no such node in this conversation", "parent"))
            count = session.scalar(select(func.count()).where(Node.conversation == conversation.key)) or 0
            self.demand_nodes(count + 1)
            node = self.node(conversation, new, parent, parent.depth + 1 if parent else 0)
            session.add(node)
            conversation.leaf, conversation.updated_s = node.id, node.created_s
            return node_json(node)

    def change_node(self, owner: str, id: str, node_id: str, content: str | None, meta: dict[str, Any] | None) -> str:
        """What is not None, as a whole; the message as JSON."""
        with self.database.writing() as session:
            conversation = _found(session, owner, id, lock=True)
            node = _node(session, conversation, node_id, _missing("message"))
            if content is not None:
                self._content(content)
                demand_text(Message(cast(Role, node.role), content), f"message {node.depth + 1} ({node.role})")
                node.content, node.folded = content, folded(content)
                conversation.updated_s = time.time()
            if meta is not None:
                node.meta = self.json(meta, "meta")
            return node_json(node)

    def remove_node(self, owner: str, id: str, node_id: str) -> str:
        """It and all below it; the head as JSON, which stands above it if it stood within."""
        with self.database.writing() as session:
            conversation = _found(session, owner, id, lock=True)
            node = _node(session, conversation, node_id, _missing("message"))
            below = {node.id: node.key}
            for row in session.execute(select(Node.key, Node.id, Node.parent).where(_after(node)).order_by(Node.key)):
                if row.parent in below:  # which stands before it
                    below[row.id] = row.key
            keys = sorted(below.values(), reverse=True)  # children before their parents
            for first in range(0, len(keys), 1000):
                chunk = delete(Node).where(Node.key.in_(keys[first : first + 1000]))
                session.execute(chunk.execution_options(synchronize_session=False))
            if conversation.leaf in below:
                conversation.leaf = node.parent
            return _head_json(conversation)

    def made(self, owner: str, id: str, title: str, settings: dict[str, Any], now_s: float) -> Conversation:
        """A row that may be added."""
        return Conversation(
            owner=owner, id=id, title=self._title(title), folded=folded(title), settings=self.json(settings, "settings"), leaf=None,
            created_s=now_s, updated_s=now_s,
        )  # fmt: skip

    def node(self, conversation: Conversation, new: NewNode, parent: Node | None, depth: int) -> Node:
        """A row that may be added."""
        new.under(parent, depth)
        self._content(new.content)
        return Node(
            conversation=conversation.key, id=new.id, parent=new.parent, depth=depth, role=new.role, content=new.content,
            model=new.model, meta=self.json(new.meta, "meta"), created_s=time.time() if new.created_s is None else new.created_s,
            folded=folded(new.content),
        )  # fmt: skip

    def demand_room(self, session: Session, owner: str, more: int) -> None:
        """Raises ApiError where so many more conversations would be too many."""
        count = session.scalar(select(func.count()).where(Conversation.owner == owner)) or 0
        if count + more > self.config.conversations:
            said = f"{count} conversations are kept, and at most {self.config.conversations} may be; delete some"
            raise ApiError(400, said, code="too_many")

    def demand_nodes(self, count: int) -> None:
        if count > self.config.nodes:
            raise ApiError(400, f"a conversation has at most {self.config.nodes} messages; start a new one", code="too_many")

    def json(self, value: dict[str, Any], name: str) -> str:
        """As it is kept. Raises ApiError for what JSON cannot say and for what is too long."""
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            size_bytes = len(text.encode())
        except (ValueError, RecursionError):  # NaN, half of a surrogate pair, or nested without end
            raise ApiError(400, f"{name}: holds what JSON cannot say, or is nested too deep", name) from None
        if size_bytes > self.config.meta_bytes:
            raise ApiError(400, f"{name}: {size_bytes} bytes; at most {self.config.meta_bytes} are kept", name)
        return text

    def _title(self, title: str) -> str:
        if len(title) > self.config.title_characters:
            raise ApiError(400, f"title: {len(title)} characters; at most {self.config.title_characters} are kept", "title")
        return title

    def _content(self, content: str) -> None:
        if len(content) > self.config.content_characters:
            raise ApiError(400, f"content: {len(content)} characters; at most {self.config.content_characters} are kept", "content")


def _missing(what: str) -> ApiError:
    return ApiError(404, f"no such {what}", code="not_found")


def _conversation(owner: str, id: str) -> Select[Conversation]:
    return select(Conversation).where(Conversation.owner == owner, Conversation.id == id)


def _found(session: Session, owner: str, id: str, lock: bool = False) -> Conversation:
    """With `lock` nobody else changes it before the end of the transaction."""
    wanted = _conversation(owner, id)
    there = session.scalar(wanted.with_for_update() if lock else wanted) if UUID.fullmatch(id) else None
    if there is None:
        raise _missing("conversation")
    return there


def _node(session: Session, conversation: Conversation, id: str, otherwise: ApiError) -> Node:
    wanted = select(Node).where(Node.conversation == conversation.key, Node.id == id)
    there = session.scalar(wanted) if UUID.fullmatch(id) else None
    if there is None:
        raise otherwise
    return there


def _after(node: Node) -> ColumnElement[bool]:
    return and_(Node.conversation == node.conversation, Node.key > node.key)


def _place(cursor: str) -> tuple[float, int]:
    match = re.fullmatch(r"([0-9.e+]{1,30})_([0-9]{1,18})", cursor)
    try:
        return float(match[1]), int(match[2])  # type: ignore[index]
    except (TypeError, ValueError):
        raise ApiError(400, "before: not a place that a list of conversations named as its next", "before") from None


def _head(one: Conversation) -> dict[str, Any]:
    return {"id": one.id, "title": one.title, "created_s": one.created_s, "updated_s": one.updated_s}


def _head_json(one: Conversation) -> str:
    head = json.dumps({**_head(one), "leaf": one.leaf}, ensure_ascii=False)
    return f'{head[:-1]}, "settings": {one.settings}}}'


def _hit(session: Session, one: Conversation, query: str) -> dict[str, Any]:
    """`snippet` around the first hit in a text, and `hit`: which message, and where in the snippet."""
    if query:
        inside = select(Node.id, Node.content).where(Node.conversation == one.key, Node.folded.contains(folded(query), autoescape=True))
        found = session.execute(inside.order_by(Node.key).limit(1)).first()
        place = found and snippet(found.content, query)
        if found and place:
            said, start, length = place
            return {"snippet": said, "hit": {"node": found.id, "start": start, "length": length}}
    return {"snippet": None, "hit": None}


def node_json(node: Any) -> str:
    """What was kept as JSON goes out as it is."""
    said = {
        "id": node.id, "parent": node.parent, "role": node.role, "content": node.content, "model": node.model, "created_s": node.created_s,
    }  # fmt: skip
    return f'{json.dumps(said, ensure_ascii=False)[:-1]}, "meta": {node.meta}}}'


def whole(session: Session, conversation: Conversation) -> str:
    """A conversation with its messages, as JSON."""
    columns = (Node.id, Node.parent, Node.role, Node.content, Node.model, Node.created_s, Node.meta)
    rows = session.execute(select(*columns).where(Node.conversation == conversation.key).order_by(Node.key))
    return f'{_head_json(conversation)[:-1]}, "nodes": [{", ".join(node_json(row) for row in rows)}]}}'
