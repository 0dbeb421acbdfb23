"""Sections on what came out: reward models, versions, safety, best of N, Ghost Attention, effects, samples."""

from collections.abc import Mapping, Sequence

from ..measures.intervals import Figure
from . import paper
from .effects import Effect
from .figures import Chart, Table, figure_text, number, point_chart
from .folder import FIRST, RunFolder, as_figure
from .sections import Sample, Section, present, split_chart, version_chart

GRADES = ("significantly", "better", "slightly", "negligibly")
VERDICTS = "Shown: the whole 95% interval lies beyond the threshold. Not shown: none of it does. Undecided: anything else, or too few observations."


def effects_section(effects: Sequence[Effect]) -> Section:
    """The table of effects beside the paper's numbers."""
    columns = ("effect", "paper", "here, with 95% interval", "shown if", "verdict", "note")
    rows = [
        (one.name, "not printed" if one.paper is None else number(one.paper), figure_text(one.here, with_n=True), one.wanted, one.shown, one.note)
        for one in effects
    ]  # fmt: skip
    return Section("Effects of the paper, measured here", [VERDICTS], tables=[Table("Effects", columns, rows)])


def reward_section(run: RunFolder) -> Section:
    """Accuracy by grade of the newest reward models, and every version's in a table."""
    series: dict[str, list[Figure | None]] = {}
    greys: dict[str, list[float | None]] = {}
    rows, batches = [], []
    for domain in ("helpfulness", "safety"):
        newest = run.newest(domain)
        if newest:
            series[newest] = [as_figure(run.metric(newest, "accuracy", "own", grade)) for grade in GRADES]
            greys[f"paper, {domain}"] = [paper.REWARD_ACCURACY[domain][grade] for grade in GRADES]
            by_batch = run.metric(newest, "accuracy", "by_batch") or {}
            batches += [(newest, batch, figure_text(as_figure(figure), with_n=True)) for batch, figure in by_batch.items()]
        for name in run.artifacts:
            if name.endswith(f"-{domain}"):
                cells = [as_figure(run.metric(name, "accuracy", whose, "all")) for whose in ("own", "other")]
                cells.append(as_figure(run.metric(name, "annotator_agreement")))
                rows.append((name, *(figure_text(cell, with_n=True) for cell in cells)))
    if not rows:
        return Section("Reward models")
    intro = ["Accuracy: how often the model scores the answer higher that the annotator chose; a coin has 0.5."]
    columns = ("reward model", "own domain", "other domain", "annotator's agreement with its noiseless self")
    charts = (
        [point_chart("Reward accuracy by grade", GRADES, series, "grade", "accuracy", paper=greys)]
        if any(map(any, series.values()))
        else []
    )
    tables = [Table("Accuracy, all grades, by version", columns, rows)]
    if batches:
        tables.append(Table("Accuracy of the newest models, by batch", ("reward model", "batch of comparisons", "accuracy"), batches))
    return Section("Reward models", intro, charts, tables)


def versions_section(run: RunFolder) -> Section:
    """Helpfulness, violations, false refusals and people never asked about, version by version."""
    charts = present([
        version_chart(
            "Helpfulness by version", run, {"sampled": ("helpfulness", "sampled"), "greedy": ("helpfulness", "greedy")}, "oracle, 0 to 1"
        ),
        version_chart(
            "Judged by reward models", run,
            {"helpfulness reward": ("rewards", "helpfulness"), "safety reward": ("rewards", "safety")}, "mean reward",
        ),
        version_chart("Violation rate by version", run, {
            "all": ("safety", "violation_rate"), "single turn": ("safety", "single_turn"),
            "multi turn": ("safety", "multi_turn"), "held-out topics": ("safety", "held_out_topics"),
            "held-out attacks": ("safety", "held_out_attacks"),
        }, "share of harmful prompts"),
        version_chart(
            "False refusals by version", run, {"all": ("borderline", "false_refusal_rate"), "held out": ("borderline", "held_out")},
            "share of borderline prompts",
        ),
        version_chart("People never asked about in fine-tuning", run, {"unasked": ("people", "unasked")}, "share answered rightly"),
    ])  # fmt: skip
    if not charts:
        return Section("Versions")
    wins = [(name, number(helpful), number(harmless)) for name, (helpful, harmless) in paper.WIN_RATE.items()]
    tables = [
        Table(
            "The paper's figure 11, another measure: win rate against ChatGPT, reward models as judge",
            ("version", "helpful", "harmless"),
            wins,
        )
    ]
    return Section("Versions", [f"{FIRST} is the model after supervised fine-tuning."], charts, tables)


