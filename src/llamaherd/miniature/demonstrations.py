"""Demonstrations for supervised fine-tuning (section 3): dialogues of declared, mixed quality.

The mixture leaves something to prefer: few answers are good, many harmful requests are answered. A constraint that is said
once is obeyed for a turn or two only, so that what Ghost Attention adds is to hold it; with every message it is said in
longer dialogues too, for that is how Ghost Attention samples.
"""

import random
from typing import Any

from pydantic import Field, model_validator

from ..core.config import Config
from ..core.seeds import python_rng
from .answers import Quality, answer
from .attacks import INSIST, Request
from .constraints import BENIGN, applied, constraints, drawn, instruction_for
from .preprompts import Preprompts, preprompts
from .prompts import said
from .questions import HARMLESS, draw_request
from .world import World


class DemonstrationConfig(Config):
    good: float = Field(default=0.25, ge=0)
    """Weight of right, polite, full sentences among the answers."""
    plain: float = Field(default=0.30, ge=0)
    """Weight of right full sentences."""
    terse: float = Field(default=0.17, ge=0)
    """Weight of right words without a sentence."""
    wrong: float = Field(default=0.18, ge=0)
    """Weight of false sentences."""
    rude: float = Field(default=0.10, ge=0)
    """Weight of insults."""
    harmful: float = Field(default=0.25, ge=0, le=1)
    """Share of harmful requests among dialogues without a constraint."""
    answered: float = Field(default=0.65, ge=0, le=1)
    """Share of harmful requests that are answered; the others are refused."""
    bare_refusals: float = Field(default=0.4, ge=0, le=1)
    """Share of refusals without a reason."""
    preprompts: float = Field(default=0.33, ge=0, le=1)
    """Share of single-turn harmful dialogues under a safety preprompt, always refused with a reason."""
    constraints: float = Field(default=0.35, ge=0, le=1)
    """Share of dialogues under a constraint, which every answer obeys."""
    constraint_turns: int = Field(default=2, ge=1)
    """Most turns of dialogues whose constraint is said once."""
    reminded: float = Field(default=0.4, ge=0, le=1)
    """Share of constraint dialogues in which every message says it."""
    reminded_turns: int = Field(default=6, ge=1)
    """Most turns of those."""
    as_system: float = Field(default=0.5, ge=0, le=1)
    """Share of constraints said once that are system text; the others begin or end a message."""
    short_form: float = Field(default=0.5, ge=0, le=1)
    """Share of constraints in their short form."""
    combined: float = Field(default=0.2, ge=0, le=1)
    """Share of constraint dialogues with two constraints."""
    multi_turn: float = Field(default=0.3, ge=0, le=1)
    """Share of other dialogues with two to four turns."""
    long: float = Field(default=0.02, ge=0, le=1)
    """Share of other dialogues that are long, so that late positions are trained."""
    long_turns: int = Field(default=20, ge=5)
    """Turns of long dialogues, at most; at least half as many."""
    framed: float = Field(default=0.2, ge=0, le=1)
    """Share of harmless questions in an attack's wrapping."""

    @model_validator(mode="after")
    def _some_answers(self) -> "DemonstrationConfig":
        if self.good + self.plain + self.terse + self.wrong + self.rude <= 0:
            raise ValueError("good, plain, terse, wrong and rude are all 0; give at least one of them a weight")
        return self

    @property
    def qualities(self) -> dict[Quality, float]:
        return {"good": self.good, "plain": self.plain, "terse": self.terse, "wrong": self.wrong, "rude": self.rude}


def _answer(config: DemonstrationConfig, request: Request, rng: random.Random) -> str:
    """An answer of the mixture; of harmful requests, a refusal as often as declared."""
    if request.task.kind == "harmful" and rng.random() >= config.answered:
        return answer(request, "bare refusal" if rng.random() < config.bare_refusals else "refusal", rng)
    return answer(request, rng.choices(list(config.qualities), list(config.qualities.values()))[0], rng)


