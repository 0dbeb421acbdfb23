"""Rejection sampling (paper.md section 6): K answers to a prompt, the best one by the reward models, a pool over all versions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..assistant.local import Assistant
from ..chat.dialogue import Dialogue
from ..core.errors import UserError
from ..core.seeds import seed_for
from ..data.records import Prompt, parse_prompt
from ..generate.config import SamplingConfig
from ..reward.combine import Combination
from .judging import combined_logits, why_unusable


@dataclass(frozen=True)
class Candidate:
    """One sampled answer and its combined logit; None where the answer may not become data (see rlhf.judging)."""

    text: str
    logit: float | None


def sample_answers(
    assistant: Assistant, rewards: Combination, prompts: Sequence[Prompt], first: int, k: int, sampling: SamplingConfig, seed: int
) -> list[dict[str, Any]]:
    """K candidates for each prompt, one row per prompt: the prompt's fields and `candidates` in the order sampled.

    `first` is the index of prompts[0] in the whole list: seeds hang on the prompt's own index, so chunks do not matter.
    """
    repeated = [(index, prompt, draw) for index, prompt in enumerate(prompts) for draw in range(k)]
    seeds = [seed_for(seed, "reject", first + index, draw) for index, _, draw in repeated]
    answers = assistant.answers([prompt.dialogue for _, prompt, _ in repeated], sampling, seeds)
    logits = combined_logits(rewards, [prompt for _, prompt, _ in repeated], answers)
    rows: list[dict[str, Any]] = [{**prompt.to_row(), "model": assistant.name, "candidates": []} for prompt in prompts]
    for (index, _, _), answer, logit in zip(repeated, answers, logits, strict=True):
        unusable = None if logit is not None else why_unusable(answer) or "too long"
        rows[index]["candidates"].append({"text": answer.text, "logit": logit, "unusable": unusable})
    return rows


def candidates_of(row: dict[str, Any]) -> list[Candidate]:
    return [Candidate(item["text"], item["logit"]) for item in row["candidates"]]


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

    def to_row(self) -> dict[str, Any]:
        return {**self.prompt.to_row(), "answer": self.answer, "version": self.version}

    @classmethod
    def of(cls, row: dict[str, Any], where: str) -> "PoolRow":
        """From a row of best.jsonl. Raises UserError."""
        for key in ("answer", "version"):
            if not isinstance(row.get(key), str):
                raise UserError(f"{where}: {key!r} is {row.get(key)!r}; expected text, as rejection sampling writes it")
        about = {key: value for key, value in row.items() if key not in ("answer", "version")}
        return cls(parse_prompt(about, where), row["answer"], row["version"])


def best_rows(rows: Sequence[dict[str, Any]], version: str) -> list[PoolRow]:
    """The best candidate of each prompt that has one."""
    found = []
    for index, row in enumerate(rows):
        best = best_of(candidates_of(row))
        if best is not None:
            fields = {key: value for key, value in row.items() if key not in ("candidates", "model")}
            found.append(PoolRow(parse_prompt(fields, f"sampled prompt {index + 1}"), best.text, version))
    return found


def pooled(earlier: Sequence[PoolRow], newest: Sequence[PoolRow], rewards: Combination) -> list[PoolRow]:
    """All versions' best answers, judged anew by the newest reward models; a prompt sampled by several keeps the best of them.

    The paper's first versions used the last iteration's samples only and lost earlier skills; the whole pool mended it.
    """
    rows = [*earlier, *newest]
    logits = rewards.logits([row.prompt for row in rows], [row.answer for row in rows]) if rows else []
    best: dict[Dialogue, tuple[float, PoolRow]] = {}
    for row, logit in zip(rows, logits, strict=True):
        key = row.prompt.dialogue
        if key not in best or logit > best[key][0]:
            best[key] = (logit, row)
    return [row for _, row in best.values()]


def dialogue_of(row: PoolRow) -> Dialogue:
    """The tuning example of a pool row: only the sampled answer carries loss, earlier ones were not chosen by anyone."""
    return Dialogue(row.prompt.dialogue.followed_by("assistant", row.answer).messages, trained="last")
