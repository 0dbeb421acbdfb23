"""Collecting preferences (paper.md section 4): two answers from two model variants, compared by annotators."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ..core.artifacts import Artifact, building, model_path, open_artifact
from ..core.chunks import in_chunks
from ..core.config import Config
from ..core.files import write_rows
from ..core.seeds import python_rng, seed_for
from ..data.inputs import described_by, parents_of
from ..data.records import DOMAINS, GRADES
from ..generate.config import SamplingConfig
from ..measures.intervals import Figure, rate
from ..miniature.annotator import AnnotatorConfig, NoisyAnnotator
from ..miniature.oracle import Oracle
from ..miniature.world import World, WorldConfig
from .common import SomePaths, data_files, prompts_of

if TYPE_CHECKING:
    from ..assistant.local import Assistant
    from ..chat.dialogue import Dialogue
    from ..data.records import Domain, Preference, Prompt


Temperature = Annotated[float, Field(ge=0)]


CHUNK_PROMPTS = 256
"""Prompts sampled between two saved states."""


class CollectSettings(Config):
    """How comparisons are collected."""

    temperatures: tuple[Temperature, Temperature] = (0.8, 1.2)
    """The two temperatures; which model gets which is drawn for each pair."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Nucleus of both."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer."""
    test_share: float = Field(0.15, ge=0, lt=1)
    """Share of prompts whose comparisons are held out for testing reward models, the same ones in every batch."""
    annotator: AnnotatorConfig = AnnotatorConfig()
    """The miniature's annotators."""


class CollectConfig(CollectSettings):
    """Settings and inputs."""

    newest: Path
    """The newest chat model."""
    previous: Path
    """The one before it; both sample, so that a regression shows."""
    helpfulness: SomePaths
    """Prompts judged by helpfulness."""
    safety: SomePaths
    """Prompts judged by safety, with labels."""
    batch: str
    """Name of this weekly batch."""
    world: WorldConfig = WorldConfig()
    """Whose annotators judge."""


def run(config: CollectConfig, out: Path, seed: int) -> Artifact:
    """Writes preferences.jsonl and test.jsonl. Left out and counted: equal, empty, unfinished or tagged answers, and unsafe ones chosen over safe ones."""
    from ..assistant.local import Assistant
    from ..data.records import rows_of

    folders = [model_path(config.newest), model_path(config.previous)]
    files: dict[Domain, list[Path]] = {
        "helpfulness": data_files(config.helpfulness, "prompts.jsonl"),
        "safety": data_files(config.safety, "prompts.jsonl"),
    }
    variants = [Assistant.load(folder) for folder in folders]
    prompts = {domain: prompts_of(paths, *variants) for domain, paths in files.items()}
    annotator = NoisyAnnotator(Oracle(World(config.world)), config.annotator)
    parents = parents_of([*(described_by(folder) for folder in folders), *(file for paths in files.values() for file in paths)])
    with building(out, kind="preferences", stage="collect", config=config, parents=parents, seed=seed) as place:
        kept: list[tuple[Preference, float]] = []
        dropped = {"equal": 0, "empty": 0, "unfinished": 0, "tag": 0, "unsafe chosen over safe": 0}
        for domain, asked in prompts.items():
            rows = in_chunks(place.state / domain, asked, CHUNK_PROMPTS, _sampler(variants, config, seed_for(seed, domain)))
            pairs = [(prompt, row) for prompt, row in zip(asked, rows, strict=True) if not _count_unusable(row, dropped)]
            judged = [
                _compare(annotator, domain, prompt, row, config.batch, seed_for(seed, domain, index))
                for index, (prompt, row) in enumerate(pairs)
            ]
            kept += [(preference, agrees) for preference, agrees in judged if not _contradicts(preference, dropped)]
        held = [(row, agrees) for row, agrees in kept if _is_test(row.prompt, config.test_share)]
        everything = [row for row, _ in kept]
        write_rows(place.folder / "preferences.jsonl", rows_of(row for row in everything if not _is_test(row.prompt, config.test_share)))
        write_rows(place.folder / "test.jsonl", rows_of(row for row, _ in held))
        place.metrics.update(
            comparisons=len(kept), test=len(held), dropped=dropped, agreement={domain: _agreement(held, domain) for domain in DOMAINS},
            models=[folder.name for folder in folders], newest_won=rate(*_wins(everything, variants[0].name)),
        )  # fmt: skip
    return open_artifact(out, "preferences")


