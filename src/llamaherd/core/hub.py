"""The Hugging Face hub, or a mirror of it named by HF_ENDPOINT: what a repository holds, and folders sent to one.

Nothing here runs unless a command names a repository. What comes from there - names, sizes, hashes, messages - is a stranger's
word: names are checked before anything is written under them, content is checked against the hashes (core/fetch.py).
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from .errors import UserError, one_line

RepoKind = Literal["model", "dataset"]
HUB = "https://huggingface.co"
NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
LEAVES = re.compile(r"^/|\\|(^|/)(\.{0,2})(/|$)|^[A-Za-z]:[/\\]|[\x00-\x1f\x7f]")
"""In a name: absolute, with a drive, an empty part, `.` or `..`, or control characters. No repository holds such names."""
WINDOWS = re.compile(r'[<>:"|?*]|[. ](/|$)|(^|/)(con|prn|aux|nul|com\d|lpt\d)(\.|/|$)', re.IGNORECASE)
"""In a name: what Windows cannot store, or reads as a device or as another name."""
TOKEN_FIX = "`hf auth login` or set HF_TOKEN"
PASSING = (408, 429, 500, 502, 503, 504)
"""Statuses that may be others a moment later."""
WAITS_S = (1.0, 2.0, 4.0)
"""Before each further try of what may pass."""
LONGEST_WAIT_S = 30.0
"""That a hub may ask for before it is an error to be read."""

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; `sha256` is known of large files, git's SHA-1 `blob` of the others."""

    path: str
    size: int = -1
    """In bytes; -1 until the hub says."""
    sha256: str | None = None
    blob: str | None = None


@dataclass(frozen=True)
class Repository:
    """What a repository holds at one commit."""

    name: str
    kind: RepoKind
    revision: str
    commit: str
    private: bool
    files: tuple[RemoteFile, ...]


def endpoint() -> str:
    """Address of the hub: HF_ENDPOINT, else Hugging Face's own. Raises UserError."""
    given = os.environ.get("HF_ENDPOINT", "").strip() or HUB
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"HF_ENDPOINT is {one_line(given)!r}; expected the address of a hub as http(s)://host, or unset it")
    return given.rstrip("/")


