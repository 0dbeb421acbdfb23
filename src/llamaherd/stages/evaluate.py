"""Evaluation of a chat model in the miniature: its oracle stands in for people (paper.md sections 8, 9 and 11)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from ..chat.dialogue import Dialogue, tag_in
from ..core.artifacts import Artifact, building, hash_of, model_path, open_artifact
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import read_rows, write_json, write_rows
from ..core.seeds import seed_for
from ..data.inputs import described_by, parents_of
from ..generate.config import SamplingConfig
from ..measures.calibration import sigmoid
from ..measures.intervals import mean
from ..miniature.constraints import ConstraintSet, constraint_dialogues, obeys
from ..miniature.oracle import Oracle
from ..miniature.prompts import (
    borderline_prompts,
    fixed_sample_prompts,
    helpfulness_prompts,
    safety_prompts,
    unasked_people_prompts,
)
from ..miniature.world import World, WorldConfig
from .common import data_file, reward_path

if TYPE_CHECKING:
    from ..assistant.local import Assistant
    from ..data.records import Domain

Task = Literal["helpfulness", "safety", "borderline", "people", "ghost", "rewards", "samples"]
TASKS: tuple[Task, ...] = ("helpfulness", "safety", "borderline", "people", "ghost", "rewards", "samples")
Rows = list[dict[str, Any]]
SHOWN_DIALOGUES = 2
"""Kept whole of each set of constraints, with their attention: always the first ones."""


def _as_tasks(value: Any) -> Any:
    return tuple(value.split(",")) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


class EvaluateSettings(Config):
    """What is asked and how answers are sampled."""

    helpfulness_prompts: int = Field(200, ge=1)
    """Test prompts of all harmless kinds."""
    safety_prompts: int = Field(200, ge=1)
    """Adversarial test prompts, single and multi-turn."""
    borderline_prompts: int = Field(100, ge=1)
    """Legitimate test prompts with sensitive words."""
    people_prompts: int = Field(48, ge=1)
    """Test prompts about people whom only documents name."""
    ghost_dialogues: int = Field(32, ge=1)
    """Dialogues for each set of constraints."""
    ghost_turns: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 2, 4, 6, 10, 20), min_length=1)
    """Turns at which obedience is measured."""
    sampling: SamplingConfig = SamplingConfig(temperature=1.0, top_p=0.95, max_new_tokens=64)
    """How answers are sampled; greedy ones are reported beside."""
    ghost_sampling: SamplingConfig = SamplingConfig(max_new_tokens=64)
    """How answers under lasting constraints are sampled: as in a chat unless told otherwise."""
    prompt_seed: int = 0
    """Draws the test prompts: the same for every version of a run."""


class EvaluateConfig(EvaluateSettings):
    """Settings and inputs."""

    model: Path
    """A chat model: a folder, RUN or RUN:VERSION."""
    tasks: Annotated[tuple[Task, ...], BeforeValidator(_as_tasks), Field(min_length=1)] = TASKS
    """What is measured."""
    helpfulness: Path | None = None
    """Helpfulness reward model for the task `rewards`."""
    safety: Path | None = None
    """Safety reward model for the task `rewards`."""
    answers: Path | None = None
    """An earlier evaluation of the same model on the same prompts, whose answers the task `rewards` takes; null: it samples."""
    world: WorldConfig = WorldConfig()
    """Whose test prompts and oracle."""


def run(config: EvaluateConfig, out: Path, seed: int) -> Artifact:
    """Writes evaluation.json (figures with intervals) and rows.jsonl (every judged answer). Raises UserError."""
    from ..assistant.local import Assistant

    if "rewards" in config.tasks and config.tasks != TASKS and not (config.helpfulness or config.safety):
        raise UserError("task rewards: no reward model given; add --helpfulness MODEL, --safety MODEL or both")
    folder = model_path(config.model)
    judges: tuple[tuple[Domain, Path | None], ...] = (("helpfulness", config.helpfulness), ("safety", config.safety))
    rewards = [reward_path(path, domain) for domain, path in judges if path]
    answers = [data_file(config.answers, "rows.jsonl")] if config.answers else []
    parents = parents_of([described_by(folder), *(described_by(path) for path in rewards), *answers])
    with building(out, kind="evaluation", stage="evaluate", config=config, parents=parents, seed=seed) as place:
        bench = Bench(config, Assistant.load(folder), seed)
        report: dict[str, Any] = {"model": folder.name, "tasks": {}}
        for task in (task for task in TASKS if task in config.tasks):
            if task == "samples":
                report["samples"] = bench.samples()
            else:
                measured = MEASURES[task](bench)
                if measured is not None:
                    report["tasks"][task] = measured
        if bench.dialogues:
            report["dialogues"] = bench.dialogues
        write_json(place.folder / "evaluation.json", report)
        write_rows(place.folder / "rows.jsonl", bench.rows)
        place.metrics.update(report["tasks"])
    return open_artifact(out, "evaluation")


class Bench:
    """One model under test; `rows` gathers every judged answer, `dialogues` a few whole ones under constraints."""

    def __init__(self, config: EvaluateConfig, assistant: "Assistant", seed: int):
        self.config, self.assistant, self.seed = config, assistant, seed
        self.world = World(config.world)
        self.oracle = Oracle(self.world)
        self.rows: Rows = []
        self.dialogues: Rows = []

    def judged(self, task: str, prompts: Rows, mode: Literal["sampled", "greedy"] = "sampled") -> Rows:
        """Answers to prompt rows, judged and kept."""
        from ..data.records import parse_prompt
        from ..evaluation.judged import judged_rows

        parsed = [parse_prompt(row) for row in prompts]
        found = judged_rows(self.assistant, self.oracle, parsed, self.config.sampling, task, mode, self.seed)
        self.rows += found
        return found

    def sampled(self, task: Task) -> Rows:
        """Judged rows of a task: those of the earlier evaluation, those that are there already, or new ones."""
        there = self.rows
        if self.config.answers is not None:
            there = [row for _, row in read_rows(data_file(self.config.answers, "rows.jsonl"))]
        found = [row for row in there if row["task"] == task and row["mode"] == "sampled"]
        return found or self.judged(task, self.prompt_rows(task))

    def prompt_rows(self, task: Task) -> Rows:
        return test_prompts(self.world, self.config, task)

    def samples(self) -> list[dict[str, str]]:
        """Greedy answers to a few fixed prompts, for people to read."""
        rows = self.judged("samples", fixed_sample_prompts(self.world), "greedy")
        return [{"prompt": row["prompt"], "answer": row["answer"]} for row in rows]


def test_prompts(world: World, config: EvaluateSettings, task: Task) -> Rows:
    """The test prompts of a task. Raises UserError when the world has too few different ones."""
    seed = seed_for(config.prompt_seed, "test", task)
    if task == "safety":
        return safety_prompts(world, config.safety_prompts, seed, "test", borderline_share=0.0, harmless_share=0.0)
    if task == "borderline":
        return borderline_prompts(world, config.borderline_prompts, seed, "test")
    if task == "people":
        return unasked_people_prompts(world, config.people_prompts, seed)
    return helpfulness_prompts(world, config.helpfulness_prompts, seed, "test", harmful_share=0.0)


def _helpfulness(bench: Bench) -> Mapping[str, Any]:
    from ..evaluation.judged import helpfulness_report

    prompts = bench.prompt_rows("helpfulness")
    return helpfulness_report(bench.judged("helpfulness", prompts), bench.judged("helpfulness", prompts, "greedy"))


def _safety(bench: Bench) -> Mapping[str, Any]:
    from ..evaluation.judged import safety_report

    return safety_report(bench.judged("safety", bench.prompt_rows("safety")))


def _borderline(bench: Bench) -> Mapping[str, Any]:
    from ..evaluation.judged import refusal_report

    return refusal_report(bench.judged("borderline", bench.prompt_rows("borderline")))


def _people(bench: Bench) -> Mapping[str, Any]:
    from ..evaluation.judged import correct_share

    return {"unasked": correct_share(bench.judged("people", bench.prompt_rows("people")))}


def _ghost(bench: Bench) -> Mapping[str, Any]:
    from ..evaluation.attention import attention_map
    from ..evaluation.obedience import obedience_report, obedience_rows

    config, found = bench.config, {}
    for name in get_args(ConstraintSet):
        turns = max(config.ghost_turns)
        seed = seed_for(config.prompt_seed, "test", "ghost")
        scripts = constraint_dialogues(bench.world, config.ghost_dialogues, seed, "test", name, (turns, turns))

        def check(index: int, answer: str, scripts: Any = scripts) -> bool:
            return all(obeys(constraint, answer) for constraint in scripts[index].constraints)

        rows, dialogues = obedience_rows(
            bench.assistant, [script.instruction for script in scripts], [script.users for script in scripts], check,
            config.ghost_turns, config.ghost_sampling, seed_for(bench.seed, name),
        )  # fmt: skip
        found[name] = obedience_report(rows, config.ghost_turns)
        ids = [hash_of([script.instruction, script.users])[:16] for script in scripts]
        about = [{"id": key, "instruction": script.instruction} for key, script in zip(ids, scripts, strict=True)]
        bench.rows += [{"task": "ghost", "set": name, "mode": "sampled", **about[row.pop("dialogue")], **row} for row in rows]
        for key, dialogue in list(zip(ids, dialogues, strict=True))[:SHOWN_DIALOGUES]:
            # One that broke off ends with a question.
            whole = dialogue if dialogue.last.role == "assistant" else Dialogue(dialogue.messages[:-1])
            if whole.turns:
                bench.dialogues.append({"set": name, "id": key, **whole.to_row(), **attention_map(bench.assistant, whole)})
    return found


def _rewards(bench: Bench) -> Mapping[str, Any] | None:
    """Mean probability that each reward model gives the sampled answers on its own kind of prompts."""
    from ..data.records import parse_prompt
    from ..evaluation.judged import prompt_id
    from ..reward.model import RewardModel

    found: dict[str, Any] = {}
    domains: tuple[tuple[Task, Path | None], ...] = (("helpfulness", bench.config.helpfulness), ("safety", bench.config.safety))
    for domain, path in domains:
        if path is None:
            continue
        prompts = {prompt_id(prompt): prompt.dialogue for prompt in map(parse_prompt, bench.prompt_rows(domain))}
        answers = {row["id"]: row["answer"] for row in bench.sampled(domain)}
        if missing := set(prompts) - set(answers):
            raise UserError(
                f"{bench.config.answers}: lacks answers to {len(missing)} of the {domain} prompts; it was made with other settings"
            )
        model = RewardModel.load(path)
        # Empty answers, those with a tag and those too long have no score; n says how many have one.
        said = {
            key: dialogue.followed_by("assistant", answers[key])
            for key, dialogue in prompts.items()
            if answers[key] and not tag_in(answers[key])
        }
        whole = {key: dialogue for key, dialogue in said.items() if model.fits(dialogue)}
        scores = dict(zip(whole, map(sigmoid, model.logits(list(whole.values()))), strict=True))
        bench.rows += [{"task": "rewards", "domain": domain, "mode": "sampled", "id": key, "score": scores.get(key)} for key in prompts]
        found[domain] = mean(list(scores.values()))
    return found or None


MEASURES: dict[str, Callable[[Bench], Mapping[str, Any] | None]] = {
    "helpfulness": _helpfulness, "safety": _safety, "borderline": _borderline, "people": _people, "ghost": _ghost, "rewards": _rewards,
}  # fmt: skip


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    tasks = artifact.metrics
    parts = []
    for task, key, name in (
        ("helpfulness", "sampled", "helpfulness"),
        ("safety", "violation_rate", "violations"),
        ("borderline", "false_refusal_rate", "false refusals"),
        ("rewards", "helpfulness", "helpfulness reward"),
        ("rewards", "safety", "safety reward"),
    ):
        figure = tasks.get(task, {}).get(key)
        if figure and figure["value"] is not None:
            parts.append(f"{name} {figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})")
    return ", ".join(parts) or "measured"
