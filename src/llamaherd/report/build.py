"""From a finished run folder, or an unfinished one, to report.html, summary.json and cards. Reads artifacts and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.artifacts import code_version
from ..core.files import write_json, write_text
from .benchmarks import benchmarks_section
from .cards import write_cards
from .corpus import corpus_section
from .effects import measure_effects
from .folder import RunFolder
from .glance import effects_section, glance_section
from .judging import CLOSING, judge_section, wins_section
from .lineage import lineage
from .making import curves_section, pipeline_section
from .page import render
from .ppo import ppo_section
from .rewards import best_of_section, reward_section
from .summary import summarise
from .talks import ghost_section, samples_section
from .versions import details_section, versions_section


@dataclass(frozen=True)
class Report:
    """The two files and what the summary holds."""

    html: Path
    summary_file: Path
    summary: Mapping[str, Any]


def build_report(run: Path, out: Path | None = None, told: Mapping[str, str] | None = None) -> Report:
    """Writes `report.html`, `summary.json` and `cards/` into `out` (default: the run's folder).

    `told` has a line on what came out of each artifact, by name; without it the artifact's metrics are named. What the run lacks
    is said to be not measured. Raises UserError when nothing is finished in `run` or a file is damaged.
    """
    folder, out = RunFolder(run), out or run
    effects = measure_effects(folder)
    versions = lineage(folder)
    summary = summarise(folder, effects, versions)
    real = [wins_section(folder), benchmarks_section(folder), judge_section(folder)] if folder.real else []
    sections = [
        glance_section(folder, effects), samples_section(folder), versions_section(folder, versions), details_section(folder),
        *real, reward_section(folder), best_of_section(folder), ghost_section(folder), ppo_section(folder), pipeline_section(folder, told or {}),
        curves_section(folder), corpus_section(folder), effects_section(folder, effects),
    ]  # fmt: skip
    name = str(folder.recipe.get("name") or run.resolve().name)
    subtitle = f"One run of the Llama 2 recipe by llamaherd {code_version()}, seed {folder.seed}."
    if folder.recipe.get("tune_from") == "v0":
        subtitle += " Versions after V0 are tuned from V0; the paper tunes each again from the base."
    report = Report(out / "report.html", out / "summary.json", summary)
    write_text(report.html, render(f"llamaherd: {name}", subtitle, sections, CLOSING if folder.real else ""))
    write_json(report.summary_file, summary)
    write_cards(folder, out)
    return report