def library() -> ModuleType:
    """`huggingface_hub`, told to send no telemetry, to talk to the endpoint alone, and to leave the terminal to us."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["HF_HUB_DISABLE_XET"] = "1"
    from huggingface_hub import constants

    made, utils = import_module("huggingface_hub"), import_module("huggingface_hub.utils")
    # Another part of the process may have imported it before the variables were set.
    constants.HF_HUB_DISABLE_TELEMETRY = constants.HF_HUB_DISABLE_XET = True
    utils.logging.set_verbosity_error()
    hooks = (session := utils.get_session()).event_hooks
    if _limited not in hooks["request"]:
        session.event_hooks = {**hooks, "request": [*hooks["request"], _limited]}
    return made


def _limited(request: Any) -> None:
    """A hub that falls silent ends a request: the library waits for ever in some of its own."""
    limits = request.extensions["timeout"]
    limits.update({name: timeout_s() for name, seconds in limits.items() if seconds is None})


def api() -> Any:
    from .artifacts import code_version

    headers()
    return library().HfApi(endpoint=endpoint(), library_name="llamaherd", library_version=code_version())


def headers() -> dict[str, str]:
    """What every request says: who asks, and the token where there is one. Raises UserError for what cannot be a token."""
    from .artifacts import code_version

    sent: dict[str, str] = library().utils.build_hf_headers(library_name="llamaherd", library_version=code_version())
    token = sent.get("authorization", "")
    if not (token.isascii() and token.isprintable()):
        raise UserError("HF_TOKEN holds characters that no token has; set it again")  # without showing it
    return sent


def page(name: str, kind: RepoKind) -> str:
    """Where people see the repository."""
    return f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{name}"


def check_name(name: str, owned: bool = False) -> None:
    """Raises UserError unless `name` is OWNER/NAME, or NAME alone where that is allowed."""
    if not NAME.fullmatch(name) or ".." in name or "--" in name or (owned and "/" not in name):
        raise UserError(f"{one_line(name)!r}: expected a repository as OWNER/NAME, such as meta-llama/Llama-2-7b-chat-hf")


@contextmanager
def talking(name: str, kind: RepoKind, revision: str = "main", writes: bool = False) -> Iterator[None]:
    """Around requests: whatever the network or the hub does becomes a UserError of one line that says what mends it."""
    library()
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except UserError:
        raise
    except OfflineModeIsEnabled:
        raise UserError(f"{name}: HF_HUB_OFFLINE is set, which forbids every request; unset it") from None
    except (HFValidationError, LocalTokenNotFoundError) as error:
        raise UserError(f"{name}: {one_line(str(error))}") from None
    except HfHubHTTPError as error:
        raise UserError(f"{name}: {_refusal(error, name, kind, revision, writes)}") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise UserError(f"{name}: {_broken(error)}") from None
    except RuntimeError as error:  # the library's word for an upload that failed, with the reason behind it
        if not isinstance(error.__cause__, (httpx2.HTTPError, httpx2.InvalidURL, OSError)):
            raise
        with talking(name, kind, revision, writes):
            raise error.__cause__ from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = one_line(str(error), 120)
        raise UserError(f"{name}: {endpoint()} does not answer as a hub does ({why}); check HF_ENDPOINT and any proxy") from None


def _broken(error: Exception) -> str:
    """What went wrong below HTTP."""
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        return f"{endpoint()} was silent for too long; try again, HF_HUB_DOWNLOAD_TIMEOUT allows more seconds"
    return f"{endpoint()} cannot be reached, or broke off ({one_line(str(error), 120)}); check the network, HTTPS_PROXY and HF_ENDPOINT"


def _refusal(error: Any, name: str, kind: RepoKind, revision: str, writes: bool) -> str:
    """What a status that is not success means, and what mends it."""
    from huggingface_hub.errors import DisabledRepoError, EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status, where, missing = error.response.status_code, page(name, kind), isinstance(error, EntryNotFoundError)
    said = one_line(error.server_message or "", 160)
    words = f"; the hub says: {said}" if said else ""
    if isinstance(error, GatedRepoError):
        return f"is gated ({status}): accept its licence at {where}, then {TOKEN_FIX} to a token of that account{words}"
    if isinstance(error, DisabledRepoError):
        return f"was disabled by its owner or the hub ({status}){words}"
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision {revision!r} (404); its branches and tags are at {where}"
    if status == 401:
        if "Authorization" in error.response.request.headers:
            return f"the token is not accepted (401): make one at {endpoint()}/settings/tokens, then {TOKEN_FIX}{words}"
        return f"needs a token (401): it is private or gated, or there is no such repository; check the name, then {TOKEN_FIX}"
    if status == 403 and writes:
        return f"the token has no right to write there (403): take one with write access, then {TOKEN_FIX}{words}"
    if status == 403:
        return f"no access (403): accept the licence or ask for access at {where}, then {TOKEN_FIX} to a token of that account{words}"
    if status == 404 and missing:
        return f"{error.response.url.path} is not there (404), though the repository lists it; try again later"
    if status == 404:
        also = "" if revision == "main" or isinstance(error, RepositoryNotFoundError) else f", or it has no revision {revision!r}"
        return f"no such {kind} repository at {endpoint()} (404){also}; check the name; a private one needs a token that may see it"
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        when = f"in {wait} s" if wait.isdecimal() else "later"
        return f"too many requests (429); try again {when}; with a token ({TOKEN_FIX}) the hub allows more"
    if status >= 500:
        return f"the hub fails ({status}); try again later{words}"
    return f"the hub refuses (status {status}){words or '; see whether HF_ENDPOINT is a hub'}"


def patiently(ask: Callable[[], T]) -> T:
    """The answer to a request, asked again after a while where the hub or the line may have recovered."""
    for wait_s in WAITS_S:
        try:
            return ask()
        except OSError as error:
            time.sleep(pause_s(error, wait_s))
    return ask()


def pause_s(error: Exception, wait_s: float) -> float:
    """Seconds to wait before a request that failed is made again. Raises `error` where that would not help."""
    response = getattr(error, "response", None)
    if response is None or response.status_code not in PASSING:
        raise error
    asked = response.headers.get("Retry-After", "")
    if asked.isdecimal() and float(asked) > LONGEST_WAIT_S:
        raise error
    return max(wait_s, float(asked)) if asked.isdecimal() else wait_s


def repository(name: str, kind: RepoKind, revision: str = "main") -> Repository:
    """What `name` holds at `revision`, a branch, tag or commit. Raises UserError, also for file names that leave their folder."""
    check_name(name)
    with talking(name, kind, revision):
        info = patiently(lambda: api().repo_info(name, repo_type=kind, revision=revision, files_metadata=True))
        if not re.fullmatch("[0-9A-Za-z]{1,64}", str(info.sha)):  # it becomes the name of a folder
            raise ValueError(f"the commit of {revision!r} is {info.sha!r}")
        files = _listed(name, kind, info)
    bad = next((file.path for file in files if LEAVES.search(file.path)), None)
    if bad is not None:
        raise UserError(f"{name}: lists a file named {bad!a}, which would leave its folder; nothing was fetched, do not trust this hub")
    return Repository(name, kind, revision, info.sha, bool(info.private), files)


def _listed(name: str, kind: RepoKind, info: Any) -> tuple[RemoteFile, ...]:
    """From the tree; from the model's own list where a mirror has no tree."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        entries = list(api().list_repo_tree(name, recursive=True, revision=info.sha, repo_type=kind))
        return tuple(_remote(file.path, file) for file in entries if hasattr(file, "blob_id"))
    except HfHubHTTPError as error:
        if error.response.status_code not in (404, 405, 501) or not info.siblings:
            raise
        return tuple(_remote(file.rfilename, file) for file in info.siblings)


