"""The records that flow between stages - dialogues, prompts, preferences, judgements - and who may produce judgements."""

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..chat.dialogue import Dialogue, Message, checked, parse_dialogue
from ..core.errors import UserError
from ..core.files import read_rows

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


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one answer: helpfulness 0 to 1, is it safe, does it refuse, `correct` where it has a meaning."""

    helpfulness: float
    safe: bool
    refusal: bool
    correct: bool | None = None


class Judge(Protocol):
    """Sees the text of prompt and answer and nothing else."""

    def judge(self, prompt: Dialogue, answer: str) -> Judgement: ...


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
    if value not in allowed or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        raise UserError(
            f"{where}: {key!r} is {value!r}; expected one of {', '.join(item if isinstance(item, str) else json.dumps(item) for item in allowed)}"
        )
    return value


def parse_preference(row: Mapping[str, Any], where: str = "") -> Preference:
    """A Preference from a JSON row. Raises UserError naming the field: equal or empty answers, unknown grade, tags ..."""
    prompt = parse_dialogue(row, where, ends_with="user")
    for key in ("chosen", "rejected"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise UserError(f"{where}: {key!r} is {str(row.get(key))[:40]!r}; expected the text of an answer")
        checked((*prompt.messages, Message("assistant", row[key])), where=f"{where} {key}")
    if row["chosen"].strip() == row["rejected"].strip():
        raise UserError(f"{where}: chosen and rejected answers are equal; such a pair teaches nothing, remove it")
    keys = ("batch", "chosen_model", "chosen_temperature", "rejected_model", "rejected_temperature")
    optional: dict[str, Any] = {key: row.get(key) for key in keys}
    for key in ("chosen_temperature", "rejected_temperature"):
        if optional[key] is not None and (isinstance(optional[key], bool) or not isinstance(optional[key], (int, float))):
            raise UserError(f"{where}: {key!r} is {str(optional[key])[:40]!r}; expected a number, null, or no such field")
    return Preference(
        prompt, row["chosen"], row["rejected"],
        grade=_one_of(row, "grade", (*GRADES, None), where),
        domain=_one_of(row, "domain", DOMAINS, where),
        chosen_safe=_one_of(row, "chosen_safe", (True, False, None), where),
        rejected_safe=_one_of(row, "rejected_safe", (True, False, None), where),
        source=str(row.get("source") or ""), annotator=str(row.get("annotator") or ""),
        **{**optional, "batch": None if optional["batch"] is None else str(optional["batch"])},
    )  # fmt: skip


def read_dialogues(path: Path, ends_with: Literal["user", "assistant", "either"] = "assistant") -> list[Dialogue]:
    """Dialogues of a file. Raises UserError at the first bad line, with file and line number."""
    return [parse_dialogue(row, f"{path} line {number}", ends_with) for number, row in read_rows(path)]


def read_prompts(path: Path) -> list[Prompt]:
    return [parse_prompt(row, f"{path} line {number}") for number, row in read_rows(path)]


def read_preferences(path: Path) -> list[Preference]:
    return [parse_preference(row, f"{path} line {number}") for number, row in read_rows(path)]


def rows_of(records: Iterable[Dialogue | Prompt | Preference]) -> list[dict[str, Any]]:
    return [record.to_row() for record in records]
