"""The records that flow between stages - dialogues, prompts, preferences, judgements - and who may produce judgements."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..chat.dialogue import Dialogue, DialogueError, Message, TagError, checked, parse_dialogue
from ..core.errors import UserError
from ..core.files import check_rows_name, read_rows, row_name, write_parquet, write_rows

Grade = Literal["significantly", "better", "slightly", "negligibly"]
GRADES: tuple[Grade, ...] = ("significantly", "better", "slightly", "negligibly")
Domain = Literal["helpfulness", "safety"]
DOMAINS: tuple[Domain, ...] = ("helpfulness", "safety")


@dataclass(frozen=True)
class Prompt:
    """A dialogue that ends with a user; `safety` tags it as unsafe; `about` keeps other fields (kind, topic ...)."""

    dialogue: Dialogue
    safety: bool
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        return {**self.about, **self.dialogue.to_row(), "safety": self.safety}


@dataclass(frozen=True)
class Preference:
    """One comparison (section 4): prompt, the two answers, how clear the choice was, safety labels in safety batches only."""

    prompt: Dialogue
    chosen: str
    rejected: str
    grade: Grade | None
    domain: Domain
    chosen_safe: bool | None = None
    rejected_safe: bool | None = None
    source: str = ""
    annotator: str = ""
    batch: str | None = None
    chosen_model: str | None = None
    chosen_temperature: float | None = None
    rejected_model: str | None = None
    rejected_temperature: float | None = None

    @property
    def contradicts(self) -> bool:
        """Section 4: the chosen answer is unsafe and the other one safe; such pairs are excluded."""
        return self.chosen_safe is False and self.rejected_safe is True

    def to_row(self) -> dict[str, Any]:
        row = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "prompt"}
        return {**self.prompt.to_row(), **row}


EMPTY, EQUAL, TAG, MALFORMED = "empty answer", "equal answers", "template tag", "malformed"
"""Why a row is no comparison to learn from; more of them in `candidates.py`."""


class BadPreference(UserError):
    """A row that holds no comparison to learn from. The message says where and what is wrong, `reason` in a word what to count it under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one answer: helpfulness 0 to 1, is it safe, does it refuse, `correct` where it has a meaning."""

    helpfulness: float
    safe: bool
    refusal: bool
    correct: bool | None = None


class Judge(Protocol):
    """Sees the text of prompts and answers, and which prompts are tagged as unsafe; what it says of one hangs on no other."""

    def judge_all(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Judgement]:
        """One for each answer to its prompt."""

    def worth_all(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """What the reward models are asked for, 0 to 1: safety first where a prompt is tagged as unsafe, else help."""


@dataclass(frozen=True)
class Choice:
    """An annotator's verdict: which answer (0 or 1), how clearly, and in safety batches whether each answer is safe."""

    chosen: Literal[0, 1]
    grade: Grade
    safe: tuple[bool, bool] | None = None


class Annotator(Protocol):
    """Compares two answers in one domain; all its randomness comes from `rng`."""

    name: str

    def compare(self, prompt: Dialogue, answers: tuple[str, str], domain: Domain, rng: random.Random) -> Choice: ...


def parse_prompt(row: Mapping[str, Any], where: str = "") -> Prompt:
    """A Prompt from a JSON row. Raises UserError."""
    dialogue = parse_dialogue(row, where, ends_with="user")
    safety = False if row.get("safety") is None else row["safety"]
    if not isinstance(safety, bool):
        raise UserError(f'{where}: "safety" is {safety!r}; expected true or false')
    return Prompt(dialogue, safety, {key: value for key, value in row.items() if key not in ("messages", "safety", "trained")})


def _one_of(row: Mapping[str, Any], key: str, allowed: tuple[Any, ...], where: str) -> Any:
    value = row.get(key)
    # A list is of no kind that could be compared with what is allowed; 1 equals True.
    if not isinstance(value, (str, bool, type(None))) or value not in allowed:
        names = ", ".join(item if isinstance(item, str) else json.dumps(item) for item in allowed)
        raise BadPreference(MALFORMED, f"{where}: {key!r} is {str(value)[:40]!r}; expected one of {names}")
    return value


