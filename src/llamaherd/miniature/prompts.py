"""Prompts of one or several turns: rows that end with a user message and say what they ask, for evaluation only to read."""

import random
from collections.abc import Mapping
from typing import Any

from ..core.errors import UserError
from ..core.seeds import python_rng
from .answers import Quality, answer
from .attacks import INSIST, UNSEEN_ATTACKS, Request
from .constraints import constraints
from .questions import HARMLESS, Split, draw_request
from .world import Kind, World

Row = dict[str, Any]
_PATIENCE = 1000
"""Draws without a new prompt after which there are no more."""
_EARLIER: tuple[Quality, ...] = ("plain", "good")
_REFUSALS: tuple[Quality, ...] = ("refusal", "bare refusal")


def row_of(request: Request, messages: list[dict[str, str]]) -> Row:
    """A prompt row; `seen` is false for held-out topics and people, `attack_seen` for held-out attacks; `people` null for other things."""
    task = request.task
    return {
        "messages": messages, "safety": task.kind == "harmful",
        "kind": task.kind, "topic": task.topic, "category": task.category,
        "attack": request.attack, "people": task.people, "seen": task.seen,
        "attack_seen": request.attack not in UNSEEN_ATTACKS,
    }  # fmt: skip


def said(user: str, reply: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": reply}]


def _several_turns(world: World, rng: random.Random, split: Split, request: Request) -> list[dict[str, str]]:
    """The request after other questions, or (half of the harmful and borderline ones) refused once and insisted upon."""
    if request.task.kind in ("harmful", "borderline") and rng.random() < 0.5:
        refused = said(request.text, answer(request, rng.choice(_REFUSALS), rng))
        return [*refused, {"role": "user", "content": rng.choice(INSIST)}]
    messages: list[dict[str, str]] = []
    for _ in range(rng.randint(1, 3)):
        earlier = draw_request(world, rng, split, HARMLESS)
        messages += said(earlier.text, answer(earlier, rng.choice(_EARLIER), rng))
    return [*messages, {"role": "user", "content": request.text}]


def prompts(
    world: World, count: int, seed: int, split: Split, kinds: Mapping[Kind, float] | None = None, *,
    multi_turn: float = 0.3, framed: float = 0.2, unseen: float = 0.5,
) -> list[Row]:  # fmt: skip
    """Prompt rows of a split, of the kinds as weighed (default: the harmless ones).

    Prompts for tuning and tests are all different, since each is to count once; training prompts may repeat. `multi_turn`
    is the share with more than one turn, `framed` and `unseen` are those of `draw_request`. Raises UserError when the
    world has fewer different ones than asked for.
    """
    rng = python_rng(world.config.seed, "miniature", "prompts", split, seed)
    rows: list[Row] = []
    found: set[tuple[str, ...]] = set()
    misses = 0
    while len(rows) < count:
        request = draw_request(world, rng, split, kinds or HARMLESS, framed, unseen)
        single = [{"role": "user", "content": request.text}]
        messages = _several_turns(world, rng, split, request) if rng.random() < multi_turn else single
        texts = tuple(message["content"] for message in messages)
        if split != "train" and texts in found:
            misses += 1
            if misses > _PATIENCE:
                raise UserError(f"{count} different {split} prompts asked for; the world has about {len(rows)} of these; ask for fewer")
            continue
        misses = 0
        found.add(texts)
        rows.append(row_of(request, messages))
    return rows


def helpfulness_prompts(world: World, count: int, seed: int, split: Split, harmful_share: float = 0.12, unseen: float = 0.25) -> list[Row]:
    """Harmless prompts of all kinds, and a share of harmful ones that are judged by how well they are followed."""
    kinds: dict[Kind, float] = {**_scaled(HARMLESS, 1 - harmful_share), "harmful": harmful_share}
    return prompts(world, count, seed, split, kinds, unseen=unseen)


def safety_prompts(
    world: World,
    count: int,
    seed: int,
    split: Split,
    borderline_share: float = 0.15,
    harmless_share: float = 0.2,
    unseen: float = 0.5,
) -> list[Row]:
    """Adversarial prompts, with borderline and harmless ones whose safe labels keep the safety model from refusing all."""
    others: dict[Kind, float] = {kind: weight for kind, weight in HARMLESS.items() if kind != "borderline"}
    harmful = 1 - borderline_share - harmless_share
    if min(harmful, borderline_share, harmless_share) < 0:
        raise UserError(f"borderline_share {borderline_share} and harmless_share {harmless_share}: expected 0 or more, together at most 1")
    kinds: dict[Kind, float] = {**_scaled(others, harmless_share), "borderline": borderline_share, "harmful": harmful}
    return prompts(world, count, seed, split, kinds, unseen=unseen)


def borderline_prompts(world: World, count: int, seed: int, split: Split, unseen: float = 0.5) -> list[Row]:
    """Legitimate requests with sensitive words, of one turn, unframed: refusing one is a false refusal (section 9)."""
    return prompts(world, count, seed, split, {"borderline": 1.0}, multi_turn=0, framed=0, unseen=unseen)


def unasked_people_prompts(world: World, count: int, seed: int) -> list[Row]:
    """Test prompts about people whom only the documents know."""
    return prompts(world, count, seed, "test", {"facts": 1.0}, multi_turn=0, framed=0, unseen=1.0)


def fixed_sample_prompts(world: World) -> list[Row]:
    """A few prompts of the tuning split, the same in every run of a world, whose answers show people how the model does."""
    kinds: tuple[Kind, ...] = ("facts", "howto", "arithmetic", "borderline", "harmful")
    rows = [prompts(world, 1, 0, "tune", {kind: 1.0}, multi_turn=0, framed=0)[0] for kind in kinds]
    system = {"role": "system", "content": constraints(world, "seen")[0].instruction}
    return [*rows, {**rows[0], "messages": [system, *rows[0]["messages"]]}]


def _scaled(kinds: Mapping[Kind, float], total: float) -> dict[Kind, float]:
    """Weights that add up to `total`."""
    scale = total / sum(kinds.values())
    return {kind: weight * scale for kind, weight in kinds.items()}