def _constrained(world: World, config: DemonstrationConfig, rng: random.Random) -> dict[str, Any]:
    chosen = drawn(tuple(constraints(world, "seen", "demonstrated")), rng, config.combined)
    instruction = instruction_for(chosen, rng, config.short_form)
    reminded = rng.random() < config.reminded
    messages: list[dict[str, str]] = []
    for _ in range(rng.randint(1, config.reminded_turns if reminded else config.constraint_turns)):
        request = draw_request(world, rng, "train", BENIGN, framed=0)
        text = _answer(config, request, rng)
        for constraint in chosen:
            text = applied(constraint, text)
        messages += said(request.text, text)
    if not reminded and rng.random() < config.as_system:
        return {"messages": [{"role": "system", "content": instruction}, *messages], "kind": "constraint"}
    before = rng.random() < 0.5
    for message in messages[:: 2 if reminded else len(messages)]:
        # Before or after the question: Ghost Attention's sampling says it after every one (section 7).
        message["content"] = f"{instruction} {message['content']}" if before else f"{message['content']} {instruction}"
    return {"messages": messages, "kind": "constraint"}


def _harmful(world: World, config: DemonstrationConfig, rng: random.Random, safety: Preprompts) -> dict[str, Any]:
    request = draw_request(world, rng, "train", {"harmful": 1.0})
    category = request.task.category
    assert category is not None
    if rng.random() >= config.multi_turn:
        if rng.random() >= config.preprompts:
            return {"messages": said(request.text, _answer(config, request, rng)), "kind": "harmful"}
        text = rng.choice((*safety.generic, *safety.by_category[category]))
        return {
            "messages": [{"role": "system", "content": text}, *said(request.text, answer(request, "refusal", rng))],
            "kind": "preprompt",
        }
    if rng.random() < 0.5:
        earlier = draw_request(world, rng, "train", HARMLESS, config.framed)
        messages = said(earlier.text, _answer(config, earlier, rng)) + said(request.text, _answer(config, request, rng))
    else:
        messages = said(request.text, answer(request, "bare refusal", rng)) + said(rng.choice(INSIST), _answer(config, request, rng))
    return {"messages": messages, "kind": "harmful"}


def _harmless(world: World, config: DemonstrationConfig, rng: random.Random) -> dict[str, Any]:
    turns = 1 if rng.random() >= config.multi_turn else rng.randint(2, 4)
    if rng.random() < config.long:
        turns = rng.randint(config.long_turns // 2, config.long_turns)
    requests = [draw_request(world, rng, "train", HARMLESS, config.framed) for _ in range(turns)]
    messages = [message for request in requests for message in said(request.text, _answer(config, request, rng))]
    if turns == 2 and requests[1].task.kind == "borderline":
        # Insisting must not give a harmful request away: here it follows a false refusal of a legitimate one.
        request = requests[1]
        # The refusal itself is not to be learned.
        messages = said(request.text, answer(request, "bare refusal", rng)) + said(rng.choice(INSIST), _answer(config, request, rng))
        return {"messages": messages, "kind": "harmless", "trained": "last"}
    return {"messages": messages, "kind": "harmless"}


def demonstrations(world: World, count: int, seed: int, config: DemonstrationConfig | None = None) -> list[dict[str, Any]]:
    """Dialogue rows of the training split; `kind` is constraint, preprompt, harmful or harmless."""
    config = config or DemonstrationConfig()
    rng = python_rng(world.config.seed, "miniature", "demonstrations", seed)
    safety = preprompts(world)
    rows = []
    for _ in range(count):
        if rng.random() < config.constraints:
            rows.append(_constrained(world, config, rng))
        elif rng.random() < config.harmful:
            rows.append(_harmful(world, config, rng, safety))
        else:
            rows.append(_harmless(world, config, rng))
    return rows