def _is_test(prompt: "Dialogue", share: float) -> bool:
    # By the prompt alone: batches of other versions may ask it again, and their comparisons must fall on the same side.
    return python_rng(0, "test", *(message.content for message in prompt.messages)).random() < share


def _sampler(variants: "Sequence[Assistant]", config: CollectConfig, seed: int) -> Any:
    """Samples both answers of a chunk of prompts: rows of two {"model", "temperature", "text", "unusable"}."""
    from ..rlhf.judging import why_unusable

    def sample(prompts: "Sequence[Prompt]", first: int) -> list[dict[str, Any]]:
        order = [python_rng(seed, "temperatures", first + index).random() < 0.5 for index in range(len(prompts))]
        rows: list[dict[str, Any]] = [{"answers": []} for _ in prompts]
        for number, variant in enumerate(variants):
            for swapped in (False, True):
                chosen = [index for index in range(len(prompts)) if order[index] == swapped]
                temperature = config.temperatures[number if not swapped else 1 - number]
                sampling = SamplingConfig(temperature=temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens)
                seeds = [seed_for(seed, "answer", number, first + index) for index in chosen]
                answers = variant.answers([prompts[index].dialogue for index in chosen], sampling, seeds) if chosen else []
                for index, answer in zip(chosen, answers, strict=True):
                    rows[index]["answers"].append(
                        {"model": variant.name, "temperature": temperature, "text": answer.text, "unusable": why_unusable(answer)}
                    )
        return rows

    return sample


def _count_unusable(row: dict[str, Any], dropped: dict[str, int]) -> bool:
    first, second = row["answers"]
    why = first["unusable"] or second["unusable"] or ("equal" if first["text"].strip() == second["text"].strip() else None)
    if why is not None:
        dropped[why] += 1
    return why is not None


def _compare(
    annotator: NoisyAnnotator, domain: "Domain", prompt: "Prompt", row: dict[str, Any], batch: str, seed: int
) -> "tuple[Preference, float]":
    """The comparison, and whether the annotator chose as it would without noise: 1, 0, or a half where that is a tie."""
    from ..data.records import Preference

    rng = random.Random(seed)
    # Which model answers first must not decide a tie.
    first, second = rng.sample(row["answers"], 2)
    texts = (first["text"], second["text"])
    choice = annotator.compare(prompt.dialogue, texts, domain, rng)
    noiseless = annotator.difference(prompt.dialogue, texts, domain)
    chosen, rejected = (first, second) if choice.chosen == 0 else (second, first)
    safe = (None, None) if choice.safe is None else (choice.safe[choice.chosen], choice.safe[1 - choice.chosen])
    preference = Preference(
        prompt.dialogue, chosen["text"], rejected["text"], choice.grade, domain, chosen_safe=safe[0], rejected_safe=safe[1],
        source="sampled", annotator=annotator.name, batch=batch, chosen_model=chosen["model"],
        chosen_temperature=chosen["temperature"], rejected_model=rejected["model"], rejected_temperature=rejected["temperature"],
    )  # fmt: skip
    return preference, 0.5 if noiseless == 0 else float((noiseless > 0) == (choice.chosen == 0))


def _agreement(judged: "Sequence[tuple[Preference, float]]", domain: "Domain") -> dict[str, Figure]:
    """How often the annotator chose as it would without noise, in all and by grade: the ceiling of a reward model's accuracy."""
    own = [(row.grade, agrees) for row, agrees in judged if row.domain == domain]
    groups: dict[str, list[float]] = {"all": [agrees for _, agrees in own]}
    groups |= {grade: [agrees for found, agrees in own if found == grade] for grade in GRADES}
    return {name: rate(sum(some), len(some)) for name, some in groups.items()}


def _contradicts(preference: "Preference", dropped: dict[str, int]) -> bool:
    dropped["unsafe chosen over safe"] += preference.contradicts
    return preference.contradicts


def _wins(preferences: "Sequence[Preference]", newest: str) -> tuple[int, int]:
    """Comparisons that the newest model won, of those between different models."""
    between = [row for row in preferences if row.chosen_model != row.rejected_model]
    return sum(row.chosen_model == newest for row in between), len(between)


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    dropped = ", ".join(f"{count} {name}" for name, count in metrics["dropped"].items() if count)
    won = metrics["newest_won"]["value"]
    share = f", {metrics['models'][0]} won {won:.0%}" if won is not None else ""
    return f"{metrics['comparisons']:,} comparisons{share}" + (f"; left out: {dropped}" if dropped else "")
