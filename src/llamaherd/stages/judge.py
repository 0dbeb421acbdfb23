"""Two chat models compared by a judge, and a judge held against people's choices (paper.md sections 5 and 8).

Models and judges may be local folders or endpoints; a judge may also be reward models. Nothing is asked of an endpoint but what the
figures need: an answer to each prompt, a verdict on each pair and order.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ..core.artifacts import Artifact, Workplace, building, hash_of, model_path, open_artifact
from ..core.chunks import in_chunks
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import write_json, write_rows
from ..core.seeds import seed_for
from ..data.inputs import described_by, parents_of
from ..generate.config import SamplingConfig
from .common import Paths, about_judge, data_files, reward_paths

if TYPE_CHECKING:
    from ..assistant.endpoint import Endpoint
    from ..assistant.local import Assistant
    from ..data.records import Preference, Prompt
    from ..evaluation.judges import PairJudge
    from ..evaluation.pairwise import Pair

Task = Literal["win-rate", "judge-accuracy"]
TASKS: tuple[Task, ...] = ("win-rate", "judge-accuracy")
Rows = list[dict[str, Any]]
KINDS = {"model": "chat model", "reward-model": "reward model"}


def _as_tasks(value: Any) -> Any:
    return tuple(value.split(",")) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


class JudgeConfig(Config):
    """Settings and inputs."""

    model: str
    """A chat model: a folder, RUN, RUN:VERSION or http(s)://host/v1#name. For judge-accuracy without --judge, the judge itself."""
    tasks: Annotated[tuple[Task, ...], BeforeValidator(_as_tasks), Field(min_length=1)]
    """win-rate: against an opponent on prompts. judge-accuracy: how often the judge chooses as people did."""
    opponent: str | None = None
    """Whom win-rate compares with, named as the model is."""
    judge: str | None = None
    """A chat model, named as the model is; the folder of a reward model; or two of them, helpfulness,safety, under the gate."""
    prompts: Paths = ()
    """Files of prompts for win-rate."""
    data: Paths = ()
    """Files of preferences for judge-accuracy, in our schema or another form; those that state no domain are of the criterion's."""
    criterion: Literal["tagged", "helpfulness", "safety"] = "tagged"
    """What a pair is judged for; tagged: safety where the prompt is tagged as unsafe or the comparison is of that domain, else help."""
    orders: Literal["both", "random"] = "both"
    """How a chat model is shown the answers: in both orders, where different verdicts tie, or in one drawn by prompt, at half the cost."""
    sampling: SamplingConfig = SamplingConfig()
    """How the model and its opponent answer."""
    judge_sampling: SamplingConfig = SamplingConfig(temperature=0.0, top_p=1.0, max_new_tokens=64)
    """How a chat model judges."""
    gate: float = Field(0.15, gt=0, lt=1)
    """Of two reward models, see rejection sampling."""
    timeout_s: float = Field(120.0, gt=0)
    """Longest silence of an endpoint."""
    parallel: int = Field(1, ge=1)
    """Requests to an endpoint at a time."""
    chunk_pairs: int = Field(16, ge=1)
    """Prompts and pairs between two saved states: what was asked is not asked again when the command is."""


def run(config: JudgeConfig, out: Path, seed: int) -> Artifact:
    """Writes evaluation.json (figures with intervals) and rows.jsonl (every pair with what the judge said). Raises UserError."""
    from ..data.preferences import Counts, read_comparisons

    _demand(config)
    wins = "win-rate" in config.tasks
    answering = [spec for spec in (config.model, config.opponent) if spec] if wins else []
    judging = config.judge or config.model
    local = [folder for spec in answering for folder in _folders(spec, "model")] + _judge_folders(judging)
    files = data_files(config.prompts, "prompts.jsonl") if wins else []
    preferences = data_files(config.data, "preferences.jsonl") if "judge-accuracy" in config.tasks else []
    prompts = _prompts(files, answering)
    counts, domain = Counts(), config.criterion if config.criterion != "tagged" else "helpfulness"
    comparisons = [(file, pair) for file in preferences for pair in read_comparisons(file, domain, counts)]
    if preferences and not comparisons:
        raise UserError(f"no comparison in {', '.join(map(str, preferences))}; give a file with at least one")
    parents = parents_of([*map(described_by, local), *files, *preferences])
    with building(out, kind="evaluation", stage="judge", config=config, parents=parents, seed=seed) as place:
        judge = cache(lambda: _open_judge(judging, config))
        bench = _Bench(config, place, judge, seed)
        report: dict[str, Any] = {"model": config.model, "judge": judging, "tasks": {}}
        if rewarding := _reward_models(judging):
            place.metrics["judged_by"] = report["judged_by"] = list(map(about_judge, rewarding))
        rows: Rows = []
        if wins:
            report["opponent"] = config.opponent
            ours, theirs = (bench.answers(name, spec, prompts) for name, spec in zip(("model", "opponent"), answering, strict=True))
            rows += bench.judged("win-rate", _pairs(prompts, ours, theirs, config))
            report["tasks"]["win-rate"] = _win_rate(rows, judge().sees_order)
        if comparisons:
            found = bench.judged("judge-accuracy", [_human_pair(file, pair, config) for file, pair in comparisons])
            report["tasks"]["judge-accuracy"] = _accuracy(found, judge().sees_order)
            rows += found
            report["left_out"] = dict(counts.left_out)
        write_json(place.folder / "evaluation.json", report)
        write_rows(place.folder / "rows.jsonl", rows)
        place.metrics.update(report["tasks"])
    return open_artifact(out, "evaluation")