def _remote(path: str, entry: Any) -> RemoteFile:
    lfs = entry.lfs or {}
    large = lfs.get("sha256") if isinstance(lfs, Mapping) else lfs.sha256
    known = _with_hash(RemoteFile(path, -1 if entry.size is None else entry.size), None if large else entry.blob_id)
    return replace(known, sha256=str(large).lower()) if large else known


def _with_hash(file: RemoteFile, digest: str | None) -> RemoteFile:
    """With a hash told by its length. Raises UserError where it contradicts what is known of the file."""
    if not re.fullmatch("[0-9a-fA-F]{40}|[0-9a-fA-F]{64}", digest or ""):
        return file
    large, told = len(str(digest)) == 64, str(digest).lower()
    known = file.sha256 if large else file.blob
    if known not in (None, told):
        raise UserError(
            f"{file.path}: the hub gives two hashes for it, {known[:12]} and {told[:12]}; one is wrong, try again or another hub"
        )
    return replace(file, sha256=told) if large else replace(file, blob=told)


def described(repo: Repository, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """`files` with size and hashes as the files themselves state them; a file that may not be read is refused here.

    Raises UserError for a name that some system cannot store or tell from another, and for a file without size or hash.
    """
    names = [file.path.lower() for file in files]
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    bad = next((name for name in names if WINDOWS.search(name) or names.count(name) > 1 or name in folders), None)
    if bad is not None:
        raise UserError(f"{repo.name}: the file {bad!a} cannot be stored under its name on every system; nothing was fetched")
    sent = headers()

    def ask(file: RemoteFile) -> RemoteFile:
        found = patiently(lambda: library().get_hf_file_metadata(url_of(repo, file), headers=sent, timeout=timeout_s()))
        large = file.sha256 is not None and len(found.etag or "") != 64
        size = found.size if file.size < 0 and found.size is not None else file.size
        if found.size not in (None, size):
            raise UserError(f"{file.path}: the hub gives two sizes for it, {size:,} and {found.size:,} bytes; try again or another hub")
        return _with_hash(replace(file, size=size), None if large else found.etag)

    with talking(repo.name, repo.kind, repo.revision), ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(ask, files))
    for file in asked:
        if file.size < 0 or not (file.sha256 or file.blob):
            raise UserError(f"{repo.name}: the hub gives no size or no hash for {file.path}, so it cannot be checked; use another hub")
    return asked


def url_of(repo: Repository, file: RemoteFile) -> str:
    address: str = library().hf_hub_url(repo.name, file.path, repo_type=repo.kind, revision=repo.commit, endpoint=endpoint())
    return address


def timeout_s() -> float:
    """Longest silence of the hub."""
    from huggingface_hub import constants

    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)


def existing(name: str, kind: RepoKind) -> Repository | None:
    """The repository, None where there is none. Raises UserError, first of all without a token."""
    check_name(name, owned=True)
    if "authorization" not in headers():
        raise UserError(f"{name}: sending needs a token with write access: make one at {endpoint()}/settings/tokens, then {TOKEN_FIX}")
    from huggingface_hub.errors import HfHubHTTPError

    with talking(name, kind, writes=True):
        try:
            info = api().repo_info(name, repo_type=kind)
        except HfHubHTTPError as error:
            if error.response.status_code != 404:
                raise
            return None
    return Repository(name, kind, "main", str(info.sha), bool(info.private), ())


def send(folder: Path, names: Sequence[str], name: str, kind: RepoKind, *, private: bool, create: bool, message: str) -> str:
    """Sends files of `folder` as one commit and returns its address; the repository is made first where `create` says so.

    The hub shows all of them or none. Raises UserError.
    """
    made = library()
    with talking(name, kind, writes=True):
        if create:
            api().create_repo(name, repo_type=kind, private=private, exist_ok=True)
        operations = [made.CommitOperationAdd(path_in_repo=file, path_or_fileobj=folder / file) for file in names]
        commit = api().create_commit(name, operations, commit_message=message, repo_type=kind)
    return str(commit.commit_url)
