"""The page about one reward model or several: what `report.json` beside it says, drawn."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib import rc_context

from ..measures.intervals import Figure
from .drawing import COLOURS, DASHES, STYLE, canvas, legend, svg
from .figures import Chart, Table, figure_text, number, point_chart
from .folder import as_figure, dig
from .page import render
from .sections import Section

GRADES = ("significantly", "better", "slightly", "negligibly")
Models = Mapping[str, Mapping[str, Any]]
"""What is known of each model, by its name."""
LENGTH_ROWS = {
    "model_prefers_longer": "the model prefers the longer answer", "people_prefer_longer": "people prefer the longer answer",
    "accuracy_chosen_longer": "accuracy where people chose the longer one", "accuracy_chosen_shorter": "accuracy where people chose the shorter one",
    "correlation": "rank correlation of score and length",
}  # fmt: skip


def reward_page(found: Mapping[str, Any]) -> str:
    """The HTML text of a report: `models` by name, the first one in question and the others beside it, and `agreement` with those."""
    models: Models = found["models"]
    first, *others = models
    domain = models[first]["domain"]
    subtitle = f"A {domain} reward model on {number(models[first]['pairs'])} comparisons" + (
        f", beside {', '.join(others)}." if others else "."
    )
    sections = [
        _accuracy(models), _agreement(found["agreement"]), _calibration(models), _length(models), _unsafe(models), _scores(models), _ratings(models)
    ]  # fmt: skip
    return render(f"llamaherd: reward model {first}", subtitle, [section for section in sections if section.measured])


def _accuracy(models: Models) -> Section:
    """In all and split up; each model's own domain, and the other one beside the first's."""
    first = next(iter(models))
    by_grade = {name: [as_figure(dig(model, "accuracy", "own", grade)) for grade in GRADES] for name, model in models.items()}
    by_grade[f"{first}, other domain"] = [as_figure(dig(models[first], "accuracy", "other", grade)) for grade in GRADES]
    charts = _split("Accuracy by grade", GRADES, by_grade, "how much better", connect=True)
    for key, what in (("by_batch", "batch"), ("by_source", "source"), ("by_file", "file")):
        labels = list(dict.fromkeys(label for model in models.values() for label in dig(model, "accuracy", key) or {}))
        series = {name: [as_figure(dig(model, "accuracy", key, label)) for label in labels] for name, model in models.items()}
        charts += _split(f"Accuracy by {what}", labels, series, what) if len(labels) > 1 else []
    columns = ("", *models)
    rows = [
        (f"{side} domain, {name}", *(figure_text(as_figure(dig(model, "accuracy", side, name)), with_n=True) for model in models.values()))
        for side in ("own", "other") for name in ("all", *GRADES)
    ]  # fmt: skip
    intro = "How often a model scores the answer higher that was preferred; equal scores do not count."
    return Section("Accuracy", [intro], charts, [Table("Accuracy on its own and on the other domain", columns, rows)])


def _split(
    title: str, labels: Sequence[str], series: Mapping[str, Sequence[Figure | None]], x_label: str, connect: bool = False
) -> list[Chart]:
    known = {name: figures for name, figures in series.items() if any(figures)}
    return [point_chart(title, labels, known, x_label, "accuracy", connect=connect)] if known else []


def _agreement(agreement: Mapping[str, Any]) -> Section:
    """With each of the other models."""
    rows = [
        (name, number(one["pairs"]), *(figure_text(as_figure(one[key])) for key in ("same_choice", "correlation", "accuracy_difference")))
        for name, one in agreement.items()
    ]
    columns = (
        "model",
        "comparisons that both scored",
        "prefer the same answer",
        "correlation of their differences",
        "its accuracy minus the first's",
    )
    intro = "Two models that judge alike agree; one of published comparisons alone, which nothing was tuned on, shows where the first one drifts."
    return Section("Agreement with other models", [intro], tables=[Table("Agreement", columns, rows)] if rows else [])


def _calibration(models: Models) -> Section:
    """A reliability diagram: how often the annotator agrees, by how sure the model is."""
    bins = next(iter(models.values()))["calibration"]["reliability"]
    labels = [f"{one['low']:.2f} to {one['high']:.2f}" for one in bins]
    series: dict[str, list[Figure | None]] = {
        name: [as_figure(one["rate"]) for one in model["calibration"]["reliability"]] for name, model in models.items()
    }
    if not any(map(any, series.values())):
        return Section("Calibration")
    sure = {"as sure as it is right": [(one["low"] + one["high"]) / 2 for one in bins]}
    chart = point_chart("Agreement by confidence", labels, series, "confidence", "share that agrees", paper=sure, connect=True)
    rows = [
        (name, *(figure_text(as_figure(model["calibration"][key]), with_n=True) for key in ("expected_calibration_error", "confidence")))
        for name, model in models.items()
    ]
    table = Table("Calibration", ("model", "expected calibration error", "mean confidence"), rows)
    intro = "Confidence is sigmoid of the difference of a pair's two logits, taken from the side of the answer that the model prefers."
    return Section("Calibration", [intro], [chart], [table])


def _length(models: Models) -> Section:
    rows = [
        (said, *(figure_text(as_figure(model["length"][key]), with_n=True) for model in models.values()))
        for key, said in LENGTH_ROWS.items()
    ]
    intro = (
        "Lengths are characters of answers. The share of pairs whose longer answer people prefer is what taking the longer one would score."
    )
    return Section(
        "Score and length", [intro], tables=[Table("Length", ("", *models), rows)] if any(m["own_pairs"] for m in models.values()) else []
    )


def _unsafe(models: Models) -> Section:
    rows = [
        (f"{name}, below {threshold}", *(figure_text(as_figure(one[key]), with_n=True) for key in ("precision", "recall", "false_alarms")))
        for name, model in models.items() for threshold, one in model["unsafe"].items()
    ]  # fmt: skip
    columns = ("model and threshold", "called unsafe that are", "unsafe that are found", "safe that are called unsafe")
    intro = (
        "Of answers that people labelled: what a score below a threshold finds. 0.15 is PPO's gate, for which the paper has 0.89 and 0.55."
    )
    return Section("Unsafe answers", [intro], tables=[Table("Precision and recall of unsafe answers", columns, rows)] if rows else [])


def _scores(models: Models) -> Section:
    """Histograms: chosen against rejected answers of one model, all answers of several."""
    if len(models) == 1:
        [model] = models.values()
        series = {f"{side} answers": counts for side, counts in model["scores"].items()}
    else:
        series = {name: [sum(both) for both in zip(*model["scores"].values())] for name, model in models.items()}
    series = {name: counts for name, counts in series.items() if sum(counts)}
    intro = "Scores of the answers to comparisons of the model's domain. Margins move them to the two ends (the paper's figure 27)."
    return Section("Scores", [intro], [histogram_chart("Scores of answers", series, "score, 0 to 1")] if series else [])


def _ratings(models: Models) -> Section:
    series = {name: dig(model, "ratings", "by_rating") or {} for name, model in models.items()}
    labels = list(dict.fromkeys(label for bins in series.values() for label in bins))
    found = {name: [as_figure(bins.get(label)) for label in labels] for name, bins in series.items() if bins}
    if not found:
        return Section("Score and people's rating")
    chart = point_chart("Score by rating", labels, found, "people's rating", "mean score", connect=True)
    rows = [(name, figure_text(as_figure(models[name]["ratings"]["correlation"]), with_n=True)) for name in found]
    return Section("Score and people's rating", (), [chart], [Table("Rank correlation with people", ("model", "correlation"), rows)])


def histogram_chart(title: str, series: Mapping[str, Sequence[int]], x_label: str) -> Chart:
    """Counts in equal parts of 0 to 1 as outlines, each series as shares of its own sum, which is not 0."""
    bins = len(next(iter(series.values())))
    edges = [place / bins for place in range(bins + 1)]
    shares = {name: [count / sum(counts) for count in counts] for name, counts in series.items()}
    with rc_context(STYLE):
        drawn, axes = canvas(x_label, "share of answers")
        handles = [
            axes.stairs(
                values, edges, label=name, color=COLOURS[index % len(COLOURS)], linestyle=DASHES[index % len(DASHES)], linewidth=1.6
            )
            for index, (name, values) in enumerate(shares.items())
        ]
        axes.set_xlim(0, 1)
        legend(drawn, handles)
        picture = svg(drawn, title)
    rows = [
        (f"{low:.2f} to {high:.2f}", *(number(values[place]) for values in shares.values()))
        for place, (low, high) in enumerate(pairwise(edges))
    ]
    ends = "; ".join(f"{name}: {values[0]:.0%} in the lowest part, {values[-1]:.0%} in the highest" for name, values in shares.items())
    return Chart(title, f"Histogram of {x_label}. {ends}.", picture, Table(title, (x_label, *shares), rows, folded=True))
