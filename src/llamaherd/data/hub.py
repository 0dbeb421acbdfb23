"""Data sets of the Hugging Face hub by name: `hub:OWNER/NAME`, `hub:OWNER/NAME@REVISION/FILE`, `.../FOLDER`, `.../SPLIT`.

Files of rows are fetched into the cache, one folder for each commit, and hashed; scripts never. What was fetched is named
by its commit, `hub:OWNER/NAME@COMMIT/FILE`, which is what manifests note and what fetches exactly that again; once it is
here, that name needs no network.
"""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import unquote

from ..core.artifacts import locked
from ..core.errors import UserError
from ..core.fetch import digest_of, fetch
from ..core.files import read_json, write_json
from ..core.hub import RemoteFile, Repository, check_name, described, repository

SPEC = re.compile(r"hub:(?P<name>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<inside>.+))?")
ROWS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.zstd", ".json.gz", ".json.zst", ".parquet")
SPLIT = re.compile(r"(?:^|[-_./])(train|training|test|validation|valid|val|dev|eval)(?=[-_./0-9]|$)")
PIECE = re.compile(r"\d+-of-\d+|\d{3,}")
"""What tells the pieces of one large file from each other."""
COMMIT = re.compile(r"[0-9a-f]{40}")
LISTING = "listing.json"


def is_hub(path: Path) -> bool:
    return path.as_posix().startswith("hub:")


def cache() -> Path:
    """Where fetched data sets lie: LLAMAHERD_CACHE, else `llamaherd` in the user's cache folder."""
    if given := os.environ.get("LLAMAHERD_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llamaherd"


def name_of(file: Path) -> str | None:
    """`hub:OWNER/NAME@COMMIT/FILE` of a file in the cache; None of any other."""
    try:
        owner, name, commit, kind, *inside = file.absolute().relative_to((cache() / "datasets").absolute()).parts
    except ValueError:
        return None
    return f"hub:{owner}/{name}@{commit}/{'/'.join(inside)}" if kind == "files" else None


def files_of(spec: Path, name: str) -> list[Path]:
    """The files that a name on the hub stands for, fetched if they are not here; says on standard error which these are.

    `name`: the file that a command reads from folders, taken first where the data set was made by llamaherd. Without a split
    in the name, `train` is taken where there are several. Raises UserError when it could mean different data.
    """
    text = spec.as_posix()
    match = SPEC.fullmatch(text)
    if not match:
        raise UserError(f"{text}: expected hub:OWNER/NAME, with @REVISION and /FILE, /FOLDER or /SPLIT behind it as needed")
    check_name(match["name"], owned=True)
    revision = unquote(match["revision"] or "main")
    repo = _known(match["name"], revision) or repository(match["name"], "dataset", revision)
    chosen = _choose(text, repo, match["inside"] or "", name)
    home = _home(repo.name, repo.commit)
    with locked(home / "lock", text):
        if not (home / LISTING).exists():
            write_json(home / LISTING, {"private": repo.private, "files": [asdict(file) for file in repo.files]})
        missing = [file for file in chosen if not digest_of(home / "files" / file.path, file)]
        if missing:
            fetch(repo, described(repo, missing), home / "files", home / "parts", _say)
    left = len([file for file in repo.files if file.path.endswith(ROWS)]) - len(chosen)
    shown = ", ".join(file.path for file in chosen[:4]) + (f" and {len(chosen) - 4} more" if len(chosen) > 4 else "")
    _say(f"{text} is {shown} of hub:{repo.name}@{repo.commit} in {home}" + (f"; {left} other files of rows are not read" if left else ""))
    return [home / "files" / file.path for file in chosen]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _home(name: str, commit: str) -> Path:
    return cache() / "datasets" / name / commit


def _known(name: str, revision: str) -> Repository | None:
    """A commit that was looked at before, which can never be another."""
    listing = _home(name, revision) / LISTING
    if not COMMIT.fullmatch(revision) or not listing.is_file():
        return None
    noted = read_json(listing)
    return Repository(name, "dataset", revision, revision, noted["private"], tuple(RemoteFile(**file) for file in noted["files"]))


def _split(path: str) -> str:
    """`train` of `data/train-00000-of-00002.parquet`; empty where the name says nothing."""
    found = SPLIT.findall(path)
    return found[-1] if found else ""


def _choose(text: str, repo: Repository, inside: str, name: str) -> list[RemoteFile]:
    """The files meant. Raises UserError that lists what there is instead, or between what to choose."""
    rows = [file for file in repo.files if file.path.endswith(ROWS)]
    if not rows:
        held = ", ".join(ascii(file.path)[1:-1] for file in repo.files[:8]) or "nothing"
        raise UserError(f"{text}: holds no file of rows ({', '.join(ROWS)}), only {held}; scripts are not run")
    exact = [file for file in rows if file.path == (inside or name)]
    if exact:
        return exact
    folder, _, last = inside.rpartition("/")
    below = [file for file in rows if not inside or file.path.startswith(f"{inside}/")]
    split = [file for file in rows if file.path.startswith(f"{folder}/" if folder else "") and _split(file.path) == last]
    found = below or (split if last else [])
    if not found:
        raise UserError(f"{text}: no such file of rows, folder or split; there is {_groups(rows)}")
    if below and len(_keys(found)) > 1:
        found = [file for file in found if _split(file.path) in ("train", "training")] or found
    if len(_keys(found)) > 1:
        raise UserError(f"{text}: could be {_groups(found)}; add one of them to the name, as in hub:{repo.name}/{found[0].path}")
    return found


def _keys(files: Sequence[RemoteFile]) -> list[tuple[str, str]]:
    """Folder and name of each file, its pieces taken for one, in order and once."""
    pairs = [file.path.rpartition("/") for file in files]
    return list(dict.fromkeys((folder, PIECE.sub("#", last)) for folder, _, last in pairs))


def _groups(files: Sequence[RemoteFile]) -> str:
    names = [f"{folder}/{last}" if folder else last for folder, last in _keys(files)]
    return ", ".join(ascii(name)[1:-1] for name in names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
