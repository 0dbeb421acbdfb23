"""Where a stage's input files come from, for its manifest: the artifacts that hold them, else the files themselves."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ..core.artifacts import Artifact, find_artifact
from ..core.errors import UserError
from .hub import name_of


def parents_of(files: Iterable[Path], **named: Artifact) -> dict[str, Artifact]:
    """Parents for a manifest: the named artifacts, then for each file the artifact in whose folder it lies, or itself.

    Raises UserError for a file that cannot be read.
    """
    found = dict(named)
    seen: set[Path] = set()
    for file in files:
        artifact = find_artifact(file.parent)
        path = file.parent if artifact else file
        if path not in seen:
            seen.add(path)
            found[path.name if path.name not in found else path.as_posix()] = artifact or _plain(file)
    return found


def _plain(file: Path) -> Artifact:
    try:
        with file.open("rb") as content:
            known = {"kind": "file", "hash": hashlib.file_digest(content, "sha256").hexdigest()}
            origin = name_of(file)
            return Artifact(file, known | ({"hub": origin} if origin else {}))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}; expected an input file") from None


def described_by(model: Path) -> Path:
    """The file that stands for a model among a stage's inputs: what gives its shape, in a folder, else the bare file of weights."""
    named = [model / name for name in ("config.json", "params.json", "adapter_config.json") if (model / name).is_file()]
    return model if model.is_file() else [*named, *sorted(model.glob("*.bin")), model / "config.json"][0]
