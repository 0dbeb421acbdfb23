"""A run folder as the report sees it: manifests, evaluations, metrics and per-row scores; what is missing is None or empty."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core.artifacts import METRICS, Artifact, find_artifact, versions
from ..core.errors import UserError
from ..core.files import read_json, read_rows
from ..core.metrics import read_metrics
from ..measures.intervals import Figure

CONSTRAINTS = {"seen": "seen constraints", "demonstrated": "constraints kept out of its rows", "held_out": "constraints never trained on"}
"""Sets that obedience is measured on: those in Ghost Attention's rows, those in demonstrations alone (the paper's own test of
constraints outside of Ghost Attention's training), those in tests alone."""
FIRST = "v0"
"""The version after supervised fine-tuning."""
PAPER_VERSIONS, PAPER_GHOST = 5, 3
"""The paper's last version, and the one after which Ghost Attention came: what a folder without a recipe is taken for."""

CO2_G_PER_KWH = 445.0
"""The world's mean of 2024 (IEA), for a folder whose recipe does not say."""

JUDGE = "judge"
"""The artifact of a reward model that nobody is tuned on and that judges in a run on public texts, where no oracle can."""

_GROUND = ("world", "texts", "comparisons", "prompts", "corpus", "tokenizer", "shards", "base", "base-benchmarks")
_WITHIN_VERSION = (
    "early",
    "preferences",
    "helpfulness",
    "safety",
    "samples",
    "best-of",
    "curves",
    "rejection",
    "rejection-evaluation",
    "rejection-rewards",
    "rejection-wins",
    "",
    "evaluation",
    "rewards",
    "benchmarks",
    "wins",
)
_AFTER_VERSION = ("distilled", "ghost")


def pipeline_order(name: str, ghost_after: int = PAPER_GHOST) -> tuple[int, int, str]:
    """Sort key that puts artifact names in the order in which a run makes them; unknown names come last."""
    if name in _GROUND:
        return -1, _GROUND.index(name), ""
    if name == JUDGE:
        return 0, len(_WITHIN_VERSION), name
    if name in _AFTER_VERSION:
        return ghost_after, len(_WITHIN_VERSION), name
    match = re.fullmatch(r"v(\d+)(?:-(.+))?", name)
    if match and (match[2] or "") in _WITHIN_VERSION:
        return int(match[1]), _WITHIN_VERSION.index(match[2] or ""), ""
    return 10**6, 0, name


def as_figure(value: Any) -> Figure | None:
    """The figure in a JSON value, or None where there is none or it was measured on nothing."""
    if not isinstance(value, Mapping) or any(value.get(key) is None for key in ("value", "low", "high", "n")):
        return None
    return {"value": float(value["value"]), "low": float(value["low"]), "high": float(value["high"]), "n": int(value["n"])}