def ends(run: RunFolder) -> list[str]:
    """The first and the newest evaluated version."""
    evaluated = [version for version in run.versions if version in run.evaluations]
    return evaluated if len(evaluated) < 2 else [evaluated[0], evaluated[-1]]


def details_section(run: RunFolder) -> Section:
    """First against newest version, by kind of prompt, risk category and attack."""
    both = ends(run)
    charts = present([
        split_chart("Helpfulness by kind of prompt", run, both, ("helpfulness", "by_kind"), "kind", "oracle, 0 to 1"),
        split_chart("Violations by risk category", run, both, ("safety", "by_category"), "category", "violation rate"),
        split_chart("Violations by attack", run, both, ("safety", "by_attack"), "attack", "violation rate"),
    ])  # fmt: skip
    said = ", ".join(f"{name} {number(value)}" for name, value in paper.VIOLATION_70B.items())
    return Section("By kind, category and attack", [f"The paper's 70B chat model violated: {said}."] if charts else [], charts)


def best_of_section(run: RunFolder) -> Section:
    """What choosing among N answers by reward brings, in the oracle's score and in reward."""
    charts: list[Chart] = []
    newest = run.newest("samples")
    for title, keys, unit in (
        ("The oracle's score of the best of N by reward", {"best by reward": "best_of"}, "oracle, 0 to 1"),
        ("Reward of the best and the median of N", {"max": "max_reward", "median": "median_reward"}, "reward"),
    ):
        curves: dict[str, Mapping[str, object]] = {name: run.metric(newest, key) or {} for name, key in keys.items()} if newest else {}
        labels = sorted({count for curve in curves.values() for count in curve}, key=int)
        series = {name: [as_figure(curve.get(count)) for count in labels] for name, curve in curves.items() if curve}
        if any(map(any, series.values())):
            charts.append(point_chart(title, labels, series, "answers sampled", unit, connect=True))
    return Section("Best of N", [f"From {newest}."] if charts else [], charts)


def ghost_section(run: RunFolder) -> Section:
    """Obedience to a constraint given in the first turn only, by turn, before and after Ghost Attention rows joined the mix."""
    charts = []
    for title, key in (("Ghost Attention, constraints seen in tuning", "seen"), ("Ghost Attention, held-out constraints", "held_out")):
        curves = {version: run.task(version, "ghost", key) or {} for version in (run.before_ghost, run.with_ghost)}
        turns = sorted({turn for curve in curves.values() for turn in curve}, key=int)
        series = {
            f"{version}, {'with' if version == run.with_ghost else 'without'}": [as_figure(curve.get(turn)) for turn in turns]
            for version, curve in curves.items() if curve
        }  # fmt: skip
        known = [paper.GHOST_TURNS.get(int(turn), (None, None)) for turn in turns]
        greys = {"paper, without": [pair[0] for pair in known], "paper, with": [pair[1] for pair in known]}
        if any(map(any, series.values())):
            charts.append(point_chart(title, turns, series, "turn", "share obeyed", paper=greys, connect=True))
    return Section("Ghost Attention", ["The paper's numbers are of a human test on attributes of people."] if charts else [], charts)


def samples_section(run: RunFolder) -> Section:
    """The same prompts answered by every version, better or worse as they came."""
    answers: dict[str, list[tuple[str, str]]] = {}
    for version, evaluation in run.evaluations.items():
        for sample in evaluation.get("samples", ()):
            answers.setdefault(sample["prompt"], []).append((version, sample["answer"]))
    samples = [Sample(prompt, said) for prompt, said in answers.items()]
    return Section("Sample answers", ["The same prompts, answered by every version."] if samples else [], samples=samples)
