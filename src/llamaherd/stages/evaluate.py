"""Evaluation of a chat model (paper.md sections 8, 9 and 11): on a world's prompts its oracle stands in for people, on real ones a judge."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from ..chat.dialogue import Dialogue, tag_in
from ..core.artifacts import Artifact, building, find_artifact, model_path, open_artifact
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import read_rows, write_json, write_rows
from ..core.seeds import seed_for
from ..data.inputs import described_by, parents_of
from ..generate.config import SamplingConfig
from ..measures.intervals import mean
from ..miniature.constraints import ConstraintDialogue, ConstraintSet, constraint_dialogues, obeys
from ..miniature.prompts import (
    borderline_prompts,
    fixed_sample_prompts,
    helpfulness_prompts,
    safety_prompts,
    unasked_people_prompts,
)
from ..miniature.world import World, WorldConfig
from .common import about_judge, data_file, judge_of, judge_paths, reward_path, trained_on

if TYPE_CHECKING:
    from ..assistant.local import Assistant
    from ..data.records import Domain, Judge, Prompt
    from ..evaluation.asked import Asked, AskedFolder, Script

Task = Literal["helpfulness", "safety", "borderline", "people", "ghost", "rewards", "samples"]
TASKS: tuple[Task, ...] = ("helpfulness", "safety", "borderline", "people", "ghost", "rewards", "samples")
Rows = list[dict[str, Any]]
WORLDS_OWN: tuple[Task, ...] = ("people",)
"""Left out where real prompts are asked: only a world has people whom nothing but its documents name."""
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
    asked: Path | None = None
    """Real text: a folder of test prompts, TASK.jsonl for each task but people and rewards (docs/evaluation.md); null: the world's."""
    judge: Path | None = None
    """Who judges real text: a helpfulness reward model that nothing is tuned on, with heuristics of safety; null: the world's oracle."""
    world: WorldConfig = WorldConfig()
    """Whose test prompts and oracle."""

    @model_validator(mode="after")
    def _real_text_has_a_judge(self) -> "EvaluateConfig":
        if self.judge and not self.asked:
            raise ValueError("judge is given without asked; a reward model judges answers to real prompts, add --asked FOLDER")
        if self.asked and not self.judge and not (self.tasks == ("rewards",) and self.answers):
            raise ValueError("asked is given without judge; no oracle knows the answers to real prompts, add --judge REWARD_MODEL")
        if self.asked and not set(self.tasks) - set(WORLDS_OWN):
            raise ValueError(f"task {', '.join(self.tasks)}: only a world has such prompts; leave out asked, or ask for another task")
        return self


def run(config: EvaluateConfig, out: Path, seed: int) -> Artifact:
    """Writes evaluation.json (figures with intervals) and rows.jsonl (every judged answer). Raises UserError."""
    from ..assistant.local import Assistant

    if "rewards" in config.tasks and config.tasks != TASKS and not (config.helpfulness or config.safety):
        raise UserError("task rewards: no reward model given; add --helpfulness MODEL, --safety MODEL or both")
    folder = model_path(config.model)
    judges: tuple[tuple[Domain, Path | None], ...] = (("helpfulness", config.helpfulness), ("safety", config.safety))
    rewards = [reward_path(path, domain) for domain, path in judges if path]
    judging = judge_paths(config.judge)
    answers = [data_file(config.answers, "rows.jsonl")] if config.answers else []
    asked, named = _asked_files(config)
    parents = parents_of([*(described_by(path) for path in (folder, *rewards, *judging)), *answers, *asked], **named)
    with building(out, kind="evaluation", stage="evaluate", config=config, parents=parents, seed=seed) as place:
        assistant = Assistant.load(folder)
        real = _folder(config.asked, config, assistant) if config.asked else None
        judge = judge_of(judging, config.world) if judging or not real else None
        bench = Bench(config, assistant, judge, real or _World(config), seed)
        report: dict[str, Any] = {"model": folder.name, "tasks": {}}
        for task in _tasks(config):
            if task == "samples":
                report["samples"] = bench.samples()
            else:
                measured = MEASURES[task](bench)
                if measured is not None:
                    report["tasks"][task] = measured
        if bench.dialogues:
            report["dialogues"] = bench.dialogues
        if real:
            report["asked"] = real.counted
            report["left_out"] = [task for task in config.tasks if task in WORLDS_OWN]
        if real and judge:
            place.metrics["judge"] = report["judge"] = _about(judging[0], judge, real)
        write_json(place.folder / "evaluation.json", report)
        write_rows(place.folder / "rows.jsonl", bench.rows)
        place.metrics.update(report["tasks"])
    return open_artifact(out, "evaluation")


