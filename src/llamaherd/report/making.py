"""Sections on how the run was made: the pipeline with its times, and the training curves."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime

from ..core.artifacts import Artifact
from ..core.progress import clock
from . import paper
from .figures import Chart, Points, Table, as_text, line_chart, number
from .folder import RunFolder, as_figure
from .pictures import Span, bar_chart, timeline_chart
from .ppo import is_ppo
from .sections import Fact, Section, points_of

CURVES = (
    ("Pretraining loss", r"base", "nats per token"),
    ("Supervised fine-tuning loss", r"v0(-early)?", "nats per answer token"),
    ("Tuning loss of later versions", r"v[1-9]\d*(-rejection)?", "nats per answer token"),
    ("Helpfulness reward model loss", r"v\d+-helpfulness", "nats per pair"),
    ("Safety reward model loss", r"v\d+-safety", "nats per pair"),
    ("The judge's loss", r"judge", "nats per pair"),
)
"""Title, pattern of artifact names, unit. A folder whose lines have PPO fields is drawn in its own section instead."""

KINDS = {
    "world": "data", "corpus": "data", "tokenizer": "data", "shards": "data", "pretrain": "pretraining", "sft": "fine-tuning",
    "collect": "preferences", "reward": "reward models", "reject": "sampling", "ghost": "sampling", "distill": "sampling",
    "ppo": "PPO", "evaluate": "evaluation", "texts": "data", "comparisons": "data", "prompts": "data", "judge": "evaluation",
    "benchmark": "evaluation",
}  # fmt: skip
"""What a stage is called in the charts of time."""
PAUSE_S = 60.0
"""Longer times in which nothing ran are cut out of the timeline: the run was stopped and taken up again."""


def pipeline_section(run: RunFolder, told: Mapping[str, str]) -> Section:
    """Every artifact with its time and what came out; `told` has the words of the terminal, by artifact."""
    words = {name: told.get(name) or _metrics(artifact) for name, artifact in run.artifacts.items()}
    charts = [chart for chart in (_timeline(run), _by_kind(run)) if chart]
    rows = []
    for name, artifact in run.artifacts.items():
        seconds = artifact.manifest.get("seconds")
        time = "not measured" if seconds is None else clock(float(seconds))
        rows.append((name, str(artifact.manifest.get("stage", "")), time, words[name]))
    intro = [
        "Energy is estimated from time and an assumed draw of every busy core, CO\u2082 from a declared carbon intensity; nothing was metered. "
        f"The paper's models took {paper.GPU_HOURS:,} GPU hours and {paper.CO2_TONNES:,.0f} t of CO\u2082.",
    ]
    table = Table("Stages and what each of them made", ("artifact", "stage", "time", "what came out"), rows, look="stages")
    return Section("Pipeline", intro, charts, [table], facts=_facts(run))


def _facts(run: RunFolder) -> list[Fact]:
    manifests = [artifact.manifest for artifact in run.artifacts.values()]
    peaks = [int(manifest["peak_memory_bytes"]) for manifest in manifests if manifest.get("peak_memory_bytes")]
    devices = sorted({str(manifest["device"]) for manifest in manifests if manifest.get("device")})
    facts = [
        Fact("Work", clock(run.seconds), f"seed {number(run.seed)}" + (f", {', '.join(devices)}" if devices else "")),
        Fact("Stages' own times", clock(run.total("seconds")), "where some ran side by side"),
        Fact("Energy", f"{run.total('energy_wh_estimate'):.1f} Wh", "estimated"),
        Fact("CO\u2082", f"{run.carbon_g:.1f} g", "estimated"),
    ]
    return [*facts, Fact("Memory", f"{max(peaks) / 1e9:.2f} GB", "of the largest process")] if peaks else facts


def _metrics(artifact: Artifact) -> str:
    found = {key: value for key, value in artifact.metrics.items() if isinstance(value, (int, float, str)) or as_figure(value)}
    return ", ".join(f"{key.replace('_', ' ')} {as_text(value)}" for key, value in found.items())


def _kind(artifact: Artifact) -> str:
    stage = str(artifact.manifest.get("stage", ""))
    return KINDS.get(stage, stage)


def _timeline(run: RunFolder) -> Chart | None:
    """From the start and the end in the manifests; only the last start of a stage that was interrupted."""
    times = {
        name: tuple(datetime.fromisoformat(artifact.manifest[key]).timestamp() for key in ("started", "finished"))
        for name, artifact in run.artifacts.items() if {"started", "finished"} <= artifact.manifest.keys()
    }  # fmt: skip
    if not times:
        return None
    names = sorted(times, key=lambda name: times[name])
    skipped, pauses, reached = 0.0, 0, times[names[0]][0]
    begun, spans = reached, []
    for name in names:
        start, end = times[name]
        if start - reached > PAUSE_S:
            skipped, pauses = skipped + start - reached, pauses + 1
        reached = max(reached, end)
        spans.append(Span(name, _kind(run.artifacts[name]), (start - begun - skipped) / 60, (end - begun - skipped) / 60))
    note = "Each step at the time it was worked on." + (f" {pauses} pauses, in which nothing ran, are left out." if pauses else "")
    return timeline_chart("What ran when", spans, note)


def _by_kind(run: RunFolder) -> Chart | None:
    minutes: dict[str, float] = {}
    for artifact in run.artifacts.values():
        minutes[_kind(artifact)] = minutes.get(_kind(artifact), 0.0) + float(artifact.manifest.get("seconds") or 0) / 60
    ranked = sorted(minutes, key=lambda kind: -minutes[kind])
    return bar_chart(
        "Where the time went",
        ranked,
        {"minutes": [minutes[kind] for kind in ranked]},
        "minutes of work, all steps together",
        "kind of step",
    )


def curves_section(run: RunFolder) -> Section:
    """Loss curves, and the speed of every training."""
    trainings = {name: rows for name in run.artifacts if (rows := run.training(name))}
    charts = []
    for title, pattern, unit in CURVES:
        chosen = [name for name, rows in trainings.items() if re.fullmatch(pattern, name) and not is_ppo(rows)]
        series = {name: points for name in chosen if (points := points_of(trainings[name], "loss"))}
        if series:
            charts.append(line_chart(title, series, "step", unit))
    columns = ("training", "steps", "last loss", "tokens per second", "FLOP utilisation", "gradient norm")
    keys: tuple[tuple[str, Callable[[Points], float]], ...] = (
        ("loss", lambda points: points[-1][1]), ("tokens_per_s", _mean), ("flop_utilisation", _mean), ("grad_norm", _mean),
    )  # fmt: skip
    table = []
    for name, rows in trainings.items():
        values = [number(summary(points)) if (points := points_of(rows, key)) else "not measured" for key, summary in keys]
        table.append((name, number(int(rows[-1]["step"])), *values))
    caption = "Trainings; speed, utilisation and gradient norm are means over the steps"
    epochs = run.metric("base", "epochs")
    intro = [f"Pretraining went over its mixture of sources {epochs:.2f} times."] if epochs is not None else []
    return Section("Training", intro, charts, [Table(caption, columns, table, folded=True)] if table else [])


def _mean(points: Points) -> float:
    return sum(value for _, value in points) / len(points)