def _demand(config: JudgeConfig) -> None:
    """Raises UserError for a task without what it needs."""
    needs = {"win-rate": ("opponent", "judge", "prompts"), "judge-accuracy": ("data",)}
    for task in config.tasks:
        if missing := [name for name in needs[task] if not getattr(config, name)]:
            raise UserError(f"task {task}: needs {', '.join(f'--{name}' for name in missing)}")


def _is_endpoint(spec: str) -> bool:
    return spec.lower().startswith(("http://", "https://"))


def _folders(spec: str, kind: Literal["model", "reward-model"]) -> list[Path]:
    """Where a local model lies; none for an endpoint. Raises UserError for what is neither, or of another kind."""
    from ..assistant.endpoint import Endpoint
    from ..checkpoints.source import open_source

    if _is_endpoint(spec):
        Endpoint.parse(spec)
        return []
    folder = model_path(spec)
    found = open_source(folder).kind
    if found != kind:
        raise UserError(f"{spec}: is a {KINDS[found]}; expected a {KINDS[kind]}")
    return [folder]


def _judge_folders(spec: str) -> list[Path]:
    """Local models of a judge: a chat model's, a reward model's, or two reward models'. Raises UserError."""
    from ..checkpoints.source import open_source

    parts = spec.split(",") if not _is_endpoint(spec) and not Path(spec).exists() else [spec]
    if len(parts) > 2:
        raise UserError(f"{spec}: {len(parts)} judges; expected one, or two reward models as helpfulness,safety")
    if len(parts) == 2:
        for part in parts:
            _folders(part, "reward-model")
        return reward_paths("gate", *map(Path, parts))
    if _is_endpoint(spec):
        return _folders(spec, "model")
    folder = model_path(spec)
    return _folders(spec, open_source(folder).kind)


def _reward_models(spec: str) -> list[Path]:
    """Those among a judge's local models."""
    from ..checkpoints.source import open_source

    return [folder for folder in _judge_folders(spec) if open_source(folder).kind == "reward-model"]


def _open(spec: str, timeout_s: float) -> "Assistant | Endpoint":
    from ..assistant.endpoint import Endpoint
    from ..assistant.local import Assistant

    if not _is_endpoint(spec):
        return Assistant.load(spec)
    known = Endpoint.parse(spec)
    return Endpoint(known.address, known.name, timeout_s)


def _open_judge(spec: str, config: JudgeConfig) -> "PairJudge":
    from ..evaluation.judges import ChatJudge, RewardJudge
    from ..reward.combine import Alone, Combination
    from ..reward.model import RewardModel

    folders = _reward_models(spec)
    if len(folders) == 2:
        helpfulness, safety = map(RewardModel.load, folders)
        return RewardJudge(Combination(helpfulness, safety, config.gate), spec)
    if folders:
        return RewardJudge(Alone("helpfulness", RewardModel.load(folders[0])), spec)
    return ChatJudge(_open(spec, config.timeout_s), config.judge_sampling, config.parallel)


def _prompts(files: Sequence[Path], answering: Sequence[str]) -> "list[Prompt]":
    """Raises UserError, before any model is loaded, for a bad row or one that fills the context of a local model."""
    from ..chat.template import encode_prompt
    from ..checkpoints.source import open_source
    from ..data.records import read_prompts

    sources = [open_source(folder) for spec in answering for folder in _folders(spec, "model")]
    found = []
    for file in files:
        for number, prompt in enumerate(read_prompts(file), 1):
            for source in sources:
                tokens, context = len(encode_prompt(prompt.dialogue, source.tokenizer)), source.config.context
                if tokens >= context:
                    raise UserError(
                        f"{file}: prompt {number} has {tokens} tokens, and the context of {source.path} is {context}; shorten it"
                    )
            found.append(prompt)
    if files and not found:
        raise UserError(f"no prompt in {', '.join(map(str, files))}; give a file with at least one")
    return found


