"""The tables of saved conversations: each a tree of messages of one user.

    conversations  owner, id, title, settings, leaf (where the page stands), times
    nodes          conversation, id, parent (null: the first), role, content, model, meta, time

Both ids come from the client and are unique in their conversation or owner only, so that nobody learns of another's by trying.
"""

import unicodedata
from typing import Any

from sqlalchemy import Dialect, Double, ForeignKey, ForeignKeyConstraint, Index, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class Exact(TypeDecorator[str]):
    """Any Unicode text, the character NUL included, which PostgreSQL cannot keep: it is written as two others, both ways exactly."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value if value is None else storable(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return value if value is None or "\x1a" not in value else value.replace("\x1a0", "\0").replace("\x1a1", "\x1a")


def storable(text: str) -> str:
    """`text` without NUL, and back again by `Exact`."""
    return text.replace("\x1a", "\x1a1").replace("\0", "\x1a0")


def folded(text: str) -> str:
    """What a search compares: letters of any script without their case, marks joined to their letters."""
    return storable(unicodedata.normalize("NFC", text).casefold())


class Base(DeclarativeBase):
    """Of both tables."""


class Conversation(Base):
    """One tree, under its owner."""

    __tablename__ = "conversations"
    __table_args__ = (UniqueConstraint("owner", "id"), Index("conversations_by_time", "owner", "updated_s", "key"))

    key: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(Text)
    id: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Exact)
    settings: Mapped[str] = mapped_column(Text)
    """A JSON object, as text."""
    leaf: Mapped[str | None] = mapped_column(Text)
    created_s: Mapped[float] = mapped_column(Double)
    updated_s: Mapped[float] = mapped_column(Double)
    folded: Mapped[str] = mapped_column(Text, server_default="")


class Node(Base):
    """One message; `key` grows, so a parent's is below its children's."""

    __tablename__ = "nodes"
    __table_args__ = (
        UniqueConstraint("conversation", "id"),
        ForeignKeyConstraint(["conversation", "parent"], ["nodes.conversation", "nodes.id"]),
        Index("nodes_by_parent", "conversation", "parent"),
    )

    key: Mapped[int] = mapped_column(primary_key=True)
    conversation: Mapped[int] = mapped_column(ForeignKey("conversations.key"))
    id: Mapped[str] = mapped_column(Text)
    parent: Mapped[str | None] = mapped_column(Text)
    depth: Mapped[int]
    """Messages above it."""
    role: Mapped[str] = mapped_column(Text)
    content: Mapped[str] = mapped_column(Exact)
    model: Mapped[str | None] = mapped_column(Exact)
    meta: Mapped[str] = mapped_column(Text)
    """A JSON object, as text."""
    created_s: Mapped[float] = mapped_column(Double)
    folded: Mapped[str] = mapped_column(Text, server_default="")