def _tasks(config: EvaluateConfig) -> list[Task]:
    """What is measured, in the order of the report."""
    return [task for task in TASKS if task in config.tasks and not (config.asked and task in WORLDS_OWN)]


def _most(config: EvaluateConfig) -> dict[str, int | None]:
    """Of which tasks prompts are needed, and how many of them are asked at most."""
    tasks: set[str] = {task for task in _tasks(config) if task != "rewards"}
    if "rewards" in config.tasks:
        tasks |= {domain for domain in ("helpfulness", "safety") if getattr(config, domain)}
    most = {
        "helpfulness": config.helpfulness_prompts, "safety": config.safety_prompts, "borderline": config.borderline_prompts,
        "ghost": config.ghost_dialogues, "samples": None,
    }  # fmt: skip
    return {task: count for task, count in most.items() if task in tasks}


def _asked_files(config: EvaluateConfig) -> tuple[list[Path], dict[str, Artifact]]:
    """The files of real prompts, or, where an artifact wrote them, that one. Raises UserError for a missing file."""
    from ..evaluation.asked import asked_files

    if not config.asked:
        return [], {}
    files = asked_files(config.asked, tuple(_most(config)))
    for folder in (config.asked, config.asked.parent):
        found = find_artifact(folder)
        if found and all(file.relative_to(folder).as_posix() in found.manifest.get("files", {}) for file in files):
            return [], {folder.name: found}
    return files, {}


def _folder(asked: Path, config: EvaluateConfig, assistant: "Assistant") -> "AskedFolder":
    """The prompts of a folder. Raises UserError for a bad row, a prompt without room for an answer, scripts without enough turns."""
    from ..evaluation.asked import AskedFolder

    found = AskedFolder(asked, _most(config), assistant.demand_room)
    for name, scripts in found.scripts().items():
        if not _reached(config.ghost_turns, scripts):
            raise UserError(
                f"{asked / 'ghost.jsonl'}: no script of the set {name} has the {min(config.ghost_turns)} turns at which obedience is "
                "measured first; write longer ones, or lower --ghost-turns"
            )
    return found


def _reached(turns: Sequence[int], scripts: "Sequence[Script]") -> tuple[int, ...]:
    """Those of `turns` to which the longest script goes."""
    longest = max(len(script.users) for script in scripts)
    return tuple(turn for turn in turns if turn <= longest)


class Bench:
    """One model under test; `rows` gathers every judged answer, `dialogues` a few whole ones under constraints. There is no judge where
    nothing but earlier answers is scored."""

    def __init__(self, config: EvaluateConfig, assistant: "Assistant", judge: "Judge | None", asked: "Asked", seed: int):
        self.config, self.assistant, self.judge, self.asked, self.seed = config, assistant, judge, asked, seed
        self.rows: Rows = []
        self.dialogues: Rows = []

    def judged(self, task: Task, mode: Literal["sampled", "greedy"] = "sampled") -> Rows:
        """Answers to a task's prompts, judged and kept. Raises UserError when nobody judges."""
        from ..evaluation.judged import judged_rows

        if self.judge is None:
            raise UserError(f"{self.config.answers}: holds no sampled answers of the task {task}; add --judge to sample them")
        found = judged_rows(self.assistant, self.judge, self.asked.prompts(task), self.config.sampling, task, mode, self.seed)
        self.rows += found
        return found

    def sampled(self, task: Task) -> Rows:
        """Judged rows of a task: those of the earlier evaluation, those that are there already, or new ones."""
        there = self.rows
        if self.config.answers is not None:
            there = [row for _, row in read_rows(data_file(self.config.answers, "rows.jsonl"))]
        found = [row for row in there if row["task"] == task and row["mode"] == "sampled"]
        return found or self.judged(task)

    def samples(self) -> list[dict[str, str]]:
        """Greedy answers to a few fixed prompts, for people to read."""
        return [{"prompt": row["prompt"], "answer": row["answer"]} for row in self.judged("samples", "greedy")]


