"""What is examined: a run, a folder of artifacts, or one artifact; its files read as the stages write them, its inputs found again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..chat.dialogue import Dialogue
from ..core.artifacts import MANIFEST, METRICS, Artifact, find_artifact, resolve
from ..core.errors import UserError
from ..core.files import read_rows
from ..core.metrics import read_metrics
from ..data.importers import BadRows, import_dialogues

ROWS = ("preferences.jsonl", "prompts.jsonl", "dialogues.jsonl")
"""By which a folder of rows without a manifest is known."""

LEFT = (METRICS, "samples.jsonl", "rows.jsonl", "shards.json")
"""By which a folder is known whose manifest is gone."""

Row = dict[str, Any]


def value_of(number: Any) -> float | None:
    """A plain number, or a figure's value; None for anything else."""
    if isinstance(number, Mapping):
        number = number.get("value")
    return float(number) if isinstance(number, (int, float)) and not isinstance(number, bool) else None


def series(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """The finite numbers under a key of a training's log."""
    return [found for row in rows if (found := value_of(row.get(key))) is not None]


@dataclass
class Patient:
    """Artifacts by name in the order in which they were made."""

    path: Path
    artifacts: Mapping[str, Artifact]
    run: bool
    """Whether this is a folder of artifacts, and not one alone."""
    cache: dict[Any, Any] = field(default_factory=dict)
    """What several looks need and is read once."""
    damaged: dict[Path, str] = field(default_factory=dict)
    """Files that could not be read, with what was said then; to the looks they are missing."""

    def of(self, *stages: str) -> Iterator[tuple[str, Artifact]]:
        """Name and artifact of those that these stages made."""
        yield from ((name, one) for name, one in self.artifacts.items() if one.manifest.get("stage") in stages)

    def rows(self, artifact: Artifact, file: str) -> list[Row]:
        """Rows of an artifact's file; none where it is missing or damaged."""
        return self.read(artifact.path / file)

    def read(self, path: Path) -> list[Row]:
        """Rows of a file, read once; none where it is missing or damaged."""
        return self._readable(path, lambda: [row for _, row in read_rows(path)] if path.is_file() else [])

    def _readable(self, path: Path, read: Callable[[], list[Row]]) -> list[Row]:
        if path not in self.cache:
            self.cache[path] = []
            try:
                self.cache[path] = read()
            except UserError as error:
                self.damaged[path] = str(error)
        found: list[Row] = self.cache[path]
        return found

    def dialogues(self, path: Path, bad_rows: BadRows = "refuse") -> list[tuple[Dialogue, Mapping[str, Any]]]:
        """Dialogues of a file with the rows they came from, read once. Raises UserError for a bad row."""
        if ("dialogues", path) not in self.cache:
            self.cache["dialogues", path] = import_dialogues(path, bad_rows).dialogues
        found: list[tuple[Dialogue, Mapping[str, Any]]] = self.cache["dialogues", path]
        return found

    def log(self, artifact: Artifact) -> list[Row]:
        """Lines of an artifact's training; none where they are damaged."""
        path = artifact.path / METRICS
        rows = self._readable(path, lambda: read_metrics(path))
        if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
            self.damaged.setdefault(path, f"{path}: ends in the middle of a line")
        return rows

    @cached_property
    def unfinished(self) -> list[str]:
        """Builds that something interrupted."""
        return sorted(entry.name for entry in self.path.glob("*.partial")) if self.run else []

    def parent(self, artifact: Artifact, given: Any) -> Artifact | None:
        """The artifact that a setting such as `model` names: beside this one, where a run that was moved has it, or where it says."""
        found = self._folder(artifact, str(given)) if given else None
        if found is None:
            return None
        try:
            return find_artifact(found)
        except UserError as error:
            self.damaged[found / MANIFEST] = str(error)
            return None

    def name_of(self, given: Any) -> str:
        """How an artifact that a setting names is called in its run."""
        return str(given).replace("\\", "/").rstrip("/").rpartition("/")[2].rpartition(":")[2]

    def files(self, artifact: Artifact, key: str, name: str) -> tuple[list[Path], list[str]]:
        """The files behind a setting, `name` being that of a folder's; and those that are not there any more."""
        given = artifact.manifest.get("config", {}).get(key) or []
        found, missing = [], []
        for one in [given] if isinstance(given, str) else given:
            path = self._file(artifact, str(one), name)
            if path:
                found.append(path)
            else:
                missing.append(str(one))
        return found, missing

    def _folder(self, artifact: Artifact, given: str) -> Path | None:
        beside = artifact.path.resolve().parent
        # What the claims need beyond a run lies in a folder within it.
        places = [beside / self.name_of(given), beside.parent / self.name_of(given), Path(given)]
        head, colon, name = given.rpartition(":")
        places += [Path(head) / name] if colon and head else []
        # A model may have the name of the one that it was made of.
        return next((place for place in places if place.is_dir() and place.resolve() != artifact.path.resolve()), None)

    def _file(self, artifact: Artifact, given: str, name: str) -> Path | None:
        beside, path = artifact.path.resolve().parent, Path(given)
        places = [beside / path.parent.name / path.name, beside.parent / path.parent.name / path.name, path, beside / path.name]
        folder = self._folder(artifact, given)
        places += [folder / name] if folder else []
        return next((place for place in places if place.is_file()), None)


def open_patient(spec: str | Path) -> Patient:
    """What a folder, or RUN:NAME, holds. Raises UserError when there is nothing to examine, or nothing that can be."""
    path = Path(spec) if Path(spec).is_dir() else resolve(spec)
    if one := _artifact(path):
        return Patient(path, {path.resolve().name: one}, run=False)
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and entry.suffix != ".partial")
    found, damaged = dict[str, Artifact](), dict[Path, str]()
    for folder in folders:
        try:
            one = _artifact(folder)
        except UserError as error:
            damaged[folder / MANIFEST] = str(error)
            continue
        if one:
            found[folder.name] = one
        elif any((folder / name).is_file() for name in LEFT):
            damaged[folder / MANIFEST] = f"{folder}: has no {MANIFEST}, which says what it is"
    begun = (path / "recipe.json").is_file() or any(path.glob("*.partial"))
    if not found and not damaged and not begun:
        raise UserError(
            f"{path}: holds nothing that llamaherd made; expected a run, or a folder with {', '.join(('manifest.json', *ROWS))}"
        )
    ordered = sorted(found, key=lambda name: (str(found[name].manifest.get("started", "")), name))
    return Patient(path, {name: found[name] for name in ordered}, run=True, damaged=damaged)


def _artifact(folder: Path) -> Artifact | None:
    """What a stage made, or rows of preferences that people brought along."""
    if one := find_artifact(folder):
        return one
    if (folder / "preferences.jsonl").is_file():
        return Artifact(folder, {"kind": "preferences", "stage": "collect", "hash": ""})
    return None