class _Bench:
    """Answers and verdicts, chunk by chunk: each is asked for once, however often the command is stopped."""

    def __init__(self, config: JudgeConfig, place: Workplace, judge: "Callable[[], PairJudge]", seed: int):
        self.config, self.place, self.judge, self.seed = config, place, judge, seed

    def answers(self, name: str, spec: str, prompts: "Sequence[Prompt]") -> list[str]:
        """Of one model, which is loaded only if something is missing, and let go afterwards."""
        from ..evaluation.judges import answer_texts

        opened = cache(lambda: _open(spec, self.config.timeout_s))

        def work(chunk: "Sequence[Prompt]", first: int) -> Rows:
            seeds = [seed_for(self.seed, "win-rate", first + place) for place in range(len(chunk))]
            texts = answer_texts(opened(), [prompt.dialogue for prompt in chunk], self.config.sampling, seeds, self.config.parallel)
            return [{"answer": text} for text in texts]

        return [row["answer"] for row in in_chunks(self.place.state / name, prompts, self.config.chunk_pairs, work)]

    def judged(self, task: Task, pairs: "Sequence[Pair]") -> Rows:
        """Rows of a task's pairs."""
        from ..evaluation.pairwise import judged_pairs

        def work(chunk: "Sequence[Pair]", first: int) -> Rows:
            return [{"task": task, **row} for row in judged_pairs(self.judge(), chunk, self.config.orders, self.seed)]

        return in_chunks(self.place.state / task, pairs, self.config.chunk_pairs, work)


def _pairs(prompts: "Sequence[Prompt]", ours: Sequence[str], theirs: Sequence[str], config: JudgeConfig) -> "list[Pair]":
    from ..evaluation.judged import prompt_id
    from ..evaluation.pairwise import Pair

    def criterion(prompt: "Prompt") -> Any:
        return ("safety" if prompt.safety else "helpfulness") if config.criterion == "tagged" else config.criterion

    return [
        Pair(prompt_id(prompt), prompt.dialogue, one, other, criterion(prompt))
        for prompt, one, other in zip(prompts, ours, theirs, strict=True)
    ]


def _human_pair(file: Path, pair: "Preference", config: JudgeConfig) -> "Pair":
    from ..evaluation.pairwise import Pair

    criterion = pair.domain if config.criterion == "tagged" else config.criterion
    about = {"grade": pair.grade, "domain": pair.domain, "source": pair.source or None, "batch": pair.batch, "file": file.name}
    return Pair(hash_of([pair.prompt.to_row(), pair.chosen, pair.rejected])[:16], pair.prompt, pair.chosen, pair.rejected, criterion, about)


def _win_rate(rows: Rows, sees_order: bool) -> dict[str, Any]:
    from ..evaluation.pairwise import figures

    criteria = sorted({row["criterion"] for row in rows})
    by = {criterion: figures([row for row in rows if row["criterion"] == criterion], sees_order) for criterion in criteria}
    return {**figures(rows, sees_order), "by_criterion": by}


def _accuracy(rows: Rows, sees_order: bool) -> dict[str, Any]:
    """A win is the answer that people chose, so the share of wins, with ties as half, is the accuracy."""
    from ..evaluation.pairwise import figures, grouped

    found = figures(rows, sees_order)
    names = {"win_rate": "accuracy", "wins": "agrees", "losses": "disagrees", "wins_of_decided": "accuracy_of_decided"}
    by = {f"by_{key}": grouped(rows, key) for key in ("grade", "domain", "source", "batch", "file")}
    return {names.get(name, name): value for name, value in found.items()} | by


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    parts = []
    for task, key in (("win-rate", "win_rate"), ("judge-accuracy", "accuracy")):
        found = artifact.metrics.get(task)
        if found:
            figure = found[key]
            known = "no verdict" if figure["value"] is None else f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"
            parts.append(f"{task} {known} of {found['pairs']:,} pairs")
    for one in artifact.metrics.get("judged_by", []):
        if (own := one["accuracy"]) and own["value"] is not None:
            parts.append(
                f"{one['name']} is right on {own['value']:.0%} ({own['low']:.0%} to {own['high']:.0%}) of its own test comparisons"
            )
    return ", ".join(parts)
