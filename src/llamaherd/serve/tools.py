"""Tools for a model whose format has only system, user and assistant: written as ordinary text in those roles (docs/serve-json.md).

    system      ... the tools, one a line: NAME, the JSON schema of its arguments, what it does
    assistant   <call get_weather>{"city": "Rome"}
    user        <result get_weather>{"degrees": 18}

A call takes one line, so what a model says is read line by line, and an answer that begins with `<call ` is calls and nothing else.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..chat.dialogue import Dialogue, Message, tag_in
from ..core.errors import UserError
from .errors import ApiError
from .grammar import grammar_of, json_rule

OPENING = "<call "
"""What an answer that is no ordinary text begins with."""
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Tool:
    """A function of the client's. `parameters` is a checked JSON schema of its arguments, an object."""

    name: str
    description: str
    parameters: dict[str, Any]
    told: str
    """The schema as the client wrote it, for the model to read."""


@dataclass(frozen=True)
class Call:
    """One call that a model made; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str

    @property
    def line(self) -> str:
        """As the model reads and writes it."""
        return f"{OPENING}{self.name}>{self.arguments}"

    @property
    def told(self) -> dict[str, Any]:
        """As clients read it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True)
class Wanted:
    """Which tools may be called in one answer: at least `least` calls and at most `most`, text instead where `least` is 0."""

    tools: Sequence[Tool]
    least: int
    most: int

    @property
    def names(self) -> list[str]:
        return [tool.name for tool in self.tools]


@dataclass(frozen=True)
class Turn:
    """A message as the client sent it; `calls` are an assistant's, `answers` is the id of the call that a tool's message answers."""

    role: Role
    text: str
    calls: tuple[Call, ...] = ()
    answers: str | None = None


def told(wanted: Wanted) -> str:
    """What the system text says of tools."""
    many = "one call a line" if wanted.most > 1 else "one call and no more"
    when = "Answer with nothing but" if wanted.least else "Where none is needed, answer in words. To call, answer with nothing but"
    lines = [" ".join(filter(None, (tool.name, tool.told, " ".join(tool.description.split())))) for tool in wanted.tools]
    return "\n".join([
        "You can call these functions. Each line has a name, the JSON schema of the arguments, and what the function does:",
        *lines,
        f'{when} <call NAME>{{"ARGUMENT": VALUE}}, {many}. What came of it follows as <result NAME>VALUE.',
    ])  # fmt: skip


def in_three_roles(turns: Sequence[Turn]) -> list[Message]:
    """The same in the three roles there are: calls and results as lines. Results, and a user's message right after them, make one
    user message. Raises ApiError for results without their call, calls without their results, and template tags in either.
    """
    messages: list[Message] = []
    open_calls: dict[str, str] = {}
    for number, one in enumerate(turns, 1):
        where = f"message {number} ({one.role})"
        if one.role == "tool":
            if one.answers not in open_calls:
                there = ", ".join(open_calls) or "none"
                _refuse(f"{where}: answers the call {one.answers!r}, and the calls that wait for a result are: {there}")
            _demand_no_tag(one.text, where)
            line = f"<result {open_calls.pop(one.answers or '')}>{_value(one.text)}"
            _append(messages, "user", line, "\n")
            continue
        if open_calls:
            _refuse(f"{where}: the calls {', '.join(open_calls)} wait for a result each, in messages of role tool, before anything else")
        lines = [call.line for call in one.calls]
        for line in lines:
            _demand_no_tag(line, where)
        open_calls = {call.id: call.name for call in one.calls}
        if len(open_calls) < len(one.calls):
            _refuse(f"{where}: two calls have the same id")
        text = "\n".join(filter(None, (one.text, *lines)))
        after_results = number > 1 and turns[number - 2].role == "tool" and one.role == "user"
        _append(messages, one.role, text, "\n\n" if after_results else None)
    if open_calls:
        _refuse(f"message {len(turns)}: the calls {', '.join(open_calls)} wait for a result each, in messages of role tool")
    return messages


def _append(messages: list[Message], role: Any, text: str, joined_by: str | None) -> None:
    """One more message, or, with `joined_by`, more of the last one where that has the same role."""
    if joined_by is not None and messages and messages[-1].role == role:
        messages[-1] = Message(role, f"{messages[-1].content}{joined_by}{text}")
    else:
        messages.append(Message(role, text))


