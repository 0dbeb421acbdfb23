"""Answers to prompts and what a judge says of them: the rows that every table and every paired comparison comes from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from ..assistant.local import Assistant
from ..core.artifacts import hash_of
from ..core.seeds import seed_for
from ..data.records import Judge, Prompt
from ..generate.config import SamplingConfig
from ..measures.intervals import Figure, mean, rate

Mode = Literal["sampled", "greedy"]
Row = dict[str, Any]


def prompt_id(prompt: Prompt) -> str:
    """The same for the same messages, in every version and run."""
    return hash_of(prompt.dialogue.to_row()["messages"])[:16]


def judged_rows(
    assistant: Assistant, judge: Judge, prompts: Sequence[Prompt], sampling: SamplingConfig, task: str, mode: Mode, seed: int
) -> list[Row]:
    """One row per prompt: task, id, mode, the judgement, the answer and what the prompt is about.

    Draws hang on the prompt, not on its place in the list: under one seed, two versions get the same draws for it.
    """
    config = sampling if mode == "sampled" else sampling.model_copy(update={"temperature": 0.0})
    ids = [prompt_id(prompt) for prompt in prompts]
    answers = assistant.answers([prompt.dialogue for prompt in prompts], config, [seed_for(seed, task, key) for key in ids])
    judgements = judge.judge_all(prompts, [answer.text for answer in answers])
    rows = []
    for prompt, key, answer, found in zip(prompts, ids, answers, judgements, strict=True):
        row = {
            "task": task, "id": key, "mode": mode, "score": found.helpfulness, "safe": found.safe, "refusal": found.refusal,
            "correct": found.correct,
            "finished": answer.completion.finished, "turns": prompt.dialogue.turns, "answer": answer.text,
            "prompt": prompt.dialogue.asked,
        }  # fmt: skip
        # A file of one's own may have an "id" or a "score" too.
        rows.append(row | {name: value for name, value in prompt.about.items() if name not in row})
    return rows


def mean_score(rows: Iterable[Row]) -> Figure:
    return mean([row["score"] for row in rows])


def share(rows: Sequence[Row], holds: Callable[[Row], bool]) -> Figure:
    """How many of the rows it holds for, with interval."""
    return rate(sum(map(holds, rows)), len(rows))


def correct_share(rows: Sequence[Row]) -> Figure:
    """Share of the answers that are right, of those for which right has a meaning."""
    checked = [row for row in rows if row["correct"] is not None]
    return share(checked, lambda row: bool(row["correct"]))


def by(rows: Sequence[Row], key: str, figure: Callable[[list[Row]], Figure]) -> dict[str, Figure]:
    """The figure of each group of rows that share a value of `key` (rows without one are left out)."""
    values = sorted({str(row[key]) for row in rows if row.get(key) is not None})
    return {value: figure([row for row in rows if str(row.get(key)) == value]) for value in values}


def helpfulness_report(sampled: Sequence[Row], greedy: Sequence[Row]) -> Mapping[str, Any]:
    """Mean helpfulness, sampled and greedy, and by kind of prompt."""
    return {"sampled": mean_score(sampled), "greedy": mean_score(greedy), "by_kind": by(sampled, "kind", mean_score)}


def safety_report(rows: Sequence[Row]) -> Mapping[str, Any]:
    """Violations among adversarial prompts: in all, single and multi-turn, held-out topics, held-out attacks, by risk category and attack."""

    def violations(chosen: Sequence[Row]) -> Figure:
        return share(chosen, lambda row: not row["safe"])

    return {
        "violation_rate": violations(rows),
        "single_turn": violations([row for row in rows if row["turns"] == 1]),
        "multi_turn": violations([row for row in rows if row["turns"] > 1]),
        "held_out_topics": violations([row for row in rows if row.get("seen") is False]),
        "held_out_attacks": violations([row for row in rows if row.get("attack_seen") is False]),
        "by_category": by(rows, "category", violations),
        "by_attack": by(rows, "attack", violations),
    }


def refusal_report(rows: Sequence[Row]) -> Mapping[str, Any]:
    """False refusals: legitimate prompts that are refused (section 9)."""

    def refusals(chosen: Sequence[Row]) -> Figure:
        return share(chosen, lambda row: bool(row["refusal"]))

    return {"false_refusal_rate": refusals(rows), "held_out": refusals([row for row in rows if row.get("seen") is False])}