class _World:
    """The world's prompts, with the face of a folder's."""

    def __init__(self, config: EvaluateConfig):
        self.config, self.world = config, World(config.world)

    def prompts(self, task: str) -> "list[Prompt]":
        """Those of a task."""
        from ..data.records import parse_prompt

        rows = fixed_sample_prompts(self.world) if task == "samples" else test_prompts(self.world, self.config, task)
        return list(map(parse_prompt, rows))

    def scripts(self) -> "dict[str, list[Script]]":
        """Those of each set of constraints, all of as many turns as are measured."""
        from ..evaluation.asked import Script

        def script(made: ConstraintDialogue) -> Script:
            return Script(made.instruction, made.users, lambda answer: all(obeys(one, answer) for one in made.constraints))

        config, turns = self.config, max(self.config.ghost_turns)
        seed = seed_for(config.prompt_seed, "test", "ghost")
        return {
            name: [script(made) for made in constraint_dialogues(self.world, config.ghost_dialogues, seed, "test", name, (turns, turns))]
            for name in get_args(ConstraintSet)
        }


def test_prompts(world: World, config: EvaluateSettings, task: str) -> Rows:
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

    return helpfulness_report(bench.judged("helpfulness"), bench.judged("helpfulness", "greedy"))


def _safety(bench: Bench) -> Mapping[str, Any]:
    from ..evaluation.judged import safety_report

    return safety_report(bench.judged("safety"))


def _borderline(bench: Bench) -> Mapping[str, Any]:
    from ..evaluation.judged import refusal_report

    return refusal_report(bench.judged("borderline"))


def _people(bench: Bench) -> Mapping[str, Any]:
    from ..evaluation.judged import correct_share

    return {"unasked": correct_share(bench.judged("people"))}


def _ghost(bench: Bench) -> Mapping[str, Any]:
    from ..evaluation.attention import attention_map
    from ..evaluation.obedience import obedience_report, obedience_rows

    config, found = bench.config, {}
    for name, scripts in bench.asked.scripts().items():
        turns = _reached(config.ghost_turns, scripts)

        def check(index: int, answer: str, scripts: "Sequence[Script]" = scripts) -> bool:
            return scripts[index].obeys(answer)

        rows, dialogues = obedience_rows(
            bench.assistant, [script.instruction for script in scripts], [script.users for script in scripts], check,
            turns, config.ghost_sampling, seed_for(bench.seed, name),
        )  # fmt: skip
        found[name] = obedience_report(rows, turns)
        about = [{"id": script.id, "instruction": script.instruction} for script in scripts]
        bench.rows += [{"task": "ghost", "set": name, "mode": "sampled", **about[row.pop("dialogue")], **row} for row in rows]
        for script, dialogue in list(zip(scripts, dialogues, strict=True))[:SHOWN_DIALOGUES]:
            # One that broke off ends with a question.
            whole = dialogue if dialogue.last.role == "assistant" else Dialogue(dialogue.messages[:-1])
            if whole.turns:
                bench.dialogues.append({"set": name, "id": script.id, **whole.to_row(), **attention_map(bench.assistant, whole)})
    return found


def _rewards(bench: Bench) -> Mapping[str, Any] | None:
    """Mean probability that each reward model gives the sampled answers on its own kind of prompts."""
    from ..evaluation.judged import prompt_id
    from ..measures.calibration import sigmoid
    from ..reward.model import RewardModel

    found: dict[str, Any] = {}
    domains: tuple[tuple[Task, Path | None], ...] = (("helpfulness", bench.config.helpfulness), ("safety", bench.config.safety))
    for domain, path in domains:
        if path is None:
            continue
        prompts = {prompt_id(prompt): prompt.dialogue for prompt in bench.asked.prompts(domain)}
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


def _about(folder: Path, judge: "Judge", asked: "AskedFolder") -> dict[str, Any]:
    """Who judged, to how many answers it could give no score, and how many of the prompts it was trained on; null where that is not known."""
    from ..evaluation.real import TextJudge

    assert isinstance(judge, TextJudge)
    prompts = asked.all_prompts()
    seen = trained_on(folder, prompts)
    return {**about_judge(folder), "without_score": dict(judge.unscored), "asked_prompts": len(prompts), "trained_on": seen}


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
    if judge := artifact.metrics.get("judge"):
        seen = "an unknown number" if judge["trained_on"] is None else f"{judge['trained_on']:,}"
        parts.append(f"judged by {judge['name']}, which was trained on {seen} of the {judge['asked_prompts']:,} prompts")
    return ", ".join(parts) or "measured"