def with_tools(dialogue: Dialogue, wanted: Wanted) -> Dialogue:
    """The dialogue with the tools behind its system text. Raises ApiError for what no text may hold."""
    text = told(wanted)
    if tag := tag_in(text):
        raise ApiError(400, f"tools: contain the template tag {tag}, which would forge a turn; remove it", "tools")
    try:
        return dialogue.with_system(text if dialogue.system is None else f"{dialogue.system}\n\n{text}")
    except UserError as error:
        raise ApiError(400, f"tools: {error}", "tools") from None


def _value(text: str) -> str:
    """A result as JSON in one line, so that it ends where it seems to: JSON stands as it is, any other text as a JSON string."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    return one_line(text)


def one_line(text: str) -> str:
    """JSON text without line breaks, which only stand between its parts."""
    return re.sub(r"[\r\n]+", " ", text).strip()


def _demand_no_tag(text: str, where: str) -> None:
    if tag := tag_in(text):
        _refuse(f"{where}: contains the template tag {tag}, which would forge a turn; remove it")


def _refuse(message: str) -> None:
    raise ApiError(400, message, "messages")


def calls_grammar(wanted: Wanted, text: dict[str, Any] | None = None) -> str:
    """Calls of the tools that are wanted; where text may come instead, that too if it is JSON of the schema `text`."""
    rules = "call: " + " | ".join(f"call{index}" for index in range(len(wanted.tools))) + "\n"
    for index, tool in enumerate(wanted.tools):
        rules += f'call{index}: "{OPENING}{tool.name}>" arguments{index}\n' + json_rule(f"arguments{index}", tool.parameters)
    start = f'call ("\\n" call){{0,{wanted.most - 1}}}' if wanted.most > 1 else "call"
    if text is not None:
        start += " | body"
        rules += json_rule("body", text)
    return grammar_of(start, rules)


@dataclass
class Reader:
    """Tells text from calls in an answer as it comes: what `feed` and the last `close` return is a piece of content, or parts of calls
    as a stream tells of them.
    """

    names: Sequence[str]
    held: str = ""
    """What may become either."""
    calls: list[Call] = field(default_factory=list)
    """Those begun so far, with as much of their arguments as has come."""
    _is: Literal["undecided", "text", "head", "arguments"] = "undecided"

    def feed(self, piece: str) -> tuple[str, list[dict[str, Any]]]:
        """(content, deltas of tool_calls) of one more piece."""
        self.held += piece
        deltas: list[dict[str, Any]] = []
        if self._is == "undecided":
            self._decide()
        while self._is in ("head", "arguments") and (delta := self._part()):
            deltas.append(delta)
        content = ""
        if self._is == "text":
            content, self.held = self.held, ""
        return content, deltas

    def close(self) -> str:
        """Content that was held back to the end: an answer that was cut before it was certain to be a call."""
        rest, self.held = ("" if self.calls else self.held), ""
        return rest

    def finish_reason(self, reason: str) -> str:
        """`tool_calls` for an answer of calls that came to its end."""
        return "tool_calls" if self.calls and reason == "stop" else reason

    def _decide(self) -> None:
        begun = self.held.lstrip()
        heads = [f"{OPENING}{name}>" for name in self.names]
        if any(begun.startswith(head) for head in heads):
            self._is, self.held = "head", begun
        elif not any(head.startswith(begun) for head in heads):
            self._is = "text"

    def _part(self) -> dict[str, Any] | None:
        """The next part of a call in what is held, None when that is not certain yet."""
        if self._is == "head":
            head, end, rest = self.held.partition(">")
            if not end:
                return None
            self._is, self.held = "arguments", rest
            call = Call(f"call_{secrets.token_hex(12)}", head.removeprefix(OPENING), "")
            self.calls.append(call)
            return {"index": len(self.calls) - 1, **call.told}
        line, end, rest = self.held.partition("\n")
        text = line.rstrip()
        self.held = rest if end else line[len(text) :]
        if end:
            self._is = "head"
        if not text:
            return self._part() if end else None
        last = self.calls[-1]
        self.calls[-1] = Call(last.id, last.name, last.arguments + text)
        return {"index": len(self.calls) - 1, "function": {"arguments": text}}
