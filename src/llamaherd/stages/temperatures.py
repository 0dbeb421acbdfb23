"""Answers over temperatures (paper.md sections 6 and 12): how alike they are, and what the best of N of them earns."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ..core.artifacts import Artifact, building, model_path, open_artifact
from ..core.chunks import in_chunks
from ..core.config import Config
from ..core.files import write_rows
from ..core.seeds import seed_for
from ..data.inputs import described_by, parents_of
from ..generate.config import SamplingConfig
from ..measures.diversity import self_bleu
from ..measures.intervals import mean
from ..miniature.prompts import prompts
from ..miniature.world import Kind, World, WorldConfig
from .common import reward_path

if TYPE_CHECKING:
    from ..assistant.local import Assistant
    from ..reward.combine import Combination

KINDS: dict[str, Kind] = {"factual": "facts", "creative": "story"}
"""The paper's two sorts of prompts, and the miniature's kinds that stand for them."""


class TemperatureSettings(Config):
    """What is asked, and how often."""

    prompts: int = Field(10, ge=1)
    """Test prompts of each sort."""
    samples: int = Field(25, ge=2)
    """Answers to each prompt at each temperature."""
    temperatures: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4), min_length=1)
    """The paper has tenths up to 1.5."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer."""
    prompt_seed: int = 0
    """Draws the prompts: the same for every version of a run."""


class TemperatureConfig(TemperatureSettings):
    """Settings and inputs."""

    model: Path
    """A chat model."""
    helpfulness: Path
    """Helpfulness reward model."""
    safety: Path
    """Safety reward model."""
    world: WorldConfig = WorldConfig()
    """Whose prompts."""


def run(config: TemperatureConfig, out: Path, seed: int) -> Artifact:
    """Writes rows.jsonl, one row per prompt and temperature: Self-BLEU, and the highest reward among the first N answers.

    An answer that may not become data (empty, unfinished, with a tag) earns nothing. Raises UserError.
    """
    from ..assistant.local import Assistant
    from ..reward.combine import Combination
    from ..reward.model import RewardModel

    folders = [model_path(config.model), reward_path(config.helpfulness, "helpfulness"), reward_path(config.safety, "safety")]
    asked = test_prompts(World(config.world), config)
    parents = parents_of(described_by(folder) for folder in folders)
    with building(out, kind="samples", stage="temperatures", config=config, parents=parents, seed=seed) as place:
        assistant = Assistant.load(folders[0])
        rewards = Combination(RewardModel.load(folders[1]), RewardModel.load(folders[2]))

        def work(temperatures: Any, first: int) -> list[dict[str, Any]]:
            return [row for temperature in temperatures for row in _at(temperature, asked, config, assistant, rewards, seed)]

        rows = in_chunks(place.state, config.temperatures, 1, work)
        write_rows(place.folder / "rows.jsonl", rows)
        place.metrics.update(
            {
                sort: {str(at): mean([row["self_bleu"] for row in rows if (row["sort"], row["temperature"]) == (sort, at)])
                       for at in config.temperatures}
                for sort in KINDS
            }
        )  # fmt: skip
    return open_artifact(out, "samples")


def test_prompts(world: World, config: TemperatureSettings) -> list[dict[str, Any]]:
    """The prompts of both sorts. Raises UserError when the world has too few different ones."""
    return [
        {**row, "sort": sort}
        for sort, kind in KINDS.items()
        for row in prompts(world, config.prompts, seed_for(config.prompt_seed, sort), "test", {kind: 1.0}, multi_turn=0, framed=0, unseen=0)
    ]


def _at(
    temperature: float, asked: list[dict[str, Any]], config: TemperatureConfig, assistant: "Assistant", rewards: "Combination", seed: int
) -> list[dict[str, Any]]:
    from ..data.records import parse_prompt
    from ..evaluation.judged import prompt_id
    from ..measures.calibration import sigmoid
    from ..rlhf.judging import combined_logits

    parsed = [parse_prompt(row) for row in asked]
    repeated = [(prompt, draw) for prompt in parsed for draw in range(config.samples)]
    sampling = SamplingConfig(temperature=temperature, top_p=1.0, max_new_tokens=config.max_new_tokens)
    seeds = [seed_for(seed, "temperatures", prompt_id(prompt), draw) for prompt, draw in repeated]
    answers = assistant.answers([prompt.dialogue for prompt, _ in repeated], sampling, seeds)
    logits = combined_logits(rewards, [prompt for prompt, _ in repeated], answers)
    scores = [0.0 if logit is None else sigmoid(logit) for logit in logits]
    rows = []
    for index, prompt in enumerate(parsed):
        own = slice(index * config.samples, (index + 1) * config.samples)
        counts = sorted({*(2**power for power in range(config.samples.bit_length())), config.samples})
        rows.append({
            "id": prompt_id(prompt), "sort": prompt.about["sort"], "prompt": prompt.dialogue.asked, "temperature": temperature,
            "self_bleu": self_bleu([answer.text for answer in answers[own]]),
            "best_of": {str(count): max(scores[own][:count]) for count in counts},
        })  # fmt: skip
    return rows


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    curves = {sort: [(at, figure["value"]) for at, figure in figures.items()] for sort, figures in artifact.metrics.items()}
    parts = [f"{sort} {curve[0][1]:.2f} at {curve[0][0]} to {curve[-1][1]:.2f} at {curve[-1][0]}" for sort, curve in curves.items()]
    return f"Self-BLEU by temperature: {', '.join(parts)}"
