"""Real text from the public files: documents for pretraining, a held-out part of every source, and dialogues to tune on."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from ..core.artifacts import Artifact, building, open_artifact
from ..core.config import Config
from ..core.files import write_rows
from ..data.documents import Document
from ..data.inputs import parents_of
from ..data.public import demonstrations, documents
from ..data.public.sources import public_files, public_folder

Share = Annotated[float, Field(ge=0, lt=1)]


class TextsSettings(Config):
    """How much is read and kept apart."""

    held_out: dict[str, Share] = Field({"novels": 0.04, "wikitext": 0.05, "tinystories": 0.12, "c4": 0.1, "wikipedia": 0.1}, min_length=1)
    """Share of each source's books, articles, stories or pages that nothing is trained on; a source that is not named is not read."""
    most_groups: int | None = Field(None, ge=2)
    """At most so many books, articles ... of each file of a source; null: all."""
    safety_demonstrations: int = Field(500, ge=0)
    """Dialogues that answer an unsafe request safely."""
    most_dialogues: int | None = Field(None, ge=1)
    """At most so many dialogues; null: all."""
    most_characters: int = Field(1500, ge=50)
    """Longer dialogues are left out: those that the model's context could not hold."""

    @field_validator("held_out")
    @classmethod
    def _known(cls, shares: dict[str, float]) -> dict[str, float]:
        if unknown := [name for name in shares if name not in documents.FILES]:
            raise ValueError(f"no source {', '.join(unknown)}; expected some of {', '.join(documents.FILES)}")
        return shares


class TextsConfig(TextsSettings):
    """Settings and inputs."""

    data: Path | None = None
    """Folder of the public files; null: the variable LLAMAHERD_DATA."""


def run(config: TextsConfig, out: Path, seed: int) -> Artifact:
    """Writes documents.jsonl, held-out.jsonl and demonstrations.jsonl. Raises UserError that names the files which are absent."""
    folder = public_folder(config.data)
    sources = {source: public_files(folder, documents.FILES[source]) for source in config.held_out}
    tuning = public_files(folder, demonstrations.FILES)
    parents = parents_of([*(path for files in sources.values() for path in files.values()), *tuning.values()])
    with building(out, kind="corpus", stage="texts", config=config, parents=parents, seed=seed) as place:
        trained, held = list[Document](), list[Document]()
        for source, files in sources.items():
            found = [group for path in files.values() for group in islice(documents.groups(source, [path]), config.most_groups)]
            for part, more in zip((trained, held), documents.split(source, found, config.held_out[source], seed), strict=True):
                part += more
        dialogues, left_out = demonstrations.demonstrations(tuning, config.safety_demonstrations, config.most_characters, seed)
        write_rows(place.folder / "documents.jsonl", [document.to_row() for document in trained])
        write_rows(place.folder / "held-out.jsonl", [document.to_row() for document in held])
        counts = {"documents.jsonl": len(trained), "held-out.jsonl": len(held)}
        counts["demonstrations.jsonl"] = write_rows(place.folder / "demonstrations.jsonl", dialogues[: config.most_dialogues])
        place.metrics.update(
            counts=counts, left_out=dict(left_out), sources=dict(Counter(document.source for document in trained)),
            held_out=dict(Counter(document.source for document in held)),
        )  # fmt: skip
    return open_artifact(out, "corpus")


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    counts, left_out = artifact.metrics["counts"], artifact.metrics["left_out"]
    without = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)
    return (
        f"{counts['documents.jsonl']:,} documents, {counts['held-out.jsonl']:,} held out, {counts['demonstrations.jsonl']:,} demonstrations"
        + (f"; dialogues left out: {without}" if without else "")
    )
