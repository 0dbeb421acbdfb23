"""Where a stage's input files come from: the artifacts that hold them, and their hashes, for its manifest."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ..core.artifacts import Artifact, find_artifact
from ..core.errors import UserError


def file_hashes(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by path. Raises UserError for one that cannot be read."""
    hashes = {}
    for path in files:
        try:
            with path.open("rb") as file:
                hashes[path.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}; expected an input file") from None
    return hashes


def parents_of(files: Iterable[Path], **named: Artifact | None) -> dict[str, Artifact]:
    """Parents for a manifest: the named artifacts, and those in whose folders the files lie, by folder name."""
    found = {name: artifact for name, artifact in named.items() if artifact is not None}
    for folder in dict.fromkeys(file.parent for file in files):
        artifact = find_artifact(folder)
        if artifact is not None:
            found[folder.name if folder.name not in found else folder.as_posix()] = artifact
    return found
