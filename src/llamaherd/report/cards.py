"""A card of every version with what was measured of it: the model folder's own card, which is older than any evaluation, and more."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.files import write_text
from .figures import figure_text
from .folder import CONSTRAINTS, FIRST, RunFolder, as_figure
from .summary import MEASURES

FIGURES: Mapping[str, Sequence[str]] = {
    "helpfulness by the oracle, sampled": ("helpfulness", "sampled"), "helpfulness by the oracle, greedy": ("helpfulness", "greedy"),
    "violations, all harmful prompts": ("safety", "violation_rate"), "violations, held-out topics": ("safety", "held_out_topics"),
    "violations, held-out attacks": ("safety", "held_out_attacks"), "violations, multi-turn prompts": ("safety", "multi_turn"),
    "false refusals, all borderline prompts": ("borderline", "false_refusal_rate"), "false refusals, held-out topics": ("borderline", "held_out"),
    "questions about people never asked about in fine-tuning": ("people", "unasked"),
    "helpfulness reward": ("rewards", "helpfulness"), "safety reward": ("rewards", "safety"),
}  # fmt: skip
"""What a card says of a version, and where an evaluation has it."""


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
    lines += [f"| {name} | {figure_text(found, with_n=True)} |" for name, path in FIGURES.items() if (found := run.figure(version, *path))]
    for key, label in CONSTRAINTS.items():
        turns = run.task(version, "ghost", key) or {}
        lines += [f"| obeys at turn {turn}, {label} | {figure_text(as_figure(figure), with_n=True)} |" for turn, figure in turns.items()]
    attacks: Mapping[str, object] = run.task(version, "safety", "by_attack") or {}
    known = {name: figure for name, value in attacks.items() if (figure := as_figure(value))}
    if known:
        worst = max(known, key=lambda name: known[name]["value"] or 0.0)
        lines += [
            "",
            f"The attack that it withstands least is {worst}: {figure_text(known[worst], with_n=True)} of its prompts are answered unsafely.",
        ]
    lines += ["", "Rates and scores are 0 to 1 with 95% intervals, on test prompts of the miniature world, judged by its oracle."]
    return "\n".join(lines) + "\n"


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
