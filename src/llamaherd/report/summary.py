"""summary.json: the run in figures, for programs and for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from .benchmarks import benchmarked
from .effects import Effect
from .folder import JUDGE, RunFolder

MEASURES = {
    "helpfulness": ("helpfulness", "sampled"),
    "violation_rate": ("safety", "violation_rate"),
    "false_refusal_rate": ("borderline", "false_refusal_rate"),
}


def summarise(run: RunFolder, effects: Sequence[Effect], versions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`seconds` (of work, over all starts), `seed`, `versions`, `effects`, `stages`; of a run on real text also `judge`, `benchmarks` and
    `wins`. Figures that were not measured are null.

    `versions`: their lineage, to which each one's figures are added.
    """
    real = {"judge": _judge(run), "benchmarks": benchmarked(run), "wins": run.wins} if run.real else {}
    return {
        "seconds": run.seconds,
        "seed": run.seed,
        "energy_wh_estimate": run.total("energy_wh_estimate"),
        "versions": [
            {**version, **{name: run.figure(version["name"], *path) for name, path in MEASURES.items()}} for version in versions
        ],
        "effects": [one.to_row() for one in effects],
        "stages": [
            {"name": name, "stage": artifact.manifest.get("stage"), "kind": artifact.kind, "seconds": artifact.manifest.get("seconds")}
            for name, artifact in run.artifacts.items()
        ],
        **real,
    }  # fmt: skip


def _judge(run: RunFolder) -> dict[str, Any]:
    """Who stood in for people, and how often that agrees with them on held-out comparisons."""
    sources = run.metric(JUDGE, "accuracy", "by_source") or {}
    return {
        "artifact": JUDGE,
        "pairs": run.metric(JUDGE, "pairs"),
        "accuracy": run.judge_accuracy,
        "by_source": sources,
        "safety": run.checker,
    }
