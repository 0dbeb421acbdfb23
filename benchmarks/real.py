"""The tables of a run on real text, such as `llamaherd run real-small`, for docs/results.md: what its report says, in Markdown."""

from collections.abc import Mapping
from typing import Any

from llamaherd.core.progress import clock
from llamaherd.measures.intervals import Figure
from llamaherd.report.benchmarks import BITS, benchmarked
from llamaherd.report.effects import TITLES, measure_effects, together
from llamaherd.report.figures import figure_text, short
from llamaherd.report.folder import RunFolder, as_figure, dig
from llamaherd.report.glance import grouped

from .pages import markdown

MEASURES: Mapping[str, tuple[str, ...]] = {
    "helpfulness, the judge": ("helpfulness", "sampled"),
    "violations": ("safety", "violation_rate"),
    "false refusals": ("borderline", "false_refusal_rate"),
    "helpfulness reward": ("rewards", "helpfulness"),
    "safety reward": ("rewards", "safety"),
}


def real_tables(run: RunFolder) -> str:
    """All tables, with a line on the run's size before them."""
    return "\n".join([_size(run), versions_table(run), rewards_table(run), benchmarks_table(run), effects_table(run)])


def _size(run: RunFolder) -> str:
    base, rows = run.artifacts["base"], run.training("base")
    read, took = (sum(row.get(key) or 0 for row in rows) for key in ("tokens", "seconds"))
    return (
        f"{base.metrics['parameters']:,} parameters; {read:,} tokens read in pretraining, whose {len(rows):,} steps took {clock(took)}; "
        f"{len(run.artifacts)} artifacts, {clock(run.seconds)} from start to end.\n"
    )


def versions_table(run: RunFolder) -> str:
    """Every version by the judge, the heuristics, the reward models it was tuned by, and its wins over the first one."""
    rows = []
    for version in run.versions:
        won = as_figure(dig(run.wins.get(version), "by_criterion", "helpfulness", "win_rate"))
        rows.append([run.label(version), *(figure_text(run.figure(version, *path)) for path in MEASURES.values()), figure_text(won)])
    return markdown(["version", *MEASURES, "helpful answers better than v0's, the judge"], rows)


def rewards_table(run: RunFolder) -> str:
    """How often each reward model agrees with people on held-out comparisons, by their source."""
    names = [name for name in (run.newest("helpfulness"), run.newest("safety"), "judge") if name in run.artifacts]
    found: list[tuple[str, Mapping[str, Any]]] = [(name, run.metric(name, "accuracy") or {}) for name in names if name]
    sources = sorted({source for _, accuracy in found for source in accuracy.get("by_source") or {}})
    rows = [
        [name, figure_text(as_figure(dig(accuracy, "own", "all")), with_n=True),
         *(figure_text(as_figure(dig(accuracy, "by_source", source)), with_n=True) for source in sources)]
        for name, accuracy in found
    ]  # fmt: skip
    return markdown(["reward model", "own domain", *sources], rows)


def benchmarks_table(run: RunFolder) -> str:
    """Every task's accuracy beside chance, and bits per byte by source, of the models that were asked."""
    found = benchmarked(run)
    tasks = dict.fromkeys(task for metrics in found.values() for task in metrics if task != BITS)
    rows = []
    for task in tasks:
        cells = [_accuracy(metrics.get(task) or {}) for metrics in found.values()]
        chance = next((metrics[task].get("chance") for metrics in found.values() if task in metrics), None)
        rows.append([task, short(chance), *cells])
    sources = dict.fromkeys(source for metrics in found.values() for source in dig(metrics, BITS, "by_source") or {})
    for source in ("all", *sources):
        figures = [_bits(metrics, source) for metrics in found.values()]
        if any(figures):
            rows.append([f"bits per byte, {source}", "", *map(figure_text, figures)])
    return markdown(["task", "chance", *found], rows)


def _accuracy(found: Mapping[str, Any]) -> str:
    return "; ".join(filter(None, [figure_text(as_figure(found.get("accuracy"))), found.get("verdict")]))


def _bits(metrics: Mapping[str, Any], source: str) -> Figure | None:
    return as_figure(dig(metrics, BITS, "bits_per_byte") if source == "all" else dig(metrics, BITS, "by_source", source))


def effects_table(run: RunFolder) -> str:
    """The paper's effects with the figures behind them."""
    rows = []
    for number, parts in grouped(measure_effects(run)).items():
        figures = "<br>".join(f"{one.brief}: {one.why or f'{one.said} ({figure_text(one.here)}), {one.shown}'}" for one in parts)
        rows.append([f"{number}. {TITLES[number - 1]}", figures, together(parts)])
    return markdown(["effect", "figures, with the interval of the difference", "verdict"], rows)
