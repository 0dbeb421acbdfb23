"""A card of every version with what was measured of it: the model folder's own card, which is older than any evaluation, and more."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.files import write_text
from .benchmarks import benchmarked
from .figures import figure_text, short
from .folder import FIRST, RunFolder, as_figure, dig
from .summary import MEASURES

FIGURES: Mapping[str, Sequence[str]] = {
    "helpfulness by the {judge}, sampled": ("helpfulness", "sampled"), "helpfulness by the {judge}, greedy": ("helpfulness", "greedy"),
    "violations, all harmful prompts": ("safety", "violation_rate"), "violations, held-out topics": ("safety", "held_out_topics"),
    "violations, held-out attacks": ("safety", "held_out_attacks"), "violations, multi-turn prompts": ("safety", "multi_turn"),
    "false refusals, all borderline prompts": ("borderline", "false_refusal_rate"), "false refusals, held-out topics": ("borderline", "held_out"),
    "questions about people never asked about in fine-tuning": ("people", "unasked"),
    "helpfulness reward": ("rewards", "helpfulness"), "safety reward": ("rewards", "safety"),
}  # fmt: skip
"""What a card says of a version, and where an evaluation has it."""
OF_WORLDS = ("held_out_topics", "held_out_attacks", "held_out", "unasked")
"""Figures that tell apart what only the miniature does: of public test sets nothing is trained on."""


def write_cards(run: RunFolder, out: Path) -> None:
    """Writes `cards/VERSION.md` for every version that was evaluated."""
    for version in run.versions:
        readme = run.path / version / "README.md"
        if version in run.evaluations and readme.is_file():
            write_text(out / "cards" / f"{version}.md", card(run, version, readme.read_text(encoding="utf-8")))


def card(run: RunFolder, version: str, readme: str) -> str:
    """The folder's card with the version's figures, obedience by turn and what it does worst."""
    lines = [readme.rstrip("\n"), "", "## What was measured of it", "", *_comparison(run, version), ""]
    lines += [f"| figure | {version} |", "|---|---|"]
    lines += [
        f"| {name.format(judge=run.judge)} | {figure_text(found, with_n=True)} |"
        for name, path in FIGURES.items()
        if (found := run.figure(version, *path)) and not (run.real and path[-1] in OF_WORLDS)
    ]
    lines += _real_lines(run, version) if run.real else []
    for key, label in run.constraints.items():
        turns = run.task(version, "ghost", key) or {}
        lines += [f"| obeys at turn {turn}, {label} | {figure_text(as_figure(figure), with_n=True)} |" for turn, figure in turns.items()]
    kinds: Mapping[str, object] = run.task(version, "safety", "by_category" if run.real else "by_attack") or {}
    known = {name: figure for name, value in kinds.items() if (figure := as_figure(value))}
    if known:
        worst = max(known, key=lambda name: known[name]["value"] or 0.0)
        kind = "category of harm" if run.real else "attack"
        lines += [
            "",
            f"The {kind} that it withstands least is {worst}: {figure_text(known[worst], with_n=True)} of its prompts are answered unsafely.",
        ]
    lines += ["", f"Rates and scores are 0 to 1 with 95% intervals, on test prompts {_judgement(run)}."]
    return "\n".join(lines) + "\n"


def _real_lines(run: RunFolder, version: str) -> list[str]:
    """Verdicts against the first version, and benchmarks with chance beside them."""
    by: Mapping[str, Any] = dig(run.wins.get(version), "by_criterion") or {}
    rows = [(f"won against {FIRST}, {name} prompts", figure_text(as_figure(one.get("win_rate")), with_n=True)) for name, one in by.items()]
    for task, one in benchmarked(run).get(version, {}).items():
        if accuracy := as_figure(one.get("accuracy")):
            rows.append((f"{task}, accuracy", f"{figure_text(accuracy, with_n=True)}, {one.get('verdict')} ({short(one.get('chance'))})"))
        elif bits := as_figure(one.get("bits_per_byte")):
            rows.append(("bits per byte of held-out documents", figure_text(bits, with_n=True)))
    return [f"| {name} | {text} |" for name, text in rows]


def _judgement(run: RunFolder) -> str:
    if not run.real:
        return "of the miniature world, judged by its oracle"
    worth = figure_text(run.judge_accuracy, with_n=True)
    return (
        f"that nothing was trained on. Helpfulness is the probability by a reward model that nothing is tuned on, which agrees with people on {worth} "
        f"held-out comparisons; what is unsafe and what refuses is said by {run.checker}, whose precision is in docs/results.md"
    )


def _comparison(run: RunFolder, version: str) -> list[str]:
    """One sentence on what it is beside the first version."""
    if version == FIRST:
        return ["The version after supervised fine-tuning, before any preference was collected."]
    pairs = [
        f"{name.replace('_', ' ')} {before['value']:.2f} to {after['value']:.2f}"
        for name, path in MEASURES.items()
        if (before := run.figure(FIRST, *path)) and (after := run.figure(version, *path))
    ]
    return [f"Beside {FIRST}, on the same prompts: {', '.join(pairs)}."] if pairs else []
