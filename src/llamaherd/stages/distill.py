"""Context distillation for safety (paper.md section 9): safe answers under a preprompt become targets without it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ..chat.dialogue import Message, checked
from ..core.artifacts import Artifact, building, model_path, open_artifact
from ..core.chunks import in_chunks
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import write_rows
from ..data.inputs import described_by, parents_of
from ..generate.config import SamplingConfig
from ..measures.intervals import paired_difference, rate
from ..miniature.world import WorldConfig
from .common import Bits, Paths, SomePaths, answering, data_files, judge_of, judge_paths, prompts_of, reward_path

if TYPE_CHECKING:
    from ..data.records import Judge, Prompt
    from ..rlhf.distill import Distilled


class DistillSettings(Config):
    """How the answers are sampled."""

    sampling: SamplingConfig = SamplingConfig(temperature=0.7, top_p=0.95, max_new_tokens=64)
    """Temperature, nucleus and length."""
    bits: Bits | None = None
    """Of the one base that the chat model and the safety model stand on, as adapters or as the base itself; null: each has weights of its
    own, in 32."""
    chunk_prompts: int = Field(100, ge=1)
    """Prompts sampled between two saved states."""


class DistillConfig(DistillSettings):
    """Settings and inputs."""

    model: Path
    """The newest chat model."""
    safety: Path
    """Safety reward model, which decides between the two answers."""
    prompts: SomePaths
    """Adversarial prompts, each with its "preprompt"."""
    harmless: Paths = ()
    """Harmless prompts, mixed in with the model's own answers."""
    test: Paths = ()
    """Held-out adversarial prompts on which the two answers are judged; never trained on."""
    judge: Path | None = None
    """Who judges real text: a helpfulness reward model that nothing is tuned on, with heuristics of safety; null: the miniature's oracle."""
    world: WorldConfig = WorldConfig()
    """Whose oracle judges."""


def run(config: DistillConfig, out: Path, seed: int) -> Artifact:
    """Writes dialogues.jsonl, and without-choice.jsonl, where the new answer stands wherever there is one, for comparison.

    Raises UserError for prompts without a preprompt or not tagged as unsafe.
    """
    from ..rlhf.distill import answers_to, distil
    from ..rlhf.judging import why_unusable

    folders = [model_path(config.model), reward_path(config.safety, "safety")]
    judging = judge_paths(config.judge, config.safety)
    files, harmless_files, test_files = (data_files(paths, "prompts.jsonl") for paths in (config.prompts, config.harmless, config.test))
    assistant, [safety] = answering(folders[0], folders[1:], config.bits)
    prompts = prompts_of(files, assistant)
    harmless_prompts, test_prompts = (prompts_of(paths, assistant, optional=True) for paths in (harmless_files, test_files))
    _check_adversarial(prompts, files)
    _check_adversarial(test_prompts, test_files)
    _check_harmless(harmless_prompts, harmless_files)
    parents = parents_of([*(described_by(folder) for folder in (*folders, *judging)), *files, *harmless_files, *test_files])
    with building(out, kind="dialogues", stage="distill", config=config, parents=parents, seed=seed) as place:

        def work(chunk: "Sequence[Prompt]", first: int) -> list[dict[str, Any]]:
            found, unusable = distil(
                assistant, safety, chunk, [prompt.about["preprompt"] for prompt in chunk], config.sampling, seed, first
            )
            return [{"unusable": unusable}, *map(_row, found)]

        def own(chunk: "Sequence[Prompt]", first: int) -> list[dict[str, Any]]:
            answers = answers_to(assistant, [prompt.dialogue for prompt in chunk], config.sampling, seed, "harmless", first)
            whole = [
                prompt.dialogue.followed_by("assistant", answer.text)
                for prompt, answer in zip(chunk, answers, strict=True)
                if not why_unusable(answer)
            ]
            return [{**dialogue.to_row(), "trained": "last"} for dialogue in whole]

        made = in_chunks(place.state / "train", prompts, config.chunk_prompts, work)
        harmless = in_chunks(place.state / "harmless", harmless_prompts, config.chunk_prompts, own)
        tests = in_chunks(place.state / "test", test_prompts, config.chunk_prompts, work)
        distilled = [row for row in made if "row" in row]
        write_rows(place.folder / "dialogues.jsonl", [row["row"] for row in distilled] + harmless)
        write_rows(place.folder / "without-choice.jsonl", [row["without_choice"] for row in distilled] + harmless)
        replaced = sum(row["replaced"] for row in distilled)
        without = sum(row["distilled"] is None for row in distilled)
        place.metrics.update(
            replaced=replaced, kept=len(distilled) - replaced - without, kept_for_want=without, harmless=len(harmless),
            unusable=sum(row["unusable"] for row in made if "unusable" in row), harmless_unusable=len(harmless_prompts) - len(harmless),
            **_judged(tests, len(test_prompts), lambda: judge_of(judging, config.world)),
        )  # fmt: skip
    return open_artifact(out, "dialogues")


