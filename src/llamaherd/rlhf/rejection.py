"""Rejection sampling (paper.md section 6): K answers to a prompt, the best one by the reward models, a pool over all versions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..assistant.local import Assistant
from ..chat.dialogue import Dialogue
from ..core.errors import UserError
from ..core.seeds import seed_for
from ..data.records import Prompt, parse_prompt
from ..generate.config import SamplingConfig
from ..reward.combine import Rewards, Scores
from .judging import scores_of, why_unusable

OWN_FIELDS = ("answer", "version", "lineage")
"""What a row of the pool has beside its prompt's fields."""


@dataclass(frozen=True)
class Candidate:
    """One sampled answer and its combined logit; None where the answer may not become data (see rlhf.judging)."""

    text: str
    logit: float | None
    about: Mapping[str, Any] = field(default_factory=dict)
    """Where it came from."""


def sample_answers(
    assistant: Assistant, rewards: Rewards, prompts: Sequence[Prompt], first: int, k: int,
    sampling: SamplingConfig | Sequence[SamplingConfig], seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """K candidates for each prompt, one row per prompt: the prompt's fields and `candidates` in the order sampled.

    `first` is the index of prompts[0] in the whole list: seeds hang on the prompt's own index, so chunks do not matter. Of several
    settings the draws take one after the other, and begin again with the first: each gets K / (number of settings) draws, give or
    take one.
    """
    settings = [sampling] if isinstance(sampling, SamplingConfig) else sampling
    repeated = [(index, prompt, draw) for index, prompt in enumerate(prompts) for draw in range(k)]
    configs = [settings[draw % len(settings)] for _, _, draw in repeated]
    seeds = [seed_for(seed, "reject", first + index, draw) for index, _, draw in repeated]
    answers = assistant.answers([prompt.dialogue for _, prompt, _ in repeated], configs, seeds)
    scores = scores_of(rewards, [prompt for _, prompt, _ in repeated], answers)
    rows: list[dict[str, Any]] = [{**prompt.to_row(), "model": assistant.name, "candidates": []} for prompt in prompts]
    for (index, _, draw), config, own_seed, answer, score in zip(repeated, configs, seeds, answers, scores, strict=True):
        unusable = None if score is not None else why_unusable(answer) or "too long"
        rows[index]["candidates"].append({
            "text": answer.text, "logit": score.combined if score else None, "unusable": unusable,
            "helpfulness": score.helpfulness if score else None, "safety": score.safety if score else None,
            "temperature": config.temperature, "draw": draw, "seed": own_seed,
        })  # fmt: skip
    return rows


def candidates_of(row: Mapping[str, Any]) -> list[Candidate]:
    return [Candidate(item["text"], item["logit"], item) for item in row["candidates"]]


def best_of(candidates: Iterable[Candidate]) -> Candidate | None:
    """The candidate of the highest logit, the first one among equals; None when none may become data."""
    usable = [candidate for candidate in candidates if candidate.logit is not None]
    return max(usable, key=lambda candidate: candidate.logit or 0.0) if usable else None


@dataclass(frozen=True)
class PoolRow:
    """The best answer to one prompt and where it came from."""

    prompt: Prompt
    answer: str
    version: str
    lineage: Mapping[str, Any] = field(default_factory=dict)
    """Model, its hash, temperature, draw, seed, and the logits of the time; empty in rows of a pool that did not keep it."""
    judged: Scores | None = None
    """Logits by the newest reward models."""
    also: tuple[str, ...] = ()
    """Later versions with an equal answer."""

    def to_row(self) -> dict[str, Any]:
        return {**self.prompt.to_row(), "answer": self.answer, "version": self.version, "lineage": dict(self.lineage)}

    @classmethod
    def of(cls, row: Mapping[str, Any], where: str) -> "PoolRow":
        """From a row of best.jsonl. Raises UserError."""
        for key in ("answer", "version"):
            if not isinstance(row.get(key), str):
                raise UserError(f"{where}: {key!r} is {row.get(key)!r}; expected text, as rejection sampling writes it")
        lineage = row.get("lineage") or {}
        if not isinstance(lineage, Mapping):
            raise UserError(f"{where}: 'lineage' is {str(lineage)[:40]!r}; expected an object, as rejection sampling writes it, or none")
        about = {key: value for key, value in row.items() if key not in OWN_FIELDS}
        return cls(parse_prompt(about, where), row["answer"], row["version"], lineage)


def best_rows(rows: Iterable[Mapping[str, Any]], version: str, model_hash: str | None = None) -> list[PoolRow]:
    """The best candidate of each prompt that has one."""
    found = []
    for index, row in enumerate(rows):
        best = best_of(candidates_of(row))
        if best is not None:
            fields = {key: value for key, value in row.items() if key not in ("candidates", "model")}
            lineage = {
                "model": row["model"], "model_hash": model_hash,
                **{name: best.about[name] for name in ("temperature", "draw", "seed", "helpfulness", "safety")}, "combined": best.logit,
            }  # fmt: skip
            found.append(PoolRow(parse_prompt(fields, f"sampled prompt {index + 1}"), best.text, version, lineage))
    return found


@dataclass(frozen=True)
class Pool:
    """One row per prompt, and how many others there were."""

    rows: list[PoolRow]
    equal_answers: int
    """Rows left out since an earlier version gave the same answer."""
    beaten: int
    """Rows left out since another answer to the same prompt is better."""
    too_long: int
    """Rows left out since they exceed the context of a newest reward model."""


def _without_spacing(text: str) -> str:
    return " ".join(text.split())


def _key(prompt: Dialogue) -> tuple[tuple[str, str], ...]:
    """The same for prompts that differ in white space alone."""
    return tuple((message.role, _without_spacing(message.content)) for message in prompt.messages)


def pooled(earlier: Sequence[PoolRow], newest: Sequence[PoolRow], rewards: Rewards) -> Pool:
    """All versions' best answers, judged anew by the newest reward models; a prompt sampled by several keeps the best of them.

    The paper's first versions used the last iteration's samples only and lost earlier skills; the whole pool mended it. Prompts that
    differ in white space alone are one; one that is tagged as unsafe anywhere is so everywhere, else logits of two kinds would be
    compared. Of equal answers the earliest version's stays and names the others.
    """
    everything = [*earlier, *newest]
    tagged = {_key(row.prompt.dialogue) for row in everything if row.prompt.safety}
    rows = [
        replace(row, prompt=replace(row.prompt, safety=_key(row.prompt.dialogue) in tagged))
        for row in everything
        if rewards.fits(row.prompt, row.answer)
    ]
    scores = rewards.scores([row.prompt for row in rows], [row.answer for row in rows]) if rows else []
    different: dict[Any, PoolRow] = {}
    for row, score in zip(rows, scores, strict=True):
        same = (_key(row.prompt.dialogue), _without_spacing(row.answer))
        held = different.get(same)
        different[same] = replace(held, also=(*held.also, row.version)) if held else replace(row, judged=score)
    best: dict[Any, PoolRow] = {}
    for (key, _), row in different.items():
        if key not in best or _combined(row) > _combined(best[key]):
            best[key] = row
    return Pool(list(best.values()), len(rows) - len(different), len(different) - len(best), len(everything) - len(rows))


def _combined(row: PoolRow) -> float:
    assert row.judged is not None, "judged by the newest reward models before"
    return row.judged.combined


def dialogue_of(row: PoolRow) -> Dialogue:
    """The tuning example of a pool row: only the sampled answer carries loss, earlier ones were not chosen by anyone."""
    return Dialogue(row.prompt.dialogue.followed_by("assistant", row.answer).messages, trained="last")


def tuning_row(row: PoolRow) -> dict[str, Any]:
    """As tuning reads it, with the safety tag, the lineage and what the newest reward models say."""
    lineage = {**row.lineage, "version": row.version, "also": list(row.also), "judged": row.judged._asdict() if row.judged else None}
    return {**dialogue_of(row).to_row(), "safety": row.prompt.safety, "lineage": lineage}
