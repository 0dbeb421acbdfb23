"""The miniature's texts as files: documents, demonstrations, and the prompts of every stage and version."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from ..core.artifacts import Artifact, building, open_artifact
from ..core.config import Config
from ..core.files import write_rows, write_text
from ..core.seeds import seed_for
from ..miniature.constraints import constraint_dialogues
from ..miniature.demonstrations import DemonstrationConfig, demonstrations
from ..miniature.documents import BLOCKED_HOSTS, documents
from ..miniature.preprompts import preprompts
from ..miniature.prompts import fixed_sample_prompts, helpfulness_prompts, safety_prompts
from ..miniature.questions import Split
from ..miniature.world import World, WorldConfig


class WorldStageConfig(Config):
    """The world and how much of it is written."""

    world: WorldConfig = WorldConfig()
    """Its facts and what is held out."""
    demonstrations: DemonstrationConfig = DemonstrationConfig()
    """What the supervised answers are like."""
    documents: int = Field(60_000, ge=1)
    """Documents before cleaning."""
    dialogues: int = Field(8000, ge=1)
    """Supervised dialogues."""
    versions: int = Field(5, ge=1)
    """Versions V1 to Vn, each with fresh prompts."""
    helpfulness_pairs: int = Field(700, ge=2)
    """Prompts of each version's helpfulness comparisons."""
    safety_pairs: int = Field(400, ge=2)
    """Prompts of each version's safety comparisons."""
    rejection_prompts: int = Field(300, ge=1)
    """Prompts of each version's rejection sampling."""
    safety_share: float = Field(0.4, ge=0, le=1)
    """Share of safety prompts in rejection sampling and PPO."""
    ppo_prompts: int = Field(1000, ge=2)
    """Prompts of PPO."""
    held_out_prompts: int = Field(100, ge=1)
    """Tuning prompts that PPO's early stop looks at."""
    best_of_prompts: int = Field(100, ge=1)
    """Test prompts on which best-of-N is judged."""
    ghost_dialogues: int = Field(400, ge=1)
    """Scripts for Ghost Attention."""
    ghost_turns: tuple[int, int] = (3, 12)
    """Least and most turns of a script."""
    distilled_prompts: int = Field(500, ge=1)
    """Adversarial prompts for context distillation."""
    harmless_prompts: int = Field(500, ge=0)
    """Harmless prompts mixed in with their own answers."""
    distilled_tests: int = Field(200, ge=1)
    """Held-out adversarial prompts on which distillation is judged."""

    @field_validator("ghost_turns")
    @classmethod
    def _in_order(cls, turns: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= turns[0] <= turns[1]:
            raise ValueError(f"given {list(turns)}, expected the least and the most turns, such as [3, 12]")
        return turns


def run(config: WorldStageConfig, out: Path, seed: int) -> Artifact:
    """Writes everything that the recipe reads. Raises UserError when the world has too few different prompts."""
    world = World(config.world)
    with building(out, kind="corpus", stage="world", config=config, parents={}, seed=seed) as place:
        counts = {
            "documents.jsonl": write_rows(place.folder / "documents.jsonl", documents(world, config.documents, seed_for(seed, "documents")))
        }
        write_text(place.folder / "blocked-hosts.txt", "".join(f"{host}\n" for host in BLOCKED_HOSTS))
        supervised = demonstrations(world, config.dialogues, seed_for(seed, "demonstrations"), config.demonstrations)
        for name, rows in {"demonstrations.jsonl": supervised, **prompt_files(world, config, seed)}.items():
            counts[name] = write_rows(place.folder / name, rows)
        place.metrics.update(counts=counts)
    return open_artifact(out, "corpus")


def prompt_files(world: World, config: WorldStageConfig, seed: int) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Rows of every prompt file, by name. Raises UserError when the world has too few different prompts."""

    def mixed(name: str, count: int, split: Split) -> list[dict[str, Any]]:
        safety = round(config.safety_share * count)
        helpful = helpfulness_prompts(world, count - safety, seed_for(seed, name, "helpfulness"), split, harmful_share=0.0)
        return helpful + safety_prompts(world, safety, seed_for(seed, name, "safety"), split)

    files: dict[str, Sequence[Mapping[str, Any]]] = {}
    for version in range(1, config.versions + 1):
        helpful = helpfulness_prompts(world, config.helpfulness_pairs, seed_for(seed, version, "pairs"), "train")
        safety = safety_prompts(world, config.safety_pairs, seed_for(seed, version, "pairs"), "train")
        files[f"v{version}-helpfulness.jsonl"] = helpful
        files[f"v{version}-safety.jsonl"] = safety
        files[f"v{version}-rejection.jsonl"] = mixed(f"v{version}-rejection", config.rejection_prompts, "train")
    files["ppo.jsonl"] = mixed("ppo", config.ppo_prompts, "train")
    files["held-out.jsonl"] = mixed("held-out", config.held_out_prompts, "tune")
    files["best-of.jsonl"] = mixed("best-of", config.best_of_prompts, "test")
    scripts = constraint_dialogues(world, config.ghost_dialogues, seed_for(seed, "ghost"), "train", turns=config.ghost_turns, combined=0.1)
    files["ghost.jsonl"] = [{"instruction": script.instruction, "users": list(script.users)} for script in scripts]
    files["distil.jsonl"] = _with_preprompts(world, config.distilled_prompts, seed_for(seed, "distil"), "train")
    files["distil-test.jsonl"] = _with_preprompts(world, config.distilled_tests, seed_for(seed, "distil"), "test")
    files["harmless.jsonl"] = helpfulness_prompts(world, config.harmless_prompts, seed_for(seed, "harmless"), "train", harmful_share=0.0)
    files["samples.jsonl"] = fixed_sample_prompts(world)
    return files


def _with_preprompts(world: World, count: int, seed: int, split: Split) -> list[dict[str, Any]]:
    """Adversarial prompts, every other one with a preprompt of its risk category, the rest with a generic one."""
    texts = preprompts(world, seed)
    rows = safety_prompts(world, count, seed, split, borderline_share=0.0, harmless_share=0.0, unseen=1.0 if split == "test" else 0.0)
    found = []
    for index, row in enumerate(rows):
        choices = texts.by_category[row["category"]] if index % 2 else texts.generic
        found.append({**row, "preprompt": choices[index // 2 % len(choices)]})
    return found


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    counts = artifact.metrics["counts"]
    prompts = sum(count for name, count in counts.items() if name not in ("documents.jsonl", "demonstrations.jsonl"))
    return f"{counts['documents.jsonl']:,} documents, {counts['demonstrations.jsonl']:,} demonstrations, {prompts:,} prompts"
