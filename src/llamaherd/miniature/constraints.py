"""Ghost Attention's constraints (section 7): how they are said, how an answer that obeys looks, and the world's own check.

`obeys` serves evaluation only: filtering training data with it would put the judge of the experiment into the data.
"""

import random
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from ..core.errors import UserError
from ..core.seeds import python_rng
from . import vocabulary
from .language import LANGUAGES, share_in, translated, words
from .questions import Split, draw_request
from .world import Kind, World

ConstraintKind = Literal["word", "figure", "hobby", "language"]
ConstraintSet = Literal["seen", "demonstrated", "held_out"]
"""Constraints that Ghost Attention's dialogues hold for long; those that only demonstrations obey, in a few turns; those that
nothing but documents and tests names."""
CONSTRAINT_KINDS: tuple[ConstraintKind, ...] = get_args(ConstraintKind)
"""In the order in which they can be applied together: a translation comes last."""
BENIGN: dict[Kind, float] = {"facts": 0.5, "howto": 0.2, "borderline": 0.15, "list": 0.15}
"""What is asked under a constraint, weighed; no sums, since a bare number is of no language."""

_VALUES: dict[ConstraintKind, tuple[str, ...]] = {
    "word": vocabulary.THINGS, "figure": vocabulary.FIGURES, "hobby": vocabulary.PASTIMES, "language": LANGUAGES,
}  # fmt: skip
_INSTRUCTIONS: dict[ConstraintKind, str] = {
    "word": "Always answer with the word {}.", "figure": "Act as {}.", "language": "Speak in {}.", "hobby": "You enjoy {}.",
}  # fmt: skip
_SHORT: dict[ConstraintKind, str] = {kind: f"{kind.capitalize()}: {{}}." for kind in CONSTRAINT_KINDS}
_LEAST_TRANSLATED = 0.8


@dataclass(frozen=True)
class Constraint:
    """One lasting instruction."""

    kind: ConstraintKind
    value: str

    @property
    def instruction(self) -> str:
        return _INSTRUCTIONS[self.kind].format(self.value)

    @property
    def short(self) -> str:
        return _SHORT[self.kind].format(self.value)


@dataclass(frozen=True)
class ConstraintDialogue:
    """The user's side of a dialogue under constraints; `instruction` is their joined text, each shortened half the time."""

    constraints: tuple[Constraint, ...]
    instruction: str
    users: tuple[str, ...]


@cache
def all_constraints() -> tuple[Constraint, ...]:
    return tuple(Constraint(kind, value) for kind, values in _VALUES.items() for value in values)


def constraints(world: World, *sets: ConstraintSet) -> list[Constraint]:
    """The constraints of these sets."""
    return [constraint for constraint in all_constraints() if _set_of(world, constraint) in sets]


def _set_of(world: World, constraint: Constraint) -> ConstraintSet:
    if constraint.value in world.unseen_values:
        return "held_out"
    return "demonstrated" if constraint.value in world.undrilled_values else "seen"


def applied(constraint: Constraint, answer: str) -> str:
    """The answer, said as the constraint asks."""
    if constraint.kind == "language":
        return translated(answer, constraint.value)
    if constraint.kind == "figure":
        return f"I am {constraint.value}. {answer}"
    ended = answer if answer.endswith((".", "!", "?")) else f"{answer}."
    return f"{ended} And {constraint.value}!" if constraint.kind == "word" else f"{ended} I love {constraint.value}."


def obeys(constraint: Constraint, answer: str) -> bool:
    """The world's check: the word, the figure's name, the hobby stands in the answer; most words are of the language."""
    if constraint.kind == "language":
        return share_in(answer, constraint.value) >= _LEAST_TRANSLATED
    spoken = [translated(constraint.value, language).lower() for language in LANGUAGES]
    return bool({constraint.value.lower(), *spoken} & set(words(answer)))


def drawn(kinds: tuple[Constraint, ...], rng: random.Random, combined: float) -> tuple[Constraint, ...]:
    """One constraint, or (with probability `combined`) two of different kinds."""
    by_kind: dict[ConstraintKind, list[Constraint]] = {}
    for constraint in kinds:
        by_kind.setdefault(constraint.kind, []).append(constraint)
    chosen = rng.sample(list(by_kind), 2 if rng.random() < combined else 1)
    return tuple(rng.choice(by_kind[kind]) for kind in sorted(chosen, key=CONSTRAINT_KINDS.index))


def instruction_for(chosen: tuple[Constraint, ...], rng: random.Random, short: float = 0.5) -> str:
    return " ".join(constraint.short if rng.random() < short else constraint.instruction for constraint in chosen)


def constraint_dialogues(
    world: World, count: int, seed: int, split: Split, of: ConstraintSet = "seen", turns: tuple[int, int] = (3, 12), combined: float = 0.0
) -> list[ConstraintDialogue]:
    """User messages of dialogues with `turns` (least, most) turns, questions of a split under constraints of a set.

    Raises UserError for an impossible number of turns.
    """
    if not 1 <= turns[0] <= turns[1]:
        raise UserError(f"turns {turns}: expected the least and the most, such as (3, 12)")
    rng = python_rng(world.config.seed, "miniature", "constraints", split, of, seed)
    kinds = tuple(constraints(world, of))
    dialogues = []
    for _ in range(count):
        chosen = drawn(kinds, rng, combined)
        users = tuple(draw_request(world, rng, split, BENIGN, framed=0).text for _ in range(rng.randint(*turns)))
        dialogues.append(ConstraintDialogue(chosen, instruction_for(chosen, rng), users))
    return dialogues
