"""What a form of comparisons reads a row into: two answers to a prompt, and which is preferred; and how such rows are read.

What a form says without being asked is kept: who chose, between which models, how clearly. What it does not say stays
unknown: a grade is given only where the set states how strong a preference was, or how many annotators shared it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from ..chat.dialogue import Message
from .records import MALFORMED, BadPreference, Domain, Grade

TIE, FAILED, NO_MAJORITY = "tie", "failed judgement", "no majority"
NO_PROMPT, ALONE = "no prompt", "one answer alone"
CONTRADICTS = "label contradicts scores"

Row = Mapping[str, Any]
Side = Literal[0, 1]


@dataclass(frozen=True)
class Candidate:
    """Two answers to one prompt and which is preferred, None for neither, and then `why`."""

    prompt: Sequence[Message]
    answers: tuple[str, str]
    preferred: Side | None
    why: str = TIE
    grade: Grade | None = None
    models: tuple[str | None, str | None] = (None, None)
    domain: Domain | None = None
    source: str | None = None
    annotator: str | None = None
    batch: str | None = None


def malformed(where: str, what: str, value: Any, expected: str) -> BadPreference:
    return BadPreference(MALFORMED, f"{where}: {what} is {str(value)[:60]!r}; expected {expected}")


def number_in(value: Any) -> float | None:
    """A score, which some sets write as text; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def verdict(value: Any, sides: Mapping[float, Side | None], where: str, name: str) -> tuple[Side | None, str]:
    """(preferred, why if none) of a label; null is a judgement that failed. Raises BadPreference for an unknown label."""
    if value is None:
        return None, FAILED
    label = number_in(value)
    if label not in sides:
        raise malformed(where, name, value, f"one of {', '.join(f'{side:g}' for side in sides)}, or null")
    return sides[label], TIE  # type: ignore[index]


def higher(first: float | None, second: float | None) -> tuple[Side | None, str]:
    if first is None or second is None:
        return None, FAILED
    return (None, TIE) if first == second else (0 if first > second else 1, TIE)


def ranked(
    prompt: Sequence[Message], answers: Sequence[tuple[str, float | None, str | None]], where: str, **about: Any
) -> Iterator[Candidate]:
    """Every pair of (text, score, model). Raises BadPreference when there is none."""
    if len(answers) < 2:
        raise BadPreference(ALONE, f"{where}: has {len(answers)} answers; a comparison needs two")
    for (text, score, model), (other, others, another) in combinations(answers, 2):
        preferred, why = higher(score, others)
        yield Candidate(prompt, (text, other), preferred, why, models=(model, another), **about)


def asked_by_user(text: str) -> list[Message]:
    return [Message("user", text)]


def list_at(row: Row, key: str, where: str, fewest: int = 1) -> list[Any]:
    value = row.get(key)
    if not isinstance(value, list) or len(value) < fewest:
        raise malformed(where, key, value, f"a list of at least {fewest}")
    return value


def item(value: Any, where: str, what: str) -> Row:
    if not isinstance(value, Mapping):
        raise malformed(where, what, value, "an object")
    return value


def name_at(row: Row, key: str) -> str | None:
    """Who or what a field names; None for no text, and for an empty one."""
    value = row.get(key)
    return value if isinstance(value, str) and value else None


def models_at(row: Row, first: str, second: str) -> tuple[str | None, str | None]:
    return name_at(row, first), name_at(row, second)
