"""Scripts for Ghost Attention on real prompts, with the paper's kinds of constraints (section 7): hobbies, public figures, languages.

Each is said whole or, half the time in training, shortened ("Figure: Napoleon."); a share of the scripts has two of different kinds. Some
values are in no training script. Tests say them whole, one at a time, so that a program can decide whether an answer obeys: the hobby or the
name stands in it, or it is in the language.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...core.errors import UserError
from ...core.seeds import python_rng
from ..dedup import words_of

Kind = Literal["hobby", "figure", "language"]
Set = Literal["seen", "held_out"]
WHOLE: Mapping[Kind, str] = {
    "hobby": "You enjoy {}. Mention it in every answer.",
    "figure": "Act as {}. Say your name in every answer.",
    "language": "Speak in {}.",
}
VALUES: Mapping[Set, Mapping[Kind, Mapping[str, tuple[str, ...]]]] = {
    "seen": {
        "hobby": {
            "tennis": ("tennis",), "chess": ("chess",), "gardening": ("gardening", "garden"), "fishing": ("fishing", "fish"),
            "painting": ("painting", "paint"), "dancing": ("dancing", "dance"), "riding horses": ("riding", "horse", "horses"),
            "reading poems": ("poem", "poems"),
        },
        "figure": {
            "Napoleon": ("Napoleon",), "Shakespeare": ("Shakespeare",), "Mozart": ("Mozart",), "Cleopatra": ("Cleopatra",),
            "Darwin": ("Darwin",), "Galileo": ("Galileo",),
        },
        "language": {"French": ("fr",), "German": ("de",), "Spanish": ("es",), "Italian": ("it",)},
    },
    "held_out": {
        "hobby": {"cooking": ("cooking", "cook"), "sailing": ("sailing", "sail"), "singing": ("singing", "sing")},
        "figure": {"Newton": ("Newton",), "Lincoln": ("Lincoln",), "Beethoven": ("Beethoven",)},
        "language": {"Portuguese": ("pt",), "Dutch": ("nl",)},
    },
}  # fmt: skip
"""Values of each kind, with the words of which an answer that obeys has one, or the language's ISO 639 code."""


@dataclass(frozen=True)
class Constraint:
    """One lasting instruction, and what tells that an answer obeys it."""

    kind: Kind
    value: str
    signs: tuple[str, ...]

    @property
    def whole(self) -> str:
        return WHOLE[self.kind].format(self.value)

    @property
    def short(self) -> str:
        return f"{self.kind.capitalize()}: {self.value}."

    @property
    def check(self) -> dict[str, Any]:
        """What an answer must do, for a program."""
        return {"kind": "language", "code": self.signs[0]} if self.kind == "language" else {"kind": "mentions", "any": list(self.signs)}


def constraints(name: Set) -> list[Constraint]:
    """All of a set."""
    return [Constraint(kind, value, signs) for kind, values in VALUES[name].items() for value, signs in values.items()]


def scripts_to_tune(asked: Sequence[str], count: int, turns: tuple[int, int], combined: float, seed: int) -> list[dict[str, Any]]:
    """Rows {"instruction", "users"} under constraints of the set `seen`, with `turns` (least, most) different messages of `asked` each.

    `combined`: the share with two constraints of different kinds. A message that names a constraint's sign is not asked under it.
    Raises UserError when there are too few messages.
    """
    kinds: dict[Kind, list[Constraint]] = {}
    for constraint in constraints("seen"):
        kinds.setdefault(constraint.kind, []).append(constraint)
    found = []
    for number in range(count):
        rng = python_rng(seed, "ghost", "training", number)
        chosen = [rng.choice(kinds[kind]) for kind in rng.sample(list(kinds), 2 if rng.random() < combined else 1)]
        instruction = " ".join(one.short if rng.random() < 0.5 else one.whole for one in chosen)
        found.append({"instruction": instruction, "users": _users(asked, rng.randint(*turns), chosen, rng)})
    return found


def scripts_to_ask(asked: Sequence[str], count: int, turns: int, seed: int) -> list[dict[str, Any]]:
    """Rows {"set", "instruction", "users", "check"}, `count` of either set, the values of each in turn. Raises UserError when there are too few messages."""
    found = list[dict[str, Any]]()
    for name in VALUES:
        own = constraints(name)
        python_rng(seed, "ghost", name).shuffle(own)
        for number in range(count):
            one = own[number % len(own)]
            users = _users(asked, turns, [one], python_rng(seed, "ghost", name, number))
            found.append({"set": name, "instruction": one.whole, "users": users, "check": one.check})
    return found


def _users(asked: Sequence[str], turns: int, chosen: Sequence[Constraint], rng: random.Random) -> list[str]:
    signs = {sign.casefold() for one in chosen for sign in (*one.signs, *one.value.split())}
    found = list[str]()
    for text in rng.sample(asked, len(asked)):
        if len(found) == turns:
            break
        if not signs & set(words_of(text)):
            found.append(text)
    if len(found) < turns:
        raise UserError(
            f"a Ghost Attention script asks for {turns} different messages; {len(found)} of {len(asked)} do not name {' or '.join(sorted(signs))}; "
            "ask for fewer turns, or raise ghost_characters"
        )
    return found
