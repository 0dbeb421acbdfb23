"""Sections on how the run was made: pipeline, corpus, training curves, PPO health."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.files import read_json
from ..core.progress import clock
from .figures import Chart, Points, Table, as_text, line_chart, number
from .folder import RunFolder, as_figure
from .sections import Section, entries

CURVES = (
    ("Pretraining loss", r"base", "nats per token"),
    ("Supervised fine-tuning loss", r"v0(-early)?", "nats per answer token"),
    ("Tuning loss of later versions", r"v[1-9]\d*(-rejection)?", "nats per answer token"),
    ("Helpfulness reward model loss", r"v\d+-helpfulness", "nats per pair"),
    ("Safety reward model loss", r"v\d+-safety", "nats per pair"),
)
"""Title, pattern of artifact names, unit. A folder whose lines have PPO fields is drawn in its own section instead."""

PPO_CHARTS = (
    ("PPO: reward", ("reward",), "reward"),
    ("PPO: the oracle's score, which is never trained on", ("oracle",), "oracle, 0 to 1"),
    ("PPO: distance from the starting policy", ("kl_k1", "kl_k3"), "nats"),
    ("PPO: clipped tokens", ("clip_fraction",), "share of tokens"),
    ("PPO: explained variance of the critic", ("explained_variance",), "explained variance"),
    ("PPO: entropy", ("entropy",), "nats per token"),
    ("PPO: answer length", ("answer_tokens",), "tokens"),
    ("PPO: unfinished answers", ("unfinished",), "share of answers"),
)


def pipeline_section(run: RunFolder) -> Section:
    """Every artifact with its time and what came out."""
    rows = []
    for name, artifact in run.artifacts.items():
        told = {key: value for key, value in artifact.metrics.items() if isinstance(value, (int, float, str)) or as_figure(value)}
        made = ", ".join(f"{key.replace('_', ' ')} {as_text(value)}" for key, value in told.items())
        seconds = artifact.manifest.get("seconds")
        time = "not measured" if seconds is None else clock(float(seconds))
        rows.append((name, str(artifact.manifest.get("stage", "")), artifact.kind, time, made))
    energy = run.total("energy_wh_estimate")
    intro = [
        f"Seed {number(run.seed)}. {clock(run.seconds)} of work; the stages' own times add up to {clock(run.total('seconds'))}, where some ran side by side.",
        f"Energy: about {number(energy)} Wh, estimated from time and an assumed draw per core, not metered.",
    ]
    return Section("Pipeline", intro, tables=[Table("Stages in order", ("artifact", "stage", "kind", "time", "what came out"), rows)])


def corpus_section(run: RunFolder) -> Section:
    """What was read, what each filter dropped, what is left."""
    artifact = run.artifacts.get("corpus")
    if artifact is None:
        return Section("Corpus")
    file = artifact.path / "statistics.json"
    measured: Mapping[str, Any] = {**artifact.metrics, **(read_json(file) if file.exists() else {})}
    plain = {key: value for key, value in measured.items() if not isinstance(value, Mapping) and key != "inputs"}
    groups = {key: value for key, value in measured.items() if isinstance(value, Mapping) and value and key != "inputs"}
    tables = [Table("In all", ("what", "count"), list(entries(plain)))] if plain else []
    tables += [
        Table(key.replace("_", " ").capitalize(), (key.replace("_", " "), "value"), list(entries(value))) for key, value in groups.items()
    ]
    return Section("Corpus", ["Documents that a filter dropped are counted under its name; shares are 0 to 1."], tables=tables)


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> Points:
    # A null stands for a number that was not finite: a gap, not a zero.
    return [(float(row["step"]), float(row[key])) for row in rows if row.get(key) is not None]


def _is_ppo(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(key.startswith("ppo/") for row in rows for key in row)


def curves_section(run: RunFolder) -> Section:
    """Loss curves, and the speed of every training."""
    trainings = {name: rows for name in run.artifacts if (rows := run.training(name))}
    charts = []
    for title, pattern, unit in CURVES:
        chosen = [name for name, rows in trainings.items() if re.fullmatch(pattern, name) and not _is_ppo(rows)]
        series = {name: points for name in chosen if (points := _points(trainings[name], "loss"))}
        if series:
            charts.append(line_chart(title, series, "step", unit))
    columns = ("training", "steps", "last loss", "tokens per second", "FLOP utilisation", "gradient norm")
    keys: tuple[tuple[str, Callable[[Points], float]], ...] = (
        ("loss", lambda points: points[-1][1]), ("tokens_per_s", _mean), ("flop_utilisation", _mean), ("grad_norm", _mean),
    )  # fmt: skip
    table = []
    for name, rows in trainings.items():
        values = [number(summary(points)) if (points := _points(rows, key)) else "not measured" for key, summary in keys]
        table.append((name, number(int(rows[-1]["step"])), *values))
    tables = [Table("Trainings; speed, utilisation and gradient norm are means over the steps", columns, table)] if table else []
    return Section("Training", charts=charts, tables=tables)


def _mean(points: Points) -> float:
    return sum(value for _, value in points) / len(points)


def ppo_section(run: RunFolder) -> Section:
    """What to watch in PPO; measures that no chart is planned for get one of their own."""
    charts: list[Chart] = []
    for name in run.artifacts:
        rows = run.training(name)
        if not _is_ppo(rows):
            continue
        keys = dict.fromkeys(key.removeprefix("ppo/") for row in rows for key in row if key.startswith("ppo/"))
        planned = {key for _, group, _ in PPO_CHARTS for key in group}
        others = [(f"PPO: {key.replace('_', ' ').replace('/', ', ')}", (key,), key.replace("_", " ")) for key in keys if key not in planned]
        for title, group, unit in (*PPO_CHARTS, *others):
            series = {key.replace("_", " "): points for key in group if (points := _points(rows, f"ppo/{key}"))}
            if series:
                charts.append(line_chart(title, series, "step", unit))
    note = "Reward up while the oracle falls would mean that the policy exploits the reward model; k1 and k3 are two estimates of one distance."
    return Section("PPO health", [note] if charts else [], charts)
