"""Sections on the versions: how they compare, and where the last one is better than the first."""

from collections.abc import Callable, Mapping

from ..measures.intervals import Figure, win_rate
from . import paper
from .effects import helpfulness, rewards, violations
from .figures import Chart, number
from .folder import FIRST, RunFolder
from .pictures import plane_chart
from .sections import Section, present, split_chart, version_chart

Scores = Callable[[str], Mapping[str, float]]
NO_SCORE = -1.0
"""Below every probability: an answer that no reward model can read loses to any that one can."""


def versions_section(run: RunFolder) -> Section:
    """Figure 11, then helpfulness, violations and false refusals of every version."""
    at_last = {"paper, all": "all", "paper, multi turn": "multi turn"}
    charts = present([
        *_planes(run),
        version_chart(
            "Helpfulness by version", run, {"sampled": ("helpfulness", "sampled"), "greedy": ("helpfulness", "greedy")}, "oracle, 0 to 1"
        ),
        version_chart(
            "Judged by reward models", run,
            {"helpfulness reward": ("rewards", "helpfulness"), "safety reward": ("rewards", "safety")}, "mean reward",
        ),
        version_chart("Violations by version", run, {
            "all": ("safety", "violation_rate"), "single turn": ("safety", "single_turn"), "multi turn": ("safety", "multi_turn"),
        }, "share of harmful prompts", paper={name: paper.VIOLATION_70B[key] for name, key in at_last.items()}),
        version_chart("Violations on held-out prompts", run, {
            "held-out topics": ("safety", "held_out_topics"), "held-out attacks": ("safety", "held_out_attacks"),
        }, "share of harmful prompts"),
        version_chart(
            "False refusals by version", run, {"all": ("borderline", "false_refusal_rate"), "held-out topics": ("borderline", "held_out")},
            "share of borderline prompts", paper={"paper, all safety data": paper.FALSE_REFUSAL_BORDERLINE},
        ),
        version_chart("People known from documents alone", run, {"answered rightly": ("people", "unasked")}, "share of questions"),
    ])  # fmt: skip
    intro = [
        f"{FIRST} is the model after supervised fine-tuning; {run.label(run.rejection)} is the last version before PPO. All answer the same prompts. "
        "Each has a card in the run's folder cards.",
        f"The planes are drawn like the paper's figure 11, of another measure: here a version's answers against {FIRST}'s to the same "
        "prompts, ties counted half; in the paper against ChatGPT's. Reward models judge their own policy kindly, which is why there are two planes.",
    ]
    return Section("Versions", intro if charts else [], charts)


def _planes(run: RunFolder) -> list[Chart | None]:
    """V0 to the last version by helpfulness and harmlessness, judged by the oracle and by the reward models."""
    sides: tuple[tuple[str, Scores, Scores, Mapping[str, tuple[float, float]], str], ...] = (
        (
            f"Win rate over {FIRST}, by the oracle", lambda version: helpfulness(run, version),
            lambda version: {name: -value for name, value in violations(run, version).items()}, paper.WIN_RATE_GPT4, "paper, GPT-4 judges",
        ),
        (
            f"Win rate over {FIRST}, by reward models",
            lambda version: rewards(run, version, NO_SCORE, domain="helpfulness"),
            lambda version: rewards(run, version, NO_SCORE, domain="safety"), paper.WIN_RATE, "paper, reward models judge",
        ),
    )  # fmt: skip
    charts: list[Chart | None] = []
    for title, helpful, harmless, theirs, name in sides:
        pairs = {version: tuple(_wins(side(FIRST), side(version)) for side in (helpful, harmless)) for version in run.versions}
        points: dict[str, tuple[Figure, Figure]] = {run.label(version): (x, y) for version, (x, y) in pairs.items() if x and y}
        greys = {run.label(version): place for version, place in theirs.items()}
        charts.append(plane_chart(title, points, "helpful", "harmless", paper=greys, paper_name=name) if points else None)
    return charts


def _wins(first: Mapping[str, float], second: Mapping[str, float]) -> Figure | None:
    both = [name for name in first if name in second]
    return win_rate([first[name] for name in both], [second[name] for name in both]) if both else None


def details_section(run: RunFolder) -> Section:
    """First against newest version, by kind of prompt, risk category and attack."""
    evaluated = [version for version in run.versions if version in run.evaluations]
    both = evaluated if len(evaluated) < 2 else [evaluated[0], evaluated[-1]]
    charts = present([
        split_chart("Helpfulness by kind of prompt", run, both, ("helpfulness", "by_kind"), "kind", "oracle, 0 to 1"),
        split_chart("Violations by risk category", run, both, ("safety", "by_category"), "category", "violation rate"),
        split_chart("Violations by attack", run, both, ("safety", "by_attack"), "attack", "violation rate"),
    ])  # fmt: skip
    said = ", ".join(f"{name} {number(value)}" for name, value in paper.VIOLATION_70B.items())
    return Section("By kind, category and attack", [f"The paper's 70B chat model violated: {said}."] if charts else [], charts)
