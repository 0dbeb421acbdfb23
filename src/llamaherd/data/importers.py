"""Dialogues as others write them. What a row is, its fields say:

- `messages`: ours, and that of chat APIs
- `conversations`: ShareGPT, `{"from": "human", "value": "..."}` in turns; `system` beside it
- `instruction` and `output`: Alpaca, with an `input` that the instruction speaks of; `system`, and `history` as pairs before it
- `text` with `### Human:` and `### Assistant:`: Guanaco

Whatever the form, the rules for dialogues are the same; a row that breaks one is refused, or counted and left out if settings say so.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..chat.dialogue import Dialogue, DialogueError, Message, Role, checked, parse_dialogue
from ..core.files import read_rows, row_name

BadRows = Literal["refuse", "leave out"]

SPEAKERS: Mapping[str, Role] = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant",
}  # fmt: skip
"""Who speaks in a ShareGPT row, by our roles."""
SPOKEN = re.compile(r"\s*### (Human|Assistant):[ \n]?")


@dataclass
class Imported:
    """The dialogues of a file, each with the row it came from, and what was left out."""

    dialogues: list[tuple[Dialogue, Mapping[str, Any]]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Why, for each row."""


def import_dialogues(path: Path, bad_rows: BadRows = "refuse") -> Imported:
    """The dialogues of a file of JSON lines, a JSON list or parquet, in any of the forms above; all of them end with an answer.

    Raises UserError at the first bad row, with file and row; under "leave out" only for what is no row at all.
    """
    found, name = Imported(), row_name(path)
    for number, row in read_rows(path):
        try:
            found.dialogues.append((as_dialogue(row, f"{name} {number}"), row))
        except DialogueError as error:
            if bad_rows == "refuse":
                raise
            found.left_out.append(str(error))
    return found


def is_dialogue(row: Mapping[str, Any]) -> bool:
    """Whether a row without messages is a dialogue in another form, and no document: documents have a source, or nobody speaks."""
    text = row.get("text")
    spoken = isinstance(text, str) and "source" not in row and SPOKEN.search(text) is not None
    return "conversations" in row or "instruction" in row or spoken


def as_dialogue(row: Mapping[str, Any], where: str) -> Dialogue:
    """A row of any form. Raises DialogueError with `where` in front when it is of none, or breaks a rule of dialogues."""
    forms: dict[str, Callable[[Mapping[str, Any], str], Dialogue]] = {"conversations": _sharegpt, "instruction": _alpaca, "text": _guanaco}
    if "rejected" in row and "output" not in row:
        raise DialogueError(
            f"{where}: is a comparison ({', '.join(map(str, row))[:80]}); expected a dialogue; llamaherd reward takes comparisons"
        )
    if "messages" in row:
        return parse_dialogue(row, where, "assistant")
    form = next((read for key, read in forms.items() if key in row), None)
    if form is None:
        fields = ", ".join(map(str, row)) or "no field"
        raise DialogueError(
            f"{where}: has {fields[:80]}; expected messages, conversations (ShareGPT), instruction and output (Alpaca) "
            "or text with ### Human: and ### Assistant: (Guanaco)"
        )
    dialogue = form(row, where)
    if dialogue.last.role != "assistant":
        raise DialogueError(
            f"{where}: message {len(dialogue.messages)} ({dialogue.last.role}): a finished dialogue ends with an assistant message"
        )
    empty = next((index for index, message in enumerate(dialogue.messages, 1) if not message.content.strip()), None)
    if empty:
        raise DialogueError(f"{where}: message {empty} ({dialogue.messages[empty - 1].role}): is empty; there is nothing to learn from it")
    return dialogue


def text_at(row: Mapping[str, Any], key: str, where: str) -> str:
    """A field that may be absent or null. Raises DialogueError when it is there and is no text."""
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise DialogueError(f"{where}: {key} is {str(value)[:40]!r}; expected text")
    return value or ""


def under(system: str, messages: list[Message]) -> list[Message]:
    """The messages behind a system text, where there is one."""
    return [Message("system", system), *messages] if system.strip() else messages


def turns_of(said: Any, where: str, name: str = "conversations") -> list[Message]:
    """Turns of `{"from", "value"}` or `{"role", "content"}`. Raises DialogueError for what is none, and for unknown speakers."""
    if not isinstance(said, list) or not said:
        raise DialogueError(f'{where}: {name} is {str(said)[:40]!r}; expected a list of {{"from": "human|gpt|system", "value": text}}')
    messages = list[Message]()
    for index, item in enumerate(said, 1):
        pair = (item.get("from", item.get("role")), item.get("value", item.get("content"))) if isinstance(item, Mapping) else (None, None)
        if not isinstance(pair[0], str) or pair[0].lower() not in SPEAKERS or not isinstance(pair[1], str):
            raise DialogueError(f'{where}: message {index}: expected {{"from": "human|gpt|system", "value": text}}, got {str(item)[:80]}')
        messages.append(Message(SPEAKERS[pair[0].lower()], pair[1]))
    return messages


def _sharegpt(row: Mapping[str, Any], where: str) -> Dialogue:
    return checked(under(text_at(row, "system", where), turns_of(row["conversations"], where)), where=where)


def asked_in(row: Mapping[str, Any], where: str) -> list[Message]:
    """What an Alpaca row asks: its instruction and input as one message, behind its `system` and the pairs of its `history`."""
    messages, history = list[Message](), row.get("history") or []
    if not isinstance(history, list):
        raise DialogueError(f"{where}: history is {str(history)[:40]!r}; expected pairs of texts")
    for pair in history:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise DialogueError(f"{where}: history has {str(pair)[:40]!r}; expected pairs of texts, of the user and of the assistant")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    parts = (text_at(row, "instruction", where), text_at(row, "input", where))
    messages.append(Message("user", "\n\n".join(part for part in parts if part.strip())))
    return under(text_at(row, "system", where), messages)


def _alpaca(row: Mapping[str, Any], where: str) -> Dialogue:
    if "output" not in row:
        raise DialogueError(f"{where}: has an instruction and no output; expected both, as in Alpaca's rows")
    return checked([*asked_in(row, where), Message("assistant", text_at(row, "output", where))], where=where)


def _guanaco(row: Mapping[str, Any], where: str) -> Dialogue:
    before, *parts = SPOKEN.split(text_at(row, "text", where))
    if not parts:
        raise DialogueError(f"{where}: text has no ### Human: or ### Assistant:; expected a dialogue in Guanaco's form")
    roles: Mapping[str, Role] = {"Human": "user", "Assistant": "assistant"}
    messages = [Message(roles[who], said.rstrip()) for who, said in zip(parts[::2], parts[1::2], strict=True)]
    return checked(under(before.strip(), messages), where=where)
