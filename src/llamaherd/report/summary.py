"""summary.json: the run in figures, for programs and for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from .effects import Effect
from .folder import RunFolder

MEASURES = {
    "helpfulness": ("helpfulness", "sampled"),
    "violation_rate": ("safety", "violation_rate"),
    "false_refusal_rate": ("borderline", "false_refusal_rate"),
}


def summarise(run: RunFolder, effects: Sequence[Effect], versions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`seconds` (of work, over all starts), `seed`, `versions`, `effects`, `stages`; figures that were not measured are null.

    `versions`: their lineage, to which each one's figures are added.
    """
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
    }  # fmt: skip
