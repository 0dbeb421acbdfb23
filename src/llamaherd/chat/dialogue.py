"""Dialogues and their rules: roles in order, no template tags inside a message. Every door for dialogues uses these checks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import UserError

Role = Literal["system", "user", "assistant"]
Trained = Literal["all", "last"]

TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")


class DialogueError(UserError):
    """A dialogue that breaks a rule; the message says where and which message (counted from 1)."""


class TagError(DialogueError):
    """A template tag stands in a text."""


@dataclass(frozen=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True)
class Dialogue:
    """Messages that follow the rules; `trained`: which answers carry loss, all or the last (Ghost Attention, section 7)."""

    messages: tuple[Message, ...]
    trained: Trained = "all"

    @property
    def system(self) -> str | None:
        return self.messages[0].content if self.messages[0].role == "system" else None

    @property
    def turns(self) -> int:
        """Number of user messages."""
        return sum(message.role == "user" for message in self.messages)

    @property
    def last(self) -> Message:
        return self.messages[-1]

    @property
    def asked(self) -> str:
        """The last message, behind the system text in brackets if there is one: for people to read."""
        return self.last.content if self.system is None else f"[{self.system}] {self.last.content}"

    @property
    def prompt(self) -> "Dialogue":
        """The dialogue without its last answer, if it ends with one."""
        return Dialogue(self.messages[:-1]) if self.last.role == "assistant" else self

    def followed_by(self, role: Role, content: str) -> "Dialogue":
        """This dialogue and one more message, checked."""
        return checked((*self.messages, Message(role, content)), self.trained)

    def with_system(self, text: str | None) -> "Dialogue":
        """The same dialogue under another system text (None: without one)."""
        rest = self.messages[1:] if self.system is not None else self.messages
        return checked((Message("system", text), *rest) if text is not None else rest, self.trained)

    def to_row(self) -> dict[str, Any]:
        """As written to JSON lines."""
        row: dict[str, Any] = {"messages": [{"role": message.role, "content": message.content} for message in self.messages]}
        return row if self.trained == "all" else {**row, "trained": self.trained}


def tag_in(text: str) -> str | None:
    """The first template tag that stands in `text`, or None."""
    return next((tag for tag in TAGS if tag in text), None)


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def demand_text(message: Message, name: str) -> None:
    """Raises DialogueError, beginning with `name`, unless the text is valid Unicode, free of tags, and not empty where a user speaks."""
    tag = tag_in(message.content)
    if tag:
        raise TagError(f"{name}: contains the template tag {tag}, which would forge a turn; remove it")
    if _has_lone_surrogate(message.content):
        raise DialogueError(f"{name}: contains a lone surrogate, which is not valid Unicode text; remove it")
    if message.role == "user" and not message.content.strip():
        raise DialogueError(f"{name}: is empty; a user message needs text")


def checked(messages: Sequence[Message], trained: Trained = "all", where: str = "") -> Dialogue:
    """A Dialogue of these messages. Raises DialogueError unless roles are in order, texts valid Unicode and free of tags."""
    prefix = f"{where}: " if where else ""
    if not any(message.role == "user" for message in messages):
        raise DialogueError(f"{prefix}a dialogue needs at least one user message")
    for index, message in enumerate(messages):
        name = f"{prefix}message {index + 1} ({message.role})"
        after_system = index - (messages[0].role == "system")
        expected = "system or user" if index == 0 else "user" if after_system % 2 == 0 else "assistant"
        if message.role not in expected.split(" or "):
            raise DialogueError(f"{name}: expected {expected} here; roles go [system] user assistant user assistant ...")
        demand_text(message, name)
    return Dialogue(tuple(messages), trained)


def parse_dialogue(row: Mapping[str, Any], where: str = "", ends_with: Literal["user", "assistant", "either"] = "either") -> Dialogue:
    """A Dialogue from a JSON row `{"messages": [{"role", "content"}, ...]}`. Raises DialogueError with `where` in front."""
    prefix = f"{where}: " if where else ""
    raw = row.get("messages")
    if not isinstance(raw, list) or not raw:
        raise DialogueError(f'{prefix}expected "messages", a list of {{"role", "content"}}, got {type(raw).__name__}')
    messages = []
    for index, item in enumerate(raw):
        role, content = (item.get("role"), item.get("content")) if isinstance(item, Mapping) else (None, None)
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            expected = '{"role": "system|user|assistant", "content": text}'
            raise DialogueError(f"{prefix}message {index + 1}: expected {expected}, got {str(item)[:80]}")
        messages.append(Message(role, content))
    trained: Any = "all" if row.get("trained") is None else row["trained"]
    if trained not in ("all", "last"):
        raise DialogueError(f'{prefix}"trained" is {trained!r}; expected "all" or "last"')
    dialogue = checked(messages, trained, where)
    if ends_with != "either" and dialogue.last.role != ends_with:
        what = "a prompt ends with a user" if ends_with == "user" else "a finished dialogue ends with an assistant"
        raise DialogueError(f"{prefix}message {len(messages)} ({dialogue.last.role}): {what} message")
    return dialogue