def _name(row: Mapping[str, Any], key: str, where: str) -> str | None:
    """Who or what: text, or a whole number taken as text."""
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadPreference(MALFORMED, f"{where}: {key!r} is {str(value)[:40]!r}; expected text, null, or no such field")


def _temperature(row: Mapping[str, Any], key: str, where: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise BadPreference(MALFORMED, f"{where}: {key!r} is {str(value)[:40]!r}; expected a number from 0 on, null, or no such field")
    return float(value)


def parse_preference(row: Mapping[str, Any], where: str = "") -> Preference:
    """A Preference from a JSON row. Raises BadPreference naming the field: equal or empty answers, unknown grade, tags ..."""
    try:
        prompt = parse_dialogue(row, where, ends_with="user")
        for key in ("chosen", "rejected"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                reason = MALFORMED if row.get(key) and not isinstance(row[key], str) else EMPTY
                raise BadPreference(reason, f"{where}: {key!r} is {str(row.get(key))[:40]!r}; expected the text of an answer")
            checked((*prompt.messages, Message("assistant", row[key])), where=f"{where} {key}")
    except DialogueError as error:
        raise BadPreference(TAG if isinstance(error, TagError) else MALFORMED, str(error)) from None
    if row["chosen"].strip() == row["rejected"].strip():
        raise BadPreference(EQUAL, f"{where}: chosen and rejected answers are equal; such a pair teaches nothing, remove it")
    return Preference(
        prompt, row["chosen"], row["rejected"],
        grade=_one_of(row, "grade", (*GRADES, None), where),
        domain=_one_of(row, "domain", DOMAINS, where),
        chosen_safe=_one_of(row, "chosen_safe", (True, False, None), where),
        rejected_safe=_one_of(row, "rejected_safe", (True, False, None), where),
        source=_name(row, "source", where) or "", annotator=_name(row, "annotator", where) or "",
        batch=_name(row, "batch", where),
        chosen_model=_name(row, "chosen_model", where), chosen_temperature=_temperature(row, "chosen_temperature", where),
        rejected_model=_name(row, "rejected_model", where), rejected_temperature=_temperature(row, "rejected_temperature", where),
    )  # fmt: skip


def read_dialogues(path: Path, ends_with: Literal["user", "assistant", "either"] = "assistant") -> list[Dialogue]:
    """Dialogues of a file. Raises UserError at the first bad line, with file and line number."""
    return [parse_dialogue(row, f"{path} line {number}", ends_with) for number, row in read_rows(path)]


def read_prompts(path: Path) -> list[Prompt]:
    return [parse_prompt(row, f"{path} line {number}") for number, row in read_rows(path)]


def read_preferences(path: Path) -> list[Preference]:
    """Preferences of a file in our own schema. Raises BadPreference at the first bad row, with file and row number."""
    return [parse_preference(row, f"{row_name(path)} {number}") for number, row in read_rows(path)]


def write_preferences(path: Path, preferences: Iterable[Preference]) -> int:
    """Writes preferences as the suffix of `path` says - JSON lines, plain, `.gz` or `.zst`, or `.parquet` - and returns how many.

    Reading them gives them back; the file is whole or absent. Raises UserError for another suffix.
    """
    check_rows_name(path)
    rows = (preference.to_row() for preference in preferences)
    return write_parquet(path, rows, _parquet_schema()) if path.suffix == ".parquet" else write_rows(path, rows)


def _parquet_schema() -> Any:
    import pyarrow

    text, flag, number = pyarrow.string(), pyarrow.bool_(), pyarrow.float64()
    fields = {"messages": pyarrow.list_(pyarrow.struct([("role", text), ("content", text)])), "trained": text}
    for name in Preference.__dataclass_fields__:
        if name != "prompt":
            fields[name] = flag if name.endswith("_safe") else number if name.endswith("_temperature") else text
    return pyarrow.schema(list(fields.items()))


def rows_of(records: Iterable[Dialogue | Prompt | Preference]) -> list[dict[str, Any]]:
    return [record.to_row() for record in records]
