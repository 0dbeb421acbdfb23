"""A finished folder to the hub, with its card and manifest, and nothing that does not belong to it."""

from pathlib import Path

from ..core.artifacts import MANIFEST, Artifact, hash_files, open_artifact
from ..core.errors import UserError
from ..core.fetch import Say, digest_of, size_text
from ..core.hub import RepoKind, check_name, endpoint, existing, page, repository, send

CARD = "README.md"
EDITED = {CARD, "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "USE_POLICY.md"}
"""What people write after a folder was made; all else is as its manifest says."""
REPOSITORIES: dict[str, RepoKind] = {
    "model": "model", "reward-model": "model", "adapter": "model",
    "corpus": "dataset", "dialogues": "dataset", "preferences": "dataset", "samples": "dataset", "judgements": "dataset",
}  # fmt: skip
"""Kinds of artifacts that are sent, and the kind of repository that holds them."""


def run(spec: str, name: str, public: bool, say: Say) -> str:
    """Sends a folder as one commit and returns its address. A repository that is made for it is private unless `public`.

    Raises UserError, before anything is sent, for a folder that is not whole or holds more than it should, without a token,
    and for a repository that others see or do not see otherwise than asked.
    """
    check_name(name, owned=True)
    artifact = open_artifact(spec)
    names = _checked(artifact)
    kind = REPOSITORIES[artifact.kind]
    there = existing(name, kind)
    if there and there.private == public:
        seen = "is there and private; --public" if public else "is there and public; without --public it"
        raise UserError(f"{name}: {seen} does not change that: choose another name, or change it at {page(name, kind)}/settings")
    sizes = {file: (artifact.path / file).stat().st_size for file in names}
    where = f"{'public' if public else 'private'} {kind} repository {name} at {endpoint()}"
    say(f"{artifact.path} to the {'' if there else 'new '}{where}: {len(names)} files, {size_text(sum(sizes.values()))}")
    for file, size in sizes.items():
        say(f"  {file}  {size_text(size)}{'  (names the folders that its inputs lay in)' if file == MANIFEST else ''}")
    address = send(
        artifact.path, names, name, kind, private=not public, create=there is None, message=f"{artifact.kind} {artifact.hash[:12]}"
    )
    _compare(artifact.path, names, name, kind, say)
    return address


def _checked(artifact: Artifact) -> list[str]:
    """Names of the files to send. Raises UserError for anything missing, damaged or unexpected."""
    folder, manifest = artifact.path, artifact.manifest
    if artifact.kind not in REPOSITORIES:
        raise UserError(f"{folder}: is of kind {artifact.kind!r}; upload sends {', '.join(REPOSITORIES)}")
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        raise UserError(f"{folder / MANIFEST}: lists no files; expected the manifest of a folder that llamaherd wrote")
    if not (folder / CARD).is_file():
        raise UserError(f"{folder}: holds no {CARD}; write its card first (what it is, from what it was made, what it is for)")
    links = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink())
    present = hash_files(folder) if not links else {}
    unexpected = links or sorted(present.keys() - listed.keys() - EDITED)
    if unexpected:
        raise UserError(f"{folder}: holds {', '.join(unexpected[:5])}, which its manifest does not list; move it away, nothing was sent")
    for name, digest in listed.items():
        if name not in present:
            raise UserError(f"{folder}: lacks {name}, which its manifest lists; nothing was sent")
        if present[name] != digest and name not in EDITED:
            raise UserError(f"{folder / name}: is not as its manifest says; it is damaged or was changed, nothing was sent")
    return [*sorted(present), MANIFEST]


def _compare(folder: Path, names: list[str], name: str, kind: RepoKind, say: Say) -> None:
    """Holds what the hub lists against the folder. Raises UserError for what did not arrive."""
    try:
        files = {file.path: file for file in repository(name, kind).files}
    except UserError as error:
        say(f"sent; what arrived could not be compared: {error}")
        return
    bad = [file for file in names if file not in files or (files[file].size >= 0 and not digest_of(folder / file, files[file]))]
    if bad:
        raise UserError(f"{name}: {', '.join(bad[:5])} did not arrive as sent; give the command again")
    others = sorted(files.keys() - {*names, ".gitattributes"})
    if others:
        say(f"the repository holds from before: {', '.join(ascii(file)[1:-1] for file in others[:12])}; remove there what is not wanted")
