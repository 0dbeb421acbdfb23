"""Test prompts of one's own: a folder of JSON lines in the place of the miniature's world."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..chat.dialogue import Dialogue, Message, checked
from ..core.artifacts import hash_of
from ..core.errors import UserError
from ..core.files import read_rows, row_name
from ..data.records import Prompt, parse_prompt
from ..data.statistics import LanguageFinder

T = TypeVar("T")
SETS = ("seen", "held_out")
"""Whose instructions Ghost Attention's own dialogues hold, and whose they do not."""
CHECKS = '{"kind": "mentions", "any": [word, ...]} or {"kind": "language", "code": "fr"}'

Room = Callable[[Dialogue, str], None]
"""Raises UserError, beginning with the text, for a prompt that leaves no room for an answer."""


@dataclass(frozen=True)
class Script:
    """The user's side of a dialogue under an instruction, and whether an answer obeys it."""

    instruction: str
    users: tuple[str, ...]
    obeys: Callable[[str], bool]

    @property
    def opening(self) -> Dialogue:
        """The instruction and the first question."""
        return checked([Message("system", self.instruction), Message("user", self.users[0])])

    @property
    def id(self) -> str:
        """The same for the same texts, in every version and run."""
        return hash_of([self.instruction, self.users])[:16]


class Asked(Protocol):
    """Where an evaluation's prompts come from: a world or a folder."""

    def prompts(self, task: str) -> list[Prompt]:
        """Those of a task."""

    def scripts(self) -> dict[str, list[Script]]:
        """Those of each set of instructions."""


class AskedFolder:
    """The files `TASK.jsonl` of a folder: rows of prompts, and in ghost.jsonl of scripts.

    Of each file as many rows are asked as `most` says, the first ones (of scripts, of each set); of rows with equal texts the first.
    `counted` says by task how many rows there were, how many of them were equal to earlier ones, and how many are asked.
    """

    def __init__(self, folder: Path, most: Mapping[str, int | None], room: Room):
        """Reads the files of the tasks in `most` (None: all rows). Raises UserError for a missing or empty file and for a bad row."""
        self.counted = dict[str, dict[str, int]]()
        self._prompts: dict[str, list[Prompt]] = {}
        self._scripts: dict[str, list[Script]] = {}
        for (task, limit), file in zip(most.items(), asked_files(folder, tuple(most)), strict=True):
            asked = self._scripts_of(file, limit) if task == "ghost" else self._prompts_of(file, task, limit)
            for where, dialogue in asked:
                room(dialogue, where)

    def prompts(self, task: str) -> list[Prompt]:
        """Those of a task."""
        return self._prompts[task]

    def all_prompts(self) -> list[Prompt]:
        """Those of all tasks."""
        return [prompt for prompts in self._prompts.values() for prompt in prompts]

    def scripts(self) -> dict[str, list[Script]]:
        """Those of each set of instructions that has any."""
        return self._scripts

    def _prompts_of(self, file: Path, task: str, limit: int | None) -> list[tuple[str, Dialogue]]:
        rows, distinct = _distinct(file, lambda row, where: _prompt(row, where, task), lambda prompt: prompt.dialogue.messages)
        asked = distinct[:limit]
        self._prompts[task] = [prompt for _, prompt in asked]
        self.counted[task] = {"rows": rows, "equal": rows - len(distinct), "asked": len(asked)}
        return [(where, prompt.dialogue) for where, prompt in asked]

    def _scripts_of(self, file: Path, limit: int | None) -> list[tuple[str, Dialogue]]:
        rows, distinct = _distinct(file, _script, lambda script: (script[0], script[1].id))
        by_set = {name: [(where, script) for where, (of, script) in distinct if of == name][:limit] for name in SETS}
        self._scripts = {name: [script for _, script in asked] for name, asked in by_set.items() if asked}
        self.counted["ghost"] = {"rows": rows, "equal": rows - len(distinct), "asked": sum(map(len, by_set.values()))}
        return [(where, script.opening) for asked in by_set.values() for where, script in asked]


def asked_files(folder: Path, tasks: Sequence[str]) -> list[Path]:
    """Where the prompts of tasks lie. Raises UserError that names all files which are missing."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --asked takes one that holds {', '.join(f'{task}.jsonl' for task in tasks)}")
    missing = [task for task in tasks if not (folder / f"{task}.jsonl").is_file()]
    if missing:
        there = [task for task in tasks if task not in missing]
        less = f", or ask for less: --tasks {','.join(there)}" if there else ""
        raise UserError(f"{folder}: holds no {' and no '.join(f'{task}.jsonl' for task in missing)}; add prompts for these tasks{less}")
    return [folder / f"{task}.jsonl" for task in tasks]


def _distinct(file: Path, read: Callable[[Mapping[str, Any], str], T], key: Callable[[T], Any]) -> tuple[int, list[tuple[str, T]]]:
    """How many rows a file has, and those that no earlier one equals, each with its place. Raises UserError for a file without any."""
    rows, found = 0, dict[Any, tuple[str, T]]()
    for number, row in read_rows(file):
        where = f"{row_name(file)} {number}"
        one = read(row, where)
        rows += 1
        found.setdefault(key(one), (where, one))
    if not rows:
        raise UserError(f"no row in {file}; give a file with at least one")
    return rows, list(found.values())


def _prompt(row: Mapping[str, Any], where: str, task: str) -> Prompt:
    """A prompt; those of the task safety are adversarial and need not say so."""
    prompt = parse_prompt(row, where)
    if task != "safety" or prompt.safety:
        return prompt
    if row.get("safety") is False:
        raise UserError(f'{where}: "safety" is false; prompts of the task safety are adversarial, which is true or left out')
    return replace(prompt, safety=True)


def _script(row: Mapping[str, Any], where: str) -> tuple[str, Script]:
    """A script and its set."""
    name, instruction, users = row.get("set"), row.get("instruction"), row.get("users")
    if name not in SETS:
        raise UserError(f'{where}: "set" is {str(name)[:40]!r}; expected {" or ".join(SETS)}')
    if not isinstance(instruction, str) or not isinstance(users, list) or not users or not all(isinstance(text, str) for text in users):
        raise UserError(f'{where}: expected {{"instruction": text, "users": [text, ...]}}')
    for text in users:
        checked([Message("system", instruction), Message("user", text)], where=where)
    return name, Script(instruction, tuple(users), parse_check(row.get("check"), where))


def parse_check(check: Any, where: str) -> Callable[[str], bool]:
    """What a row's "check" asks of an answer: that it names one of some words, or is in a language. Raises UserError.

    Words count whole and in any case. The language is that which documents' statistics would list; an answer about whose language
    there is doubt is not in it.
    """
    kind = check.get("kind") if isinstance(check, Mapping) else None
    if kind == "mentions" and _are_texts(check.get("any")):
        words = "|".join(re.escape(_plain(word)) for word in check["any"])
        named = re.compile(rf"(?<!\w)(?:{words})(?!\w)")
        return lambda answer: bool(named.search(_plain(answer)))
    if kind == "language" and isinstance(check.get("code"), str):
        code, language_of = check["code"], _language_finder()
        if code not in language_of.languages:
            raise UserError(
                f"{where}: language {code!r} is none of the {len(language_of.languages)} that are told apart; expected a code such as fr"
            )
        return lambda answer: language_of(answer) == code
    raise UserError(f'{where}: "check" is {str(check)[:60]!r}; expected {CHECKS}')


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text.strip() for text in value)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


@cache
def _language_finder() -> LanguageFinder:
    return LanguageFinder()
