"""What is gone or cannot be read: named like anything else that is wrong, so that the rest is still looked at."""

from collections.abc import Iterator

from ..core.artifacts import METRICS
from .config import Thresholds
from .finding import Check, Finding
from .patient import Patient

DAMAGED = Check(
    "damaged", "files are damaged or gone",
    "get the folder again, or remove it and give its command again; nothing can be said of what stood there",
)  # fmt: skip


def look(patient: Patient, limits: Thresholds) -> Iterator[Finding]:
    """Files that manifests name and nobody finds, then what the other looks, which have to come first, could not read."""
    for name, artifact in patient.artifacts.items():
        files = artifact.manifest.get("files")
        # Without its log an artifact is whole; what the log would have told is not measured.
        gone = [file for file in files if file != METRICS and not (artifact.path / file).is_file()] if isinstance(files, dict) else []
        if gone:
            yield DAMAGED.found(name, True, f"{', '.join(gone)}: not there any more", "all files that its manifest names", gone=gone)
    for path, said in patient.damaged.items():
        yield DAMAGED.found(path.parent.name, True, said, "a file that can be read")
