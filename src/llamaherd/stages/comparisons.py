"""People's comparisons from the public files: what reward models train on, what they are tested on, and what a judge apart trains on."""

from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from ..core.artifacts import Artifact, building, open_artifact
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import write_rows
from ..data.inputs import parents_of
from ..data.public import comparisons as people
from ..data.public.sources import public_files, public_folder
from ..data.records import DOMAINS, Preference, rows_of

Share = Annotated[float, Field(gt=0, lt=1)]


class ComparisonsSettings(Config):
    """How the comparisons are divided."""

    test: Share = 0.15
    """Share of the first messages of every source whose comparisons reward models are tested on."""
    judge: Share = 0.25
    """Share of the first messages of helpfulness whose comparisons train the judge, and nothing else."""
    most: int | None = Field(None, ge=20)
    """At most so many comparisons of each domain; null: all."""

    @model_validator(mode="after")
    def _leaves_some(self) -> "ComparisonsSettings":
        if self.test + self.judge >= 1:
            raise ValueError(f"test {self.test} and judge {self.judge} leave nothing to train on; expected less than 1 together")
        return self


class ComparisonsConfig(ComparisonsSettings):
    """Settings and inputs."""

    data: Path | None = None
    """Folder of the public files; null: the variable LLAMAHERD_DATA."""


def run(config: ComparisonsConfig, out: Path, seed: int) -> Artifact:
    """Writes helpfulness.jsonl and safety.jsonl, both with -test.jsonl, and judge.jsonl.

    Raises UserError that names the files which are absent, or when a part is empty.
    """
    files = public_files(public_folder(config.data), [file for file, _ in people.SETS.values()])
    with building(out, kind="preferences", stage="comparisons", config=config, parents=parents_of(files.values()), seed=seed) as place:
        found, left_out = list[Preference](), dict[str, dict[str, int]]()
        for name, (file, _) in people.SETS.items():
            rows, without = people.comparisons(name, files[file], seed)
            found += rows
            left_out[name] = dict(without)
        rows = people.some_of(found, config.most, seed)
        written = dict[str, list[Preference]]()
        for row, part in zip(rows, people.parts_of(rows, config.test, config.judge, seed), strict=True):
            written.setdefault("judge" if part == "judge" else row.domain + ("-test" if part == "test" else ""), []).append(row)
        for name in [*DOMAINS, *(f"{domain}-test" for domain in DOMAINS), "judge"]:
            if name not in written:
                raise UserError(f"no comparison is left for {name} of {len(rows)} in all; raise most, or the shares of test and judge")
            write_rows(place.folder / f"{name}.jsonl", rows_of(written[name]))
        place.metrics.update(
            comparisons=len(rows), counts={f"{name}.jsonl": len(own) for name, own in written.items()},
            sources={f"{name}.jsonl": dict(Counter(row.source for row in own)) for name, own in written.items()},
            grades=people.grades_of(rows), left_out=left_out, not_taken=len(found) - len(rows),
        )  # fmt: skip
    return open_artifact(out, "preferences")


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    parts = ", ".join(f"{count:,} {name.removesuffix('.jsonl')}" for name, count in metrics["counts"].items())
    reasons = sum((Counter(found) for found in metrics["left_out"].values()), Counter[str]())
    without = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    return f"{metrics['comparisons']:,} comparisons: {parts}" + (f"; left out: {without}" if without else "")
