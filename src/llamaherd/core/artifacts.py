"""Artifacts: folders with a manifest, built beside their place and renamed into it, so they are whole or absent.

    with building(out, kind="model", stage="sft", config=config, parents={"model": base}, seed=0) as place:
        ...                      # write files into place.folder, training state into place.state
        place.metrics["loss"] = 1.2

An interrupted build leaves `OUT.partial/`; building the same thing again continues from its state, building
something else there is refused.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from .config import Config, dump
from .errors import UserError, did_you_mean
from .files import fsync_file, fsync_folder, read_json, write_json

Kind = Literal[
    "corpus", "tokenizer", "shards", "model", "reward-model", "adapter", "dialogues", "preferences",
    "samples", "judgements", "evaluation", "report", "download",
]  # fmt: skip

MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
"""How training went, step by step, with the time each step took."""
WATTS_PER_CPU_CORE, WATTS_PER_GPU = 15.0, 500.0
"""Assumed draw of one busy core and of a busy GPU, for the energy estimate (a measured figure would need the machine's counters)."""


@dataclass(frozen=True)
class Artifact:
    """A finished folder and what its manifest says."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.manifest["kind"])

    @property
    def hash(self) -> str:
        """SHA-256 over the names and contents of its files but the metrics, which hold times: equal results, equal hashes."""
        return str(self.manifest["hash"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self.manifest.get("metrics", {})  # type: ignore[no-any-return]


@dataclass
class Workplace:
    """Where a stage writes: `folder` becomes the artifact, `state` survives a kill and goes when the artifact is done."""

    folder: Path
    state: Path
    made: Mapping[str, Any] = field(default_factory=dict)
    """Stage, settings, parents (name to hash) and seed: what its files may say of where they come from."""
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """Where training writes its metrics; it survives a kill too, yet without any state there is nothing to go on from."""
        return self.state.with_name(METRICS)


@cache
def code_version() -> str:
    """Version of the installed package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llamaherd")
    except PackageNotFoundError:
        return "unknown"


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` but the manifest, by relative name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            found[name] = _file_hash(path)
    return found


def check_files(folder: Path, wanted: Callable[[str], bool]) -> None:
    """Compares files of a finished folder with the hashes in its manifest, those whose names are `wanted`; without a manifest, none.

    Raises UserError that names the first file that was changed, cut short or removed since.
    """
    found = find_artifact(folder)
    if found is None or "files" not in found.manifest:
        return
    files = found.manifest["files"]
    if not isinstance(files, dict) or found.hash != content_hash(found.kind, files):
        raise UserError(f"{folder / MANIFEST}: is damaged: its hashes do not add up; get the folder again")
    for name, expected in files.items():
        if not wanted(name):
            continue
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: is missing; {MANIFEST} names it, get the folder again")
        if _file_hash(path) != expected:
            raise UserError(
                f"{path}: its content is not what was written (its hash differs from {MANIFEST}'s); get it again, "
                f"or remove {MANIFEST} if you changed it yourself"
            )


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(value: Any) -> str:
    """SHA-256 of a JSON value with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def content_hash(kind: str, files: Mapping[str, str]) -> str:
    """Hash of an artifact from those of its files; see `Artifact.hash`."""
    return hash_of([kind, {name: digest for name, digest in files.items() if name != METRICS}])


def open_artifact(spec: str | Path, *kinds: Kind) -> Artifact:
    """The artifact at a folder, RUN:NAME, or RUN (its newest version). Raises UserError when it is none of `kinds`."""
    path = resolve(spec)
    found = find_artifact(path)
    if not found:
        raise UserError(f"{path}: no {MANIFEST} there; expected a folder that llamaherd wrote ({' or '.join(kinds) or 'any kind'})")
    if kinds and found.kind not in kinds:
        raise UserError(f"{path}: is of kind {found.kind!r}; expected {' or '.join(kinds)}")
    return found


def find_artifact(path: Path) -> Artifact | None:
    """The finished artifact at `path`, or None. Raises UserError when its manifest is damaged or another program's."""
    if not (path / MANIFEST).is_file():
        return None
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or not {"kind", "hash"} <= manifest.keys():
        raise UserError(f"{path / MANIFEST}: has no kind and hash; expected a manifest that llamaherd wrote")
    return Artifact(path, manifest)


def model_path(spec: str | Path) -> Path:
    """Where a model lies: as `resolve`, and a bare file of weights is itself. Raises UserError."""
    return Path(spec) if Path(spec).is_file() else resolve(spec)


def versions(run: Path) -> list[str]:
    """Names v0, v1, ... of the finished chat models in a run, oldest first."""
    if not run.is_dir():
        return []
    names = [entry.name for entry in run.iterdir() if re.fullmatch(r"v\d+", entry.name)]
    whole = [name for name in names if (found := find_artifact(run / name)) and found.kind == "model"]
    return sorted(whole, key=lambda name: int(name[1:]))


def resolve(spec: str | Path) -> Path:
    """Folder of `FOLDER`, `RUN:NAME` or `RUN` (newest version). Raises UserError that says what there is instead."""
    path = Path(spec)
    if not path.is_dir():
        head, colon, name = str(spec).rpartition(":")
        run = Path(head)
        if not colon or not run.is_dir():
            file = next((given for given in (path, run) if given.is_file()), None)
            problem = f"{file}: is a file" if file else f"{spec}: no such folder"
            if re.match("https?:/", str(spec)):
                problem = f"{spec}: is an endpoint, which chat and generate take; this command needs the weights"
            if head == "hub":
                problem = f"{spec}: is on the hub; `llamaherd download {name}` fetches it first"
            raise UserError(f"{problem}; expected a model folder, RUN or RUN:VERSION such as runs/miniature:v5")
        if (run / name).is_dir() and name not in ("", ".", "..") and "/" not in name:
            return run / name
        there = sorted(entry.name for entry in run.iterdir() if (entry / MANIFEST).is_file())
        raise UserError(f"{run} has no {name!r}{did_you_mean(name, there)}; it has {', '.join(there) or 'nothing finished yet'}")
    if not (path / MANIFEST).is_file() and (path / "recipe.json").is_file():
        there = versions(path)
        if not there:
            raise UserError(f"{path}: no version is finished yet; the first one (v0) comes after supervised fine-tuning")
        return path / there[-1]
    return path


@contextmanager
def locked(file: Path, what: str) -> Iterator[None]:
    """Holds `file` as a lock that the system frees when the process ends, however it ends. Raises UserError when taken."""
    from filelock import FileLock, Timeout

    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{what} is in use by another llamaherd process; wait for it, stop it, or choose another --out") from None
    try:
        yield
    finally:
        lock.release()


def _fingerprint(stage: str, config: Config, parents: Mapping[str, Artifact], seed: int) -> dict[str, Any]:
    # Where the inputs lie may change (a run folder that was moved, or named from elsewhere); their content may not.
    return {
        "stage": stage,
        "config": _with_bare_names(config.model_dump(mode="python")),
        "parents": {name: parent.hash for name, parent in parents.items()},
        "seed": seed,
    }


def _with_bare_names(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    if isinstance(value, dict):
        return {key: _with_bare_names(item) for key, item in value.items()}
    return [_with_bare_names(item) for item in value] if isinstance(value, (list, tuple)) else value


@contextmanager
def building(out: Path, *, kind: Kind, stage: str, config: Config, parents: Mapping[str, Artifact], seed: int) -> Iterator[Workplace]:
    """Builds one artifact at `out`, a new folder whose parents are made as needed.

    Raises UserError when `out` exists, is being built, was begun with other settings, or when its partial folder is
    removed meanwhile; OSError that names the file when the disk is full or the folder read-only. A state that was saved
    stays in the partial folder, and building the same thing again goes on from there; without any, nothing stays.
    """
    refuse_existing(out)
    partial = out.with_name(out.name + ".partial")
    with locked(partial / "lock", str(out)):
        refuse_existing(out)  # another process may have finished it between the question and the lock
        fingerprint = _fingerprint(stage, config, parents, seed)
        begun, place = _begin(partial, fingerprint)
        seconds_file = partial / "seconds.json"
        seconds_before = read_json(seconds_file) if seconds_file.exists() else 0.0
        started, started_at = time.perf_counter(), now()
        try:
            yield place
        except BaseException:
            # The time spent is the least of what may get lost: on a full disk the first error is the one to show.
            with contextlib.suppress(OSError):
                if _mark(partial) == begun:
                    if _saved(place.state):
                        write_json(seconds_file, seconds_before + time.perf_counter() - started)
                    else:
                        shutil.rmtree(partial, ignore_errors=True)
            raise
        seconds = seconds_before + time.perf_counter() - started
        if _mark(partial) != begun or not place.folder.is_dir():
            raise UserError(f"{partial} was removed or taken over while {out} was built; nothing was published, start again")
        files = hash_files(place.folder)
        for name in files:
            fsync_file(place.folder / name)
        manifest = {
            "kind": kind, "stage": stage, "config": dump(config), "seed": seed,
            "parents": {name: _origin(parent) for name, parent in parents.items()},
            "code_version": code_version(), "metrics": place.metrics, "seconds": seconds,
            "started": started_at, "finished": now(),  # of its last start; `seconds` counts the earlier ones too
            "device": _device_name(), "energy_wh_estimate": seconds * _watts() / 3600, "peak_memory_bytes": _peak_memory_bytes(),
            "files": files, "hash": content_hash(kind, files),
        }  # fmt: skip
        write_json(place.folder / MANIFEST, manifest)
        fsync_folder(place.folder)
        os.replace(place.folder, out)
        fsync_folder(out.parent)
    shutil.rmtree(partial, ignore_errors=True)


def now() -> str:
    """The time as manifests write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _origin(parent: Artifact) -> dict[str, Any]:
    """Where an input lay, what it was, and where on the hub it came from if it did."""
    return {"path": str(parent.path), "hash": parent.hash} | ({"hub": parent.manifest["hub"]} if "hub" in parent.manifest else {})


def refuse_existing(out: Path) -> None:
    """Raises UserError when something lies where an artifact is to be."""
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or remove it to build it again")


def _mark(partial: Path) -> tuple[int, int] | None:
    """What tells this start of a build from any other; None when its folder is gone."""
    try:
        begun = (partial / "begun.json").stat()
    except FileNotFoundError:
        return None
    return begun.st_ino, begun.st_mtime_ns


def _begin(partial: Path, fingerprint: Mapping[str, Any]) -> tuple[tuple[int, int] | None, Workplace]:
    """Notes what is being built, empties the place for its files and keeps the state of an earlier start."""
    begun = partial / "begun.json"
    place = Workplace(partial / "artifact", partial / "state", fingerprint)
    if _saved(place.state) and begun.exists() and read_json(begun) != json.loads(json.dumps(fingerprint)):
        raise UserError(f"{partial} holds an unfinished build with other settings or inputs; remove it, or choose another --out")
    write_json(begun, fingerprint)
    if place.folder.exists():
        shutil.rmtree(place.folder)
    place.folder.mkdir()
    place.state.mkdir(exist_ok=True)
    return _mark(partial), place


def _saved(state: Path) -> bool:
    return state.is_dir() and any(state.iterdir())


def _gpu_name() -> str | None:
    """Of the GPU that this process may have used; None without one, or where nothing needed torch."""
    import sys

    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else None


def _device_name() -> str:
    import platform

    return _gpu_name() or f"{platform.machine()} CPU, {os.cpu_count()} cores"


def _watts() -> float:
    """Of the cores that this process keeps busy: other steps, which may run beside it, count their own."""
    import sys

    torch = sys.modules.get("torch")
    cores = torch.get_num_threads() if torch is not None else 1
    return WATTS_PER_CPU_CORE * cores + (WATTS_PER_GPU if _gpu_name() else 0)


def _peak_memory_bytes() -> int | None:
    """The most memory that this process, which may have made other artifacts before, held so far; None where nobody says."""
    import sys

    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