def dig(value: Any, *keys: str) -> Any:
    """`value[key][key]...`, None as soon as one is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


@dataclass(frozen=True)
class RunFolder:
    """Everything the report may look at. Raises UserError for a folder without a run and for damaged files."""

    path: Path

    def __post_init__(self) -> None:
        if not self.artifacts:
            raise UserError(f"{self.path}: nothing finished there; a report needs the folder of a run, such as runs/miniature")

    @cached_property
    def artifacts(self) -> dict[str, Artifact]:
        """Finished artifacts by name, in the order of the pipeline."""
        folders = sorted(entry for entry in self.path.iterdir() if entry.is_dir()) if self.path.is_dir() else []
        found = {folder.name: artifact for folder in folders if (artifact := find_artifact(folder))}
        return {name: found[name] for name in sorted(found, key=self._order)}

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        file = self.path / "recipe.json"
        recipe: Mapping[str, Any] = read_json(file) if file.exists() else {}
        return recipe

    @cached_property
    def versions(self) -> list[str]:
        """Chat models in the order of the story, with the one before PPO where the run kept it."""
        names = versions(self.path)
        return sorted([*names, self.rejection] if self.rejection in self.artifacts else names, key=self._order)

    def _order(self, name: str) -> tuple[int, int, str]:
        return pipeline_order(name, self._ghost_after)

    @property
    def _ghost_after(self) -> int:
        return int(self.recipe.get("ghost_after", PAPER_GHOST))

    @property
    def last(self) -> str:
        """The version after PPO."""
        return f"v{int(dig(self.recipe, 'world', 'versions') or self.recipe.get('versions') or PAPER_VERSIONS)}"

    @cached_property
    def real(self) -> bool:
        """Whether its texts and judgements are public ones, made by nobody here; else they are the miniature's."""
        return "versions" in self.recipe or "texts" in self.artifacts or JUDGE in self.artifacts

    @property
    def judge(self) -> str:
        """Who says how helpful an answer is."""
        return "judge" if self.real else "oracle"

    @property
    def checker(self) -> str:
        """Who says whether an answer is safe and whether it refuses."""
        return "text heuristics" if self.real else "the oracle"

    @property
    def judge_accuracy(self) -> Figure | None:
        """How often the judge prefers, of two answers in held-out comparisons, the one that people preferred."""
        return as_figure(self.metric(JUDGE, "accuracy", "own", "all"))

    @cached_property
    def constraints(self) -> Mapping[str, str]:
        """The sets that obedience can be measured on, with what they are called."""
        if not self.real:
            return CONSTRAINTS
        return {
            key: label
            for key, label in CONSTRAINTS.items()
            if key != "demonstrated" or any(self.task(name, "ghost", key) for name in self.versions)
        }

    @property
    def rejection(self) -> str:
        """What the last version was before PPO."""
        return f"{self.last}-rejection"

    @property
    def before_ghost(self) -> str:
        """The last version without Ghost Attention rows in its tuning mix (section 7)."""
        return f"v{self._ghost_after}"

    @property
    def with_ghost(self) -> str:
        """The first version with them; where that is the last one, the one before PPO, so that PPO is no part of the comparison."""
        name = f"v{self._ghost_after + 1}"
        return self.rejection if name == self.last else name

    @property
    def seed(self) -> int | None:
        """The recipe's seed, or the one in the manifests of a folder without a recipe."""
        seeds = [self.recipe.get("seed"), *(artifact.manifest.get("seed") for artifact in self.artifacts.values())]
        return next((int(seed) for seed in seeds if seed is not None), None)

    @property
    def seconds(self) -> float:
        """How long the run has worked; without its record, what the stages took."""
        file = self.path / "seconds.json"
        return float(read_json(file)) if file.is_file() else self.total("seconds")

    def total(self, field: str) -> float:
        """Sum of a number over all manifests, such as `seconds`."""
        return sum(float(artifact.manifest.get(field) or 0) for artifact in self.artifacts.values())

    @property
    def carbon_g(self) -> float:
        """Grams of CO2 of the estimated energy, at the recipe's carbon intensity."""
        return self.total("energy_wh_estimate") / 1000 * float(self.recipe.get("co2_g_per_kwh") or CO2_G_PER_KWH)

    def metric(self, name: str, *keys: str) -> Any:
        """One entry of an artifact's metrics, or None."""
        return dig(self.artifacts[name].metrics, *keys) if name in self.artifacts else None

    def newest(self, suffix: str) -> str | None:
        """The newest `vN-suffix` artifact of the run."""
        return next((name for name in reversed(self.artifacts) if re.fullmatch(rf"v\d+-{suffix}", name)), None)

    @cached_property
    def evaluations(self) -> dict[str, Mapping[str, Any]]:
        """evaluation.json by version name, with what the last reward models say of the same answers."""
        found: dict[str, Mapping[str, Any]] = {}
        for name in self.versions:
            files = [self.path / f"{name}-{kind}" / "evaluation.json" for kind in ("evaluation", "rewards")]
            parts = [read_json(file) for file in files if file.exists()]
            if parts:
                found[name] = {**parts[0], "tasks": {task: figures for part in parts for task, figures in part["tasks"].items()}}
        return found

    @cached_property
    def wins(self) -> dict[str, Mapping[str, Any]]:
        """The judge's verdicts on each version's answers beside the first one's, as figures, by version."""
        found = {name: self.metric(f"{name}-wins", "win-rate") for name in self.versions}
        return {name: figures for name, figures in found.items() if isinstance(figures, Mapping)}

    def task(self, version: str, *keys: str) -> Any:
        """One entry under `tasks` in a version's evaluation, or None."""
        return dig(self.evaluations.get(version), "tasks", *keys)

    def figure(self, version: str, *keys: str) -> Figure | None:
        return as_figure(self.task(version, *keys))

    def training(self, name: str) -> list[dict[str, Any]]:
        """Lines of an artifact's metrics.jsonl."""
        return read_metrics(self.path / name / METRICS)

    def rows(self, name: str, file: str = "rows.jsonl") -> list[dict[str, Any]]:
        """Rows of an artifact's file; none where it is missing."""
        path = self.path / name / file
        return [row for _, row in read_rows(path)] if path.is_file() else []

    def count(self, name: str, file: str) -> int | None:
        """How many rows an artifact's file has; None where it is missing."""
        path = self.path / name / file
        if path not in self._counts:
            self._counts[path] = sum(1 for _ in read_rows(path)) if path.is_file() else None
        return self._counts[path]

    @cached_property
    def _counts(self) -> dict[Path, int | None]:
        return {}

    @cached_property
    def answers(self) -> dict[str, list[dict[str, Any]]]:
        """Every judged answer of each version, with the rows of the last reward models' scores."""
        return {name: [row for kind in ("evaluation", "rewards") for row in self.rows(f"{name}-{kind}")] for name in self.versions}

    def label(self, version: str) -> str:
        """A version's name in charts: the one before PPO is the paper's "V5 (no PPO)"."""
        return f"{self.last} no PPO" if version == self.rejection else version


def per_prompt(rows: Iterable[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], Any], **where: Any) -> dict[str, float]:
    """`value` of each row whose fields are as in `where`, by the row's id; the mean where an id has several, no None among them."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if all(row.get(key) == wanted for key, wanted in where.items()) and (number := value(row)) is not None:
            found.setdefault(str(row["id"]), []).append(float(number))
    return {name: sum(values) / len(values) for name, values in found.items()}
