"""The section on benchmarks and held-out text, of the base, the first version and the last; the paper's 7B in grey, as no yardstick."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from . import paper
from .figures import Chart, Table, figure_text, number, point_chart, short
from .folder import RunFolder, as_figure, dig
from .sections import Section, lines

SUFFIX = "-benchmarks"
BITS = "bits-per-byte"
INTRO = (
    "Asked without examples and without the chat format, by how likely the model finds each choice, as published scores of base models are. A "
    "model is above chance on a task where its whole interval is; chance is the share that guessing among the choices gets, or always "
    "saying the same where words are to be said."
)
GREY = "The paper's numbers are of a 7B on the same benchmarks (table 20), with prompts of its own: they are not comparable."


def benchmarked(run: RunFolder) -> dict[str, Mapping[str, Any]]:
    """Figures of every task, by the model that was asked, in the order of the pipeline."""
    return {name.removesuffix(SUFFIX): artifact.metrics for name, artifact in run.artifacts.items() if name.endswith(SUFFIX)}


def benchmarks_section(run: RunFolder) -> Section:
    """Every task's accuracy with its interval, chance and verdict; bits per byte by source."""
    found = benchmarked(run)
    tasks = list(dict.fromkeys(task for metrics in found.values() for task in metrics if task != BITS))
    charts = [chart for chart in (_accuracies(found, tasks), _bits(found)) if chart]
    tables = [_table(found, tasks)] if tasks else []
    if charts or tables:
        return Section("Benchmarks", [INTRO, *_said(found, tasks), GREY], charts, tables)
    return Section("Benchmarks")


def _chances(found: Mapping[str, Mapping[str, Any]], task: str) -> float | None:
    """Of whichever model was asked first: all are asked the same."""
    return next((metrics[task]["chance"] for metrics in found.values() if dig(metrics, task, "chance") is not None), None)


def _accuracies(found: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]) -> Chart | None:
    series = {name: [as_figure(dig(metrics, task, "accuracy")) for task in tasks] for name, metrics in found.items()}
    if not any(map(any, series.values())):
        return None
    greys = {"chance": [_chances(found, task) for task in tasks], "paper, 7B": [paper.BENCHMARKS_7B.get(task) for task in tasks]}
    return point_chart("Accuracy by task", tasks, series, "task", "accuracy", paper=greys)


def _bits(found: Mapping[str, Mapping[str, Any]]) -> Chart | None:
    every = {
        name: {"all": dig(metrics, BITS, "bits_per_byte"), **(dig(metrics, BITS, "by_source") or {})} for name, metrics in found.items()
    }
    labels = list(dict.fromkeys(source for sources in every.values() for source in sources))
    series = {name: [as_figure(sources.get(label)) for label in labels] for name, sources in every.items()}
    if not any(map(any, series.values())):
        return None
    note = "Documents that nothing was trained on, read without the chat format; lower is better. Tuning on dialogues may raise it."
    return point_chart("Bits per byte of held-out documents", labels, series, "source", "bits per byte", note=note)


def _table(found: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]) -> Table:
    """A row for each measure of each task."""
    rows: list[Sequence[str]] = []
    for task in tasks:
        of = {name: metrics.get(task) or {} for name, metrics in found.items()}
        items = next((one["items"] for one in of.values() if one.get("items")), None)
        chance, majority = (next((one[key] for one in of.values() if one.get(key) is not None), None) for key in ("chance", "majority"))
        level = f"{short(chance)}, most frequent answer {short(majority)}" if majority is not None else short(chance)
        theirs = paper.BENCHMARKS_7B.get(task)
        cells = [_cell(one, "accuracy", "verdict", "verdict_on_majority") for one in of.values()]
        rows.append((task, number(items), level, *cells, "not printed" if theirs is None else number(theirs)))
        if any(as_figure(one.get("accuracy_per_character")) for one in of.values()):
            per_character = [_cell(one, "accuracy_per_character", "verdict_per_character") for one in of.values()]
            rows.append((f"{task}, likelihood per character", number(items), short(chance), *per_character, ""))
        if any(as_figure(one.get("perplexity")) for one in of.values()):
            rows.append(
                (f"{task}, perplexity of what is to be said", number(items), "", *(_cell(one, "perplexity") for one in of.values()), "")
            )
    columns = ("task", "items", "chance", *found, "paper, 7B")
    return Table("Accuracy with 95% interval, and where it stands beside chance", columns, rows)


def _cell(one: Mapping[str, Any], figure: str, *verdicts: str) -> str | Markup:
    said = [str(one[name]) for name in verdicts if one.get(name)]
    return lines(figure_text(as_figure(one.get(figure))), *said)


def _said(found: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]) -> list[str]:
    """For each model in a sentence: on which tasks it is above chance, and on which it is not known to be."""
    said = []
    for name, metrics in found.items():
        verdicts: dict[str, list[str]] = {}
        for task in tasks:
            if found_verdict := dig(metrics, task, "verdict"):
                verdicts.setdefault(str(found_verdict), []).append(task)
        parts = [f"{verdict} on {', '.join(some)}" for verdict, some in sorted(verdicts.items())]
        said += [f"{name}: {'; '.join(parts)}."] if parts else []
    return said