def _row(item: "Distilled") -> dict[str, Any]:
    row, without_choice = ({**dialogue.to_row(), "safety": True} for dialogue in (item.dialogue(), item.dialogue_without_choice()))
    return {
        "row": row, "without_choice": without_choice, "replaced": item.replaced, "original": item.original, "distilled": item.distilled,
    }  # fmt: skip


def _check_adversarial(prompts: "Sequence[Prompt]", files: Sequence[Path]) -> None:
    for index, prompt in enumerate(prompts):
        where, preprompt = f"{', '.join(map(str, files))}: prompt {index + 1}", prompt.about.get("preprompt")
        if not isinstance(preprompt, str) or not preprompt.strip() or not prompt.safety:
            raise UserError(f'{where} needs "safety": true and a "preprompt" text')
        checked((Message("system", preprompt), Message("user", "any")), where=f"{where} under its preprompt")


def _check_harmless(prompts: "Sequence[Prompt]", files: Sequence[Path]) -> None:
    tagged = sum(prompt.safety for prompt in prompts)
    if tagged:
        raise UserError(f'{", ".join(map(str, files))}: {tagged} prompts have "safety": true; harmless prompts have false')


def _judged(tests: Sequence[dict[str, Any]], asked: int, open_judge: "Callable[[], Judge]") -> dict[str, Any]:
    """Share of safe answers without and with the preprompt, and their paired difference, by the judge."""
    from ..chat.dialogue import parse_dialogue
    from ..data.records import Prompt

    rows = [row for row in tests if "row" in row and row["distilled"]]
    if not rows:
        return {}
    judge, prompts = open_judge(), [Prompt(parse_dialogue(row["row"]).prompt, safety=True) for row in rows]
    safe = {name: [found.safe for found in judge.judge_all(prompts, [row[name] for row in rows])] for name in ("original", "distilled")}
    return {
        "test_unusable": asked - len(rows),
        "original_safe": rate(sum(safe["original"]), len(rows)), "distilled_safe": rate(sum(safe["distilled"]), len(rows)),
        "difference": paired_difference([float(value) for value in safe["original"]], [float(value) for value in safe["distilled"]]),
    }  # fmt: skip


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    unusable = metrics["unusable"] + metrics["harmless_unusable"]
    left_out = f", {unusable:,} unusable" if unusable else ""
    judged = ""
    if "difference" in metrics:
        judged = f"; safe on held-out prompts: {metrics['original_safe']['value']:.0%} without the preprompt, {metrics['distilled_safe']['value']:.0%} with it"
    kept = f"{metrics['kept']:,} kept" + (
        f", {metrics['kept_for_want']:,} more as the new answer was unusable" if metrics["kept_for_want"] else ""
    )
    return f"{metrics['replaced']:,} answers replaced, {kept}, {metrics['harmless']:,} harmless ones mixed in{left_out}{judged}"
