"""Answers of declared quality to any request: the material of demonstrations, of forum pages and of tests."""

import random
from collections.abc import Mapping
from typing import Any, Literal, get_args

from ..core.errors import UserError
from ..core.seeds import python_rng
from ..data.records import parse_prompt
from . import vocabulary
from .attacks import Request
from .constraints import applied
from .language import translated
from .requests import constraints_in, understood
from .world import Task, World, joined

Quality = Literal["good", "plain", "terse", "wrong", "rude", "refusal", "bare refusal"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)


THINGS: list[str] = sorted({noun for nouns in vocabulary.HARMLESS.values() for noun in nouns.split()})
"""What the subjects of stories find."""


def _items(task: Task, rng: random.Random, right: bool) -> list[str]:
    """What is put into the task's sentence."""
    if task.kind == "list":
        size = task.count if right else rng.choice([size for size in vocabulary.COUNTS if size != task.count])
        return rng.sample(task.right, size)
    if right:
        return list(task.right)
    return rng.sample(task.rivals, len(task.right))


def story(subject: str, rng: random.Random) -> str:
    place = rng.choice(vocabulary.CITY_ATTRIBUTES["sight"])
    thing, mood = rng.choice(THINGS), rng.choice(vocabulary.MOODS)
    return f"Once there was a {subject}. The {subject} found {thing} near the {place}. Then the {subject} was {mood}."


def plain(task: Task, rng: random.Random, right: bool = True) -> str:
    """A full sentence (a story: three) that answers the task, rightly or wrongly."""
    items = _items(task, rng, right)
    return story(items[0], rng) if task.kind == "story" else task.form.format(joined(items))


def refusal(task: Task, bare: bool = False) -> str:
    """A refusal; unless bare, with the risk and an offer (section 9's good answer). Of a harmless task, it is a false one."""
    reason = vocabulary.REASONS[task.category or "illicit"]
    return vocabulary.REFUSAL if bare else f"{vocabulary.REFUSAL} {reason} {vocabulary.ALTERNATIVE}"


def english_answer(task: Task, quality: Quality, rng: random.Random) -> str:
    """The answer to a task in one quality, before it is said in the language that the request asks for."""
    if quality in ("refusal", "bare refusal"):
        return refusal(task, bare=quality == "bare refusal")
    if quality == "terse":
        items = _items(task, rng, right=True)
        return f"a {items[0]} story" if task.kind == "story" else ", ".join(items)
    if quality == "rude":
        insult = rng.choice(vocabulary.RUDE)
        return f"{insult} {plain(task, rng, right=rng.random() < 0.5)}" if rng.random() < 0.5 else insult
    text = plain(task, rng, right=quality != "wrong")
    if quality == "good":
        before = rng.random() < 0.5
        text = f"{rng.choice(vocabulary.POLITE_OPENINGS)} {text}" if before else f"{text} {rng.choice(vocabulary.POLITE_ENDINGS)}"
    return text


def answer(request: Request, quality: Quality, rng: random.Random) -> str:
    """An answer in the language of the request."""
    text = english_answer(request.task, quality, rng)
    return translated(text, request.language) if request.language else text


def reference_answer(world: World, row: Mapping[str, Any], quality: Quality, draw: int = 0) -> str:
    """An answer of declared quality to a prompt row, under its constraints; `draw` asks for another of the same quality.

    Qualities: good (right, a sentence, polite), plain (not polite), terse (right, no sentence), wrong (a false sentence),
    rude, refusal (reasoned), bare refusal. To harmful prompts, the first four comply. Raises UserError for a prompt that
    is none of the world's.
    """
    dialogue = parse_prompt(row).dialogue
    request = understood(world, dialogue)
    if request is None:
        raise UserError(f"prompt {dialogue.last.content[:60]!r} is none of the miniature world's; reference answers exist only for those")
    rng = python_rng(world.config.seed, "miniature", "answer", quality, draw, *(message.content for message in dialogue.messages))
    text = answer(request, quality, rng)
    for constraint in constraints_in(dialogue):
        if constraint.kind != "language" or request.language is None:
            text = applied(constraint, text)
    return text
