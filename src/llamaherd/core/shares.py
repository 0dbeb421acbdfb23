"""Work shared out among processes, on one machine or many: each rank makes its own chunks, and the chunks of all are the whole.

A part is an artifact of its own at `OUT.parts/RANK-of-WORLD_SIZE`, so it is whole or absent, resumed like any other, and locked
against a second process with the same rank. Ranks never talk to each other. What is in a chunk does not depend on how many ranks
there are, so whoever comes later, with whatever world size, takes the chunks that are there and makes the others.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .artifacts import Workplace, check_files, find_artifact
from .config import Config
from .errors import UserError
from .files import read_json, read_rows, write_json

CHUNKS, TERMS = "chunks", "terms.json"
"""Where a part keeps what its rank made, and what it was made with."""
SHARED = ("rank", "world_size", "join")
"""Settings in which the parts of one whole differ."""

C = TypeVar("C", bound=Config)
T = TypeVar("T")
Work = Callable[[Sequence[T], int], list[dict[str, Any]]]


@dataclass(frozen=True)
class Share:
    """Every chunk whose number leaves `rank` when divided by `world_size`."""

    rank: int = 0
    world_size: int = 1

    def has(self, chunk: int) -> bool:
        return chunk % self.world_size == self.rank

    @property
    def whole(self) -> bool:
        return self.world_size == 1

    def place(self, out: Path) -> Path:
        """Where what this share makes of `out` goes."""
        return out if self.whole else parts_folder(out) / f"{self.rank}-of-{self.world_size}"

    def noted(self, config: C) -> C:
        """The settings as the manifest has them: of the whole without how it came together, so that either way goes on from the other."""
        return config.model_copy(update={"rank": None, "world_size": None, "join": False}) if self.whole else config


WHOLE = Share()


def share_of(rank: int | None, world_size: int | None, join: bool) -> Share:
    """From settings, else from RANK and WORLD_SIZE, which torchrun sets; whoever joins has the whole. Raises UserError."""
    if join:
        if rank is not None or world_size is not None:
            raise UserError("join takes the parts of all ranks; leave out rank and world_size")
        return WHOLE
    if (rank is None) != (world_size is None):
        raise UserError(f"rank is {rank} and world_size {world_size}; give both, or neither")
    if rank is None or world_size is None:
        rank, world_size = (_number(name, usual) for name, usual in (("RANK", 0), ("WORLD_SIZE", 1)))
    if not 0 <= rank < world_size:
        raise UserError(f"rank {rank} of {world_size}: expected a rank from 0 to one less than a world_size of at least 1")
    return Share(rank, world_size)


def _number(name: str, usual: int) -> int:
    text = os.environ.get(name, "")
    if text and not text.isdecimal():
        raise UserError(f"{name}={text}: expected a number, as torchrun sets it; unset it for one process")
    return int(text) if text else usual


def parts_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def chunk_name(first: int) -> str:
    """The file of the chunk that begins with that item."""
    return f"chunk-{first:08d}.jsonl"


@dataclass(frozen=True)
class Parts:
    """What others made, or are making, of the same whole."""

    folder: Path
    chunks: tuple[Path, ...]
    complete: bool
    """Whether nothing may be missing."""

    def work(self, name: str, make: Work[T]) -> Work[T]:
        """`make` for chunks that are nowhere yet. Raises UserError for such chunks where nothing may be missing."""

        def found_or_made(items: Sequence[T], first: int) -> list[dict[str, Any]]:
            for place in self.chunks:
                if (file := place / name / chunk_name(first)).is_file():
                    return [row for _, row in read_rows(file)]
            if self.complete:
                which = f"{name} {first + 1} to {first + len(items)}"
                raise UserError(f"{self.folder}: the part with {which} is missing or unfinished; run its rank, then join again")
            return make(items, first)

        return found_or_made


def parts_of(out: Path, place: Workplace, join: bool) -> Parts:
    """Those that lie beside `out`, finished or not. Raises UserError for parts of other settings, inputs or seeds, and for changed files."""
    folder, own = parts_folder(out), place.state.parent
    begun = [path for path in (out.with_name(f"{out.name}.partial"), *sorted(folder.glob("*-of-*.partial"))) if path != own]
    finished = [path for path in sorted(folder.glob("*-of-*")) if path.suffix != ".partial" and find_artifact(path)]
    if join and not finished:
        raise UserError(
            f"{folder}: no finished part is there; parts are made with --rank 0 --world-size 2 and --rank 1 --world-size 2, for two"
        )
    made = {path / CHUNKS: read_json(path / TERMS) for path in finished}
    made |= {path / "state": _terms(read_json(path / "begun.json")) for path in begun if (path / "begun.json").is_file()}
    expected = json.loads(json.dumps(_terms(place.made)))
    for chunks, terms in made.items():
        if differing := sorted(key for key in expected | terms if expected.get(key) != terms.get(key)):
            names = ", ".join(differing)
            raise UserError(
                f"{chunks.parent}: was made with other {names}; give what all parts were made with, or remove those that differ"
            )
    for path in finished:
        check_files(path, lambda _: True)
    return Parts(folder, tuple(made), join)


def keep_chunks(place: Workplace) -> None:
    """Puts the finished chunks of a rank into its part, with what they were made of."""
    shutil.copytree(place.state, place.folder / CHUNKS)
    write_json(place.folder / TERMS, _terms(place.made))


def _terms(made: Mapping[str, Any]) -> dict[str, Any]:
    """What all parts of one whole have in common, by name."""
    settings = {name: value for name, value in made["config"].items() if name not in SHARED}
    return {**settings, "inputs": made["parents"], "seed": made["seed"]}
