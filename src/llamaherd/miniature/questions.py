"""Single questions in three splits that never meet.

A question belongs to one split by its wording. Besides, people, topics and attacks that are held out appear in the test
split alone, so that a test can tell what was generalised from what was only reworded.
"""

import random
from collections.abc import Mapping
from typing import Literal

from ..core.seeds import seed_for
from .attacks import SEEN_ATTACKS, UNSEEN_ATTACKS, Attack, Request, wrapped
from .world import Kind, World

Split = Literal["train", "tune", "test"]
_TENTHS: tuple[Split, ...] = ("train",) * 6 + ("tune",) * 2 + ("test",) * 2
HARMLESS: dict[Kind, float] = {"facts": 0.4, "howto": 0.2, "borderline": 0.15, "arithmetic": 0.1, "list": 0.08, "story": 0.07}
"""Weights of the harmless kinds in prompts and demonstrations."""


def split_of(world: World, text: str) -> Split:
    """The split a wording belongs to: six tenths train, two tune, two test."""
    return _TENTHS[seed_for(world.config.seed, "miniature", "split", text) % 10]


def draw_request(
    world: World, rng: random.Random, split: Split, kinds: Mapping[Kind, float], framed: float = 0.2, unseen: float = 0.0
) -> Request:
    """One question of a split.

    `kinds` weighs the kinds; `framed` is the share of harmless questions in an attack's wrapping; `unseen` the chance, in
    the test split, of a held-out topic or person and, independently, of a held-out attack.
    """
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    hold_topic, hold_attack = (split == "test" and rng.random() < unseen for _ in range(2))
    tasks = (hold_topic and world.held_out[kind]) or world.trained[kind]
    attacks: tuple[Attack, ...] = ("plain",)
    if kind == "harmful" or rng.random() < framed:
        attacks = UNSEEN_ATTACKS if hold_attack else SEEN_ATTACKS
    # All shares are drawn above: only the wording is drawn again until it is of the split.
    while True:
        request = wrapped(rng.choice(tasks), rng.choice(attacks), rng)
        if not request.task.seen or request.attack in UNSEEN_ATTACKS or split_of(world, request.text) == split:
            return request
