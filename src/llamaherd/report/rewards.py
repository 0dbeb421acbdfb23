"""Sections on what was preferred and what the reward models made of it: comparisons, accuracy, best of N."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..measures.intervals import Figure, paired_difference
from . import paper
from .curves import curve_charts, curve_sentences
from .figures import Chart, Table, figure_text, number, point_chart, signed
from .folder import JUDGE, RunFolder, as_figure
from .sections import Section

GRADES = ("significantly", "better", "slightly", "negligibly")
DOMAINS = ("helpfulness", "safety")
OTHER = {"helpfulness": "safety", "safety": "helpfulness"}


def reward_section(run: RunFolder) -> Section:
    """Accuracy by grade beside the annotators' own agreement, each model on both domains, and how it grows with the data."""
    charts = [chart for domain in DOMAINS if (chart := _by_grade(run, domain))]
    growth = None if run.real else _growth(run)  # there it is one pair of reward models for all versions
    charts += [growth] if growth else []
    charts += [chart for chart in (_by_source(run),) if chart]
    tables = [table for table in (_table_8(run), _comparisons(run)) if table]
    intro = [OF_PEOPLE] if run.real else [
        "How often a reward model prefers, of two answers, the one that the annotator preferred, on held-out comparisons; beside it how often "
        "the annotator chose as it would without its noise, ties counted half: what a perfect model of the oracle would reach.",
    ]  # fmt: skip
    return Section("Reward models", intro if charts else [], charts, tables)


OF_PEOPLE = (
    "How often a reward model prefers, of two answers, the one that people preferred, on comparisons whose prompts nothing was trained on. Few "
    "sets say how much better the chosen answer is, which is why the grades stand on few comparisons."
)


def _by_source(run: RunFolder) -> Chart | None:
    """Each newest reward model, and the judge, on every set of comparisons."""
    models = [name for name in (run.newest("helpfulness"), run.newest("safety"), JUDGE) if name] if run.real else []
    found = {name: run.metric(name, "accuracy", "by_source") or {} for name in models}
    labels = list(dict.fromkeys(label for one in found.values() for label in one))
    series = {name: [as_figure(one.get(label)) for label in labels] for name, one in found.items() if one}
    title = "Accuracy by source of the comparisons"
    return point_chart(title, labels, series, "source", "accuracy") if any(map(any, series.values())) else None


def _by_grade(run: RunFolder, domain: str) -> Chart | None:
    own, other = run.newest(domain), run.newest(OTHER[domain])
    series: dict[str, list[Figure | None]] = {}
    if own:
        series[own] = [as_figure(run.metric(own, "accuracy", "own", grade)) for grade in GRADES]
        series |= {} if run.real else {"annotators": [as_figure(run.metric(own, "annotator_agreement", grade)) for grade in GRADES]}
    if other:
        series[other] = [as_figure(run.metric(other, "accuracy", "other", grade)) for grade in GRADES]
    series = {name: figures for name, figures in series.items() if any(figures)}
    greys = {
        f"paper, {domain} model": [paper.REWARD_ACCURACY[domain][grade] for grade in GRADES],
        f"paper, {OTHER[domain]} model": [paper.REWARD_ACCURACY_OTHER[OTHER[domain]][grade] for grade in GRADES],
    }
    title = f"Accuracy on {domain} pairs by grade"
    return point_chart(title, GRADES, series, "how much better", "accuracy", paper=greys, connect=True) if series else None


def _growth(run: RunFolder) -> Chart | None:
    """Accuracy of each version's model on its own test comparisons."""
    versions = [version for version in run.versions if any(f"{version}-{domain}" in run.artifacts for domain in DOMAINS)]
    series = {
        domain: [as_figure(run.metric(f"{version}-{domain}", "accuracy", "own", "all")) for version in versions] for domain in DOMAINS
    }
    series = {domain: figures for domain, figures in series.items() if any(figures)}
    ends = [None] * (len(versions) - 2)
    greys: dict[str, list[float | None]] = {"paper, 70B": [paper.REWARD_ACCURACY_70B[0], *ends, paper.REWARD_ACCURACY_70B[1]]}
    if len(versions) < 2 or not series:
        return None
    note = (
        "The paper's figure 6 in grey: its first and its last of 14 batches. Later versions are also tested on later, closer comparisons."
    )
    return point_chart(
        "Accuracy as comparisons add up", versions, series, "version", "accuracy, all pairs", paper=greys, connect=True, note=note
    )


