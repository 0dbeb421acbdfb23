"""Ghost Attention (paper.md section 7): scripts with an instruction to dialogues that join the next tuning mix."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ..core.artifacts import Artifact, building, model_path, open_artifact
from ..core.chunks import in_chunks
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import read_rows, write_rows
from ..data.inputs import described_by, parents_of
from ..generate.config import SamplingConfig
from .common import Bits, SomePaths, answering, data_files


class GhostSettings(Config):
    """How the answers are sampled."""

    sampling: SamplingConfig = SamplingConfig(temperature=0.7, top_p=0.95, max_new_tokens=64)
    """Temperature, nucleus and length."""
    bits: Bits | None = None
    """Of the base that the chat model is, or stands on as an adapter; null: 32."""
    chunk_scripts: int = Field(100, ge=1)
    """Scripts sampled between two saved states."""


class GhostConfig(GhostSettings):
    """Settings and inputs."""

    model: Path
    """The newest chat model."""
    scripts: SomePaths
    """JSON lines of {"instruction", "users": [...]}."""


def run(config: GhostConfig, out: Path, seed: int) -> Artifact:
    """Writes dialogues.jsonl. Raises UserError for a bad script."""
    from ..rlhf.ghost import Script, check_script, ghost_dialogues

    folder = model_path(config.model)
    files = data_files(config.scripts, "scripts.jsonl")
    scripts = []
    for file in files:
        for number, row in read_rows(file):
            scripts.append(Script(*_script(row, f"{file} line {number}")))
            check_script(scripts[-1], f"{file} line {number}")
    if not scripts:
        raise UserError(f"no script in {', '.join(map(str, files))}; give a file with at least one")
    with building(
        out, kind="dialogues", stage="ghost", config=config, parents=parents_of([described_by(folder), *files]), seed=seed
    ) as place:
        assistant, _ = answering(folder, [], config.bits)

        def sample(chunk: Sequence[Script], first: int) -> list[dict[str, Any]]:
            made = ghost_dialogues(assistant, chunk, config.sampling, seed, first)
            return [{"dropped": made.dropped}, *(dialogue.to_row() for dialogue in made.dialogues)]

        rows = in_chunks(place.state, scripts, config.chunk_scripts, sample)
        counts = [row["dropped"] for row in rows if "dropped" in row]
        dropped = {reason: sum(count[reason] for count in counts) for reason in counts[0]}
        dialogues = [row for row in rows if "messages" in row]
        if not dialogues:
            shutil.rmtree(place.state)  # other settings may be tried in the same place
            raise UserError(
                f"no Ghost Attention dialogue is left of {len(scripts)} scripts: {dropped}; raise max_new_tokens or the context, or shorten the scripts"
            )
        write_rows(place.folder / "dialogues.jsonl", dialogues)
        turns = sum(len(row["messages"]) // 2 for row in dialogues) / len(dialogues)
        place.metrics.update(dialogues=len(dialogues), mean_turns=turns, dropped=dropped)
    return open_artifact(out, "dialogues")


def _script(row: dict[str, Any], where: str) -> tuple[str, tuple[str, ...]]:
    instruction, users = row.get("instruction"), row.get("users")
    if not isinstance(instruction, str) or not isinstance(users, list) or not users or not all(isinstance(text, str) for text in users):
        raise UserError(f'{where}: expected {{"instruction": text, "users": [text, ...]}}')
    return instruction, tuple(users)


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    dropped = ", ".join(f"{count} {name}" for name, count in metrics["dropped"].items() if count)
    return f"{metrics['dialogues']:,} dialogues of {metrics['mean_turns']:.1f} turns" + (f"; left out: {dropped}" if dropped else "")
