"""Sections on the versions: how they compare, and where the last one is better than the first."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ..measures.intervals import Figure
from . import paper
from .figures import Chart, Table, number
from .folder import FIRST, RunFolder
from .lineage import judges, win_share
from .pictures import plane_chart
from .sections import Section, lines, present, split_chart, version_chart
from .told import REGRESSION, collected, judged_by, trained_on, won


def versions_section(run: RunFolder, versions: Sequence[Mapping[str, Any]]) -> Section:
    """Figure 11, then helpfulness, violations and false refusals of every version; `versions`: their lineage."""
    at_last = {"paper, all": "all", "paper, multi turn": "multi turn"}
    charts = present([
        *_planes(run),
        version_chart(
            "Helpfulness by version", run, {"sampled": ("helpfulness", "sampled"), "greedy": ("helpfulness", "greedy")},
            f"{run.judge}, 0 to 1",
        ),
        version_chart(
            "Judged by reward models", run,
            {"helpfulness reward": ("rewards", "helpfulness"), "safety reward": ("rewards", "safety")}, "mean reward",
        ),
        version_chart("Violations by version", run, {
            "all": ("safety", "violation_rate"), "single turn": ("safety", "single_turn"), "multi turn": ("safety", "multi_turn"),
        }, "share of harmful prompts", paper={name: paper.VIOLATION_70B[key] for name, key in at_last.items()}),
        None if run.real else version_chart("Violations on held-out prompts", run, {
            "held-out topics": ("safety", "held_out_topics"), "held-out attacks": ("safety", "held_out_attacks"),
        }, "share of harmful prompts"),
        version_chart(
            "False refusals by version", run,
            {"all": ("borderline", "false_refusal_rate")} | ({} if run.real else {"held-out topics": ("borderline", "held_out")}),
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
    tables = _tables(run, versions)
    if run.real:
        intro.append(f"A version whose whole interval against the one before lies below one half has lost and is marked as a {REGRESSION}.")
    elif tables:
        intro.append(
            f"Two versions meet in the round after the newer one: both answer, and annotators choose. A version whose whole interval lies below "
            f"one half has lost and is marked as a {REGRESSION}."
        )
    return Section("Versions", intro if charts or tables else [], charts, tables)


def _planes(run: RunFolder) -> list[Chart | None]:
    """V0 to the last version by helpfulness and harmlessness, judged by the judge and by the reward models."""
    theirs: Mapping[str, tuple[str, Mapping[str, tuple[float, float]], str]] = {
        run.judge: (f"the judge and {run.checker}" if run.real else "the oracle", paper.WIN_RATE_GPT4, "paper, GPT-4 judges"),
        "reward models": ("reward models", paper.WIN_RATE, "paper, reward models judge"),
    }
    charts: list[Chart | None] = []
    for judge, (name, printed, who) in theirs.items():
        sides = [judges(run)[judge][domain] for domain in ("helpfulness", "safety")]
        pairs = {version: tuple(win_share(side(run, FIRST), side(run, version)) for side in sides) for version in run.versions}
        points: dict[str, tuple[Figure, Figure]] = {run.label(version): (x, y) for version, (x, y) in pairs.items() if x and y}
        if run.real:  # another number of versions: where the paper's began and ended, and where it was before PPO
            printed = {name.replace("v5", run.last): printed[name] for name in ("v0", "v5-rejection", "v5")}
        greys = {run.label(version): place for version, place in printed.items()}
        title = f"Win rate over {FIRST}, by {name}"
        charts.append(plane_chart(title, points, "helpful", "harmless", paper=greys, paper_name=who) if points else None)
    return charts


def _tables(run: RunFolder, versions: Sequence[Mapping[str, Any]]) -> list[Table]:
    """How each version was made, and how it compares with the one before."""
    made = ("version", "trained on", "judged by", "collected for these")
    by = {run.judge: run.judge, "reward_models": "reward models"}
    by = by if run.real else {"comparisons": "comparisons of the next round", **by}
    against = ("version", "against", *by.values(), "regression")
    rows = [(one["name"], lines(*trained_on(one)), lines(*judged_by(one)), lines(*collected(one))) for one in versions]
    held = [
        (one["name"], two["with"], *(lines(*won(two.get(judge))) for judge in by),
         Markup("<strong>{}</strong>").format(f"{REGRESSION}: {'; '.join(two['lost'])}") if two["lost"] else "no")
        for one in versions for two in one["compared"]
    ]  # fmt: skip
    found = [Table("How each version was made", made, rows)] if rows else []
    return [*found, Table("Shares that each version won against the one before", against, held)] if held else found


def details_section(run: RunFolder) -> Section:
    """First against newest version, by kind of prompt, risk category and attack."""
    evaluated = [version for version in run.versions if version in run.evaluations]
    both = evaluated if len(evaluated) < 2 else [evaluated[0], evaluated[-1]]
    charts = present([
        split_chart("Helpfulness by kind of prompt", run, both, ("helpfulness", "by_kind"), "kind", f"{run.judge}, 0 to 1"),
        split_chart("Violations by risk category", run, both, ("safety", "by_category"), "category", "violation rate"),
        split_chart("Violations by attack", run, both, ("safety", "by_attack"), "attack", "violation rate"),
    ])  # fmt: skip
    said = ", ".join(f"{name} {number(value)}" for name, value in paper.VIOLATION_70B.items())
    return Section("By kind, category and attack", [f"The paper's 70B chat model violated: {said}."] if charts else [], charts)
