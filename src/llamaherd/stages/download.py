"""A model of the hub to a folder of its own: what a Llama model needs and nothing else, whole or absent, every hash known."""

import math
import os
import shutil
import time
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ..core.artifacts import MANIFEST, Artifact, Kind, code_version, content_hash, locked, now, open_artifact, refuse_existing
from ..core.config import Config, dump
from ..core.errors import UserError
from ..core.fetch import Say, fetch, size_text
from ..core.files import fsync_folder, read_json, write_json
from ..core.hub import RemoteFile, Repository, check_name, described, endpoint, repository

TEXTS = (".json", ".jsonl", ".model", ".md", ".txt", ".jinja", ".chk")
"""Configs, tokenizers, cards and logs; never scripts."""
TERMS = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
OTHER_FORMATS = ("*.bin.index.json", "*.h5.index.json", "*.msgpack.index.json")
"""What belongs to weights that are left out."""
MOST_NAMES = 12
"""That a line shows."""


class DownloadConfig(Config):
    """What is fetched."""

    repository: str
    """OWNER/NAME."""
    revision: str = "main"
    """A branch, tag or commit."""
    include: tuple[str, ...] = ()
    """Files to fetch besides, as patterns such as `*.bin`."""


def default_out(name: str) -> Path:
    """Where a model goes that is given no place."""
    check_name(name)
    return Path("models") / name.rpartition("/")[2]


def run(config: DownloadConfig, out: Path, say: Say) -> Artifact:
    """Fetches a model to `out`, a new folder. `say` takes what there is, what is left out, and what is left.

    Raises UserError for whatever the hub refuses and for content that has not the hash which it states. What was fetched stays
    in `OUT.partial/`, and the same command goes on from there.
    """
    refuse_existing(out)
    partial = out.with_name(out.name + ".partial")
    repo = repository(config.repository, "model", config.revision)
    chosen = _choose(repo, config.include)
    files = described(repo, chosen)
    with locked(partial / "lock", str(out)):
        refuse_existing(out)
        begun = partial / "begun.json"
        if begun.exists() and read_json(begun) != {"repository": repo.name}:
            raise UserError(f"{partial} holds something else that was begun there; remove it, or choose another --out")
        write_json(begun, {"repository": repo.name})
        started, clock = now(), time.perf_counter()
        _tell_left_out(repo, chosen, say)
        _warn_early(repo, files, partial, say)
        digests = fetch(repo, files, partial / "files", partial / "parts", say)
        _remove_others(partial / "files", digests)
        published = read_json(partial / "files" / MANIFEST) if MANIFEST in digests else None
        kind, found = _examined(partial / "files", out.name)
        hashes = {name: digest for name, digest in sorted(digests.items()) if name != MANIFEST}
        manifest = {
            "kind": kind, "stage": "download", "config": dump(config), "seed": 0, "parents": {}, "code_version": code_version(),
            "hub": f"hub:{repo.name}@{repo.commit}", "endpoint": endpoint(), "published": published,
            "metrics": {"files": len(files), "bytes": sum(file.size for file in files), "found": found},
            "seconds": time.perf_counter() - clock, "started": started, "finished": now(),
            "files": hashes, "hash": content_hash(kind, hashes),
        }  # fmt: skip
        write_json(partial / "files" / MANIFEST, manifest)
        fsync_folder(partial / "files")
        os.replace(partial / "files", out)
        fsync_folder(out.parent)
    shutil.rmtree(partial, ignore_errors=True)
    return open_artifact(out)


def headline(artifact: Artifact) -> str:
    """What came, in one line."""
    metrics = artifact.metrics
    return f"{metrics['files']} files, {size_text(metrics['bytes'])}, every hash agrees; {metrics['found']}"


def _choose(repo: Repository, include: Sequence[str]) -> list[RemoteFile]:
    """Weights in one format, and the texts beside them; files in folders and other copies only where `include` names them."""
    top = {file.path for file in repo.files if "/" not in file.path}
    asked = {file.path for file in repo.files if any(fnmatchcase(file.path, pattern) for pattern in include)}
    if include and not asked:
        raise UserError(f"{repo.name}: no file is named {' or '.join(include)}; it holds {_names([file.path for file in repo.files])}")
    weights = _weights(top)
    if not weights and not asked:
        raise UserError(
            f"{repo.name}: holds no weights that llamaherd reads (safetensors, or Meta's consolidated.*.pth with params.json) but "
            f"{_names([file.path for file in repo.files])}; --include PATTERN fetches files by name"
        )
    texts = {name for name in top if name.endswith(TEXTS) or any(fnmatchcase(name, term) for term in TERMS)}
    texts -= {name for name in texts if any(fnmatchcase(name, other) for other in OTHER_FORMATS)}
    return [file for file in repo.files if file.path in weights | texts | asked]


def _weights(names: Collection[str]) -> set[str]:
    """The one copy of the weights that is read: safetensors before Meta's pickles, those of the index before all others."""
    tensors = {name for name in names if name.endswith(".safetensors")}
    sharded = {name for name in tensors if fnmatchcase(name, "*-of-*.safetensors")}
    if "model.safetensors.index.json" in names and sharded:
        return sharded | (tensors & {"adapter_model.safetensors"})
    if "model.safetensors" in tensors:
        return tensors & {"model.safetensors", "adapter_model.safetensors"}
    if tensors or "params.json" not in names:
        return tensors
    return {name for name in names if fnmatchcase(name, "consolidated.*.pth")}


def _names(paths: Sequence[str]) -> str:
    shown = [ascii(path)[1:-1] for path in paths[:MOST_NAMES]]
    return (", ".join(shown) or "nothing") + (f" and {len(paths) - MOST_NAMES} more" if len(paths) > MOST_NAMES else "")


def _tell_left_out(repo: Repository, chosen: Sequence[RemoteFile], say: Say) -> None:
    taken = {file.path for file in chosen} | {".gitattributes"}
    rest = [file for file in repo.files if file.path not in taken]
    if rest:
        size = size_text(sum(max(0, file.size) for file in rest))
        say(f"left out: {_names([file.path for file in rest])} ({size}); --include PATTERN fetches such files too")


def _warn_early(repo: Repository, files: Sequence[RemoteFile], partial: Path, say: Say) -> None:
    """Says before the weights come that they are of another architecture."""
    from ..checkpoints.huggingface import parse_config
    from ..checkpoints.source import small_json

    configs = [file for file in files if file.path == "config.json"]
    if configs:
        fetch(repo, configs, partial / "files", partial / "parts", lambda line: None)
        try:
            parse_config(small_json(partial / "files" / "config.json"), repo.name)
        except UserError as error:
            say(f"it comes as it is, though llamaherd cannot load it: {str(error).replace(str(partial / 'files'), repo.name)}")


def _remove_others(folder: Path, kept: Collection[str]) -> None:
    """What an earlier start fetched of another commit."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in kept:
            path.unlink()


def _examined(folder: Path, name: str) -> tuple[Kind, str]:
    """What the folder is, from its content."""
    from ..checkpoints.peft import is_adapter
    from ..checkpoints.quantized import is_quantized
    from ..checkpoints.source import open_source

    try:
        if is_adapter(folder):
            return "adapter", "an adapter"
        if is_quantized(folder):
            return "model", "a Llama model that llamaherd quantised"
        source = open_source(folder)
    except UserError as error:
        return "download", f"not a model that llamaherd loads: {str(error).replace(str(folder), name)}"
    parameters = sum(math.prod(shape) for shape in source.shapes.values())
    return source.kind, f"a {'Llama' if source.kind == 'model' else 'reward'} model, {parameters:,} parameters"