def _table_8(run: RunFolder) -> Table | None:
    """Each newest reward model on both domains by grade, the paper's rows below."""
    rows = []
    names = ("all", *GRADES)
    for domain in DOMAINS:
        for model in DOMAINS:
            newest = run.newest(model)
            found = run.metric(newest, "accuracy", "own" if model == domain else "other") if newest else None
            theirs = paper.REWARD_ACCURACY[domain] if model == domain else paper.REWARD_ACCURACY_OTHER[model]
            if found:
                rows.append((f"{model} model, {domain} pairs", *(figure_text(as_figure(found.get(name)), with_n=True) for name in names)))
                rows.append(("the same in the paper", *(number(theirs[name]) for name in names)))
    return Table("Each reward model on both domains, as table 8", ("model and pairs", *names), rows, folded=True) if rows else None


def _comparisons(run: RunFolder) -> Table | None:
    """The weekly batches: size, who won, shares of the grades; the paper's first and last batch below."""
    rows: list[tuple[str, ...]] = []
    for name in run.artifacts:
        if not name.endswith("-preferences"):
            continue
        found = Counter(row["grade"] for file in ("preferences.jsonl", "test.jsonl") for row in run.rows(name, file))
        shares = [number(found[grade] / found.total()) if found else "not measured" for grade in GRADES]
        rows.append((name, number(run.metric(name, "comparisons")), figure_text(as_figure(run.metric(name, "newest_won"))), *shares))
    if not rows:
        return None
    rows += [
        (f"paper, {batch}", "", "not printed", *(number(shares[grade]) for grade in GRADES)) for batch, shares in paper.GRADE_SHARES.items()
    ]
    columns = ("batch", "comparisons", "won by the newer version", *GRADES)
    return Table("Comparisons by batch, and how clear they were", columns, rows, folded=True)


def best_of_section(run: RunFolder) -> Section:
    """What choosing among N answers by reward brings, in the judge's score and in reward, and where it turns down."""
    curves = {name: run.artifacts[name].metrics for name in run.artifacts if run.metric(name, "best_of")}
    charts = []
    for title, keys, unit in (
        (f"The {run.judge}'s score of the best of N by reward", {"": "best_of"}, f"{run.judge}, 0 to 1"),
        ("Reward of the best and of the median of N", {"best": "max_reward", "median": "median_reward"}, "reward (logit)"),
    ):
        series: dict[str, Mapping[str, object]] = {
            f"{name} {what}".strip(): metrics.get(key) or {} for name, metrics in curves.items() for what, key in keys.items()
        }
        labels = sorted({count for curve in series.values() for count in curve}, key=int)
        found = {name: [as_figure(curve.get(count)) for count in labels] for name, curve in series.items() if curve}
        if any(map(any, found.values())):
            charts.append(point_chart(title, labels, found, "answers sampled", unit, connect=True))
    told = [*_turns(run), PAPERS_CURVE.format("judge (where a prompt is unsafe, heuristics)" if run.real else "oracle")] if charts else []
    return Section("Best of N", [*told, *curve_sentences(run)], [*charts, *curve_charts(run)])


PAPERS_CURVE = (
    "The {} judges what the answers were chosen for: safety first where a prompt is adversarial, help elsewhere. "
    "Where the score is highest is read off the same prompts, which makes a fall behind it likelier. In the paper (figure 7) the best reward rises from 0.54 with one answer to 0.67 with about twenty, the median "
    "stays at 0.54."
)


def _turns(run: RunFolder) -> list[str]:
    """In words, for each version whose best-of-N was judged: at which N the judge's score is highest, and whether it falls after."""
    found = []
    for name in run.artifacts:
        if rows := run.rows(name, "judged.jsonl"):
            found.append(f"{name}: {_turn(rows, run.judge)}")
    return found


def _turn(rows: Sequence[Mapping[str, Any]], judge: str) -> str:
    counts = sorted(rows[0]["best_of"], key=int)
    scores = {n: [row["best_of"][n] for row in rows] for n in counts}
    peak = max(counts, key=lambda n: (sum(scores[n]), -int(n)))
    if peak == counts[-1]:
        return f"the {judge}'s score is highest at the largest N, {peak}; it does not turn down up to there."
    fall = paired_difference(scores[peak], scores[counts[-1]])
    sure = "it turns down" if (fall["high"] or 0.0) < 0 else "a fall that chance alone could make"
    return (
        f"the {judge}'s score is highest at N = {peak}; from there to N = {counts[-1]} it changes by {signed(fall)}, same prompts: {sure}."
    )
