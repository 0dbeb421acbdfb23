"""Files of a repository on disk: fetched from the byte where they stopped, hashed as they lie there, named only when whole.

    fetch(repo, files, folder, parts, say)

What is unfinished lies in `parts` under its hash, so another start, another commit or a renamed file goes on from it.
"""

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from .errors import UserError
from .files import fsync_file, naming
from .hub import WAITS_S, RemoteFile, Repository, headers, library, pause_s, talking, timeout_s, url_of
from .progress import Progress

AT_ONCE = 4
"""Files fetched side by side: one connection rarely fills a line."""

Say = Callable[[str], None]
"""Takes lines for the person who waits."""


class _Stopped(Exception):
    """Another file failed."""


def size_text(size_bytes: int) -> str:
    """`13480000000` -> `13.48 GB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.2f} {unit}"
    return f"{size_bytes} byte{'' if size_bytes == 1 else 's'}"


def digest_of(path: Path, file: RemoteFile) -> str | None:
    """SHA-256 of what lies at `path`; None unless it has the size and every hash that `file` states."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != file.size:
        return None
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb", buffering=0) as content:
        while block := content.read(1 << 20):
            sha256.update(block)
            if file.blob:
                blob.update(block)
    agrees = file.sha256 in (None, sha256.hexdigest()) and file.blob in (None, blob.hexdigest())
    return sha256.hexdigest() if agrees else None


class _Tally:
    """How many bytes are there, over all files, and the line that shows it."""

    def __init__(self, name: str, total: int, done: int, say: Say):
        self.total, self.done, self.say = total, done, say
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.line = Progress(f"MB of {name}", total // 10**6, done // 10**6)

    def add(self, size_bytes: int) -> None:
        if self.stop.is_set():
            raise _Stopped
        with self.lock:
            self.done += size_bytes
            self.line.update(self.done // 10**6)

    def tell(self, text: str) -> None:
        with self.lock:
            self.line.close()
            self.say(text)


def fetch(repo: Repository, files: Sequence[RemoteFile], folder: Path, parts: Path, say: Say) -> Mapping[str, str]:
    """Brings `files`, which state size and hash, to `folder` and returns the SHA-256 of each.

    Whole files that lie there already stay; unfinished ones go on from their last byte. Raises UserError when the disk is
    too small, the hub refuses or sends something else; what came so far stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts.mkdir(parents=True, exist_ok=True)
    total = sum(file.size for file in files)
    digests = {file.path: digest for file in files if (digest := digest_of(folder / file.path, file))}
    missing = [file for file in files if file.path not in digests]
    begun = {part.name: part.stat().st_size for part in parts.iterdir()}
    left = sum(max(0, file.size - begun.get(_part_name(file), 0)) for file in missing)
    say(
        f"{repo.name} at commit {repo.commit}: {len(files)} files, {size_text(total)}; {size_text(total - left)} here, {size_text(left)} left"
    )
    free = shutil.disk_usage(folder).free
    if left > free:
        raise UserError(f"{folder}: {size_text(left)} are left to fetch and {size_text(free)} free; make room, or choose another place")
    tally = _Tally(repo.name, total, total - left, say)
    # The smallest first: whoever may not read a repository, or misses a file, learns it before the large ones.
    order = sorted(missing, key=lambda file: file.size)
    with talking(repo.name, repo.kind, repo.revision), ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            waiting = {pool.submit(_bring, repo, file, folder, parts, tally): file.path for file in order}
            for done in as_completed(waiting):
                digests[waiting[done]] = done.result()
        finally:
            tally.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            tally.line.close()
    return digests


def _part_name(file: RemoteFile) -> str:
    """Two files of one content are two parts, since each is written by a thread of its own."""
    return f"{file.sha256 or file.blob}-{hashlib.sha256(file.path.encode()).hexdigest()[:8]}"


def _bring(repo: Repository, file: RemoteFile, folder: Path, parts: Path, tally: _Tally) -> str:
    """Fetches one file, checks it as it lies on disk and gives it its name. Returns its SHA-256."""
    part, place = parts / _part_name(file), folder / file.path
    resumed = part.exists()
    if resumed and part.stat().st_size > file.size:
        part.write_bytes(b"")
        tally.add(-file.size)
    _stream(repo, file, part, tally)
    digest = digest_of(part, file)
    if digest is None:
        part.unlink()
        if not resumed:
            stated = f"sha256 {file.sha256}" if file.sha256 else f"git SHA-1 {file.blob}"
            raise UserError(f"{repo.name}: {file.path} came whole and has another hash than the hub states ({stated}); "
                            "it was thrown away, try again, or another hub")  # fmt: skip
        tally.tell(f"{file.path}: what was here of it was damaged; it is fetched anew")
        tally.add(-file.size)
        return _bring(repo, file, folder, parts, tally)
    fsync_file(part)
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, place)
    tally.tell(f"{file.path}: {size_text(file.size)}, hash agrees; {size_text(tally.total - tally.done)} left")
    return digest


def _stream(repo: Repository, file: RemoteFile, part: Path, tally: _Tally) -> None:
    """Appends to `part` until it has the file's size, over as many connections as that takes while each comes further."""
    library()
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    part.touch()
    failures, furthest = 0, part.stat().st_size
    while (start := part.stat().st_size) != file.size:
        try:
            _append(repo, file, part, start, tally)
        except (httpx2.TransportError, HfHubHTTPError) as error:
            here = part.stat().st_size
            failures, furthest = (0, here) if here > furthest else (failures + 1, furthest)
            if failures > len(WAITS_S):
                raise
            wait_s = WAITS_S[max(0, failures - 1)]
            wait_s = pause_s(error, wait_s) if isinstance(error, HfHubHTTPError) else wait_s
            tally.tell(f"{file.path}: stopped at {here:,} of {file.size:,} bytes; going on from there")
            if tally.stop.wait(wait_s):
                raise _Stopped from None


def _append(repo: Repository, file: RemoteFile, part: Path, start: int, tally: _Tally) -> None:
    """One answer of the hub, written behind the `start` bytes that are here."""
    import httpx2

    utils = library().utils
    wanted = {"Range": f"bytes={start}-"} if start else {}
    sent = {**headers(), "Accept-Encoding": "identity", **wanted}
    with utils.get_session().stream("GET", url_of(repo, file), headers=sent, timeout=timeout_s()) as response:
        if start and response.status_code in (200, 416):  # it knows no ranges, or has not so many bytes: from the first one
            part.write_bytes(b"")
            tally.add(-start)
            if response.status_code == 416:
                return
            start = 0
        utils.hf_raise_for_status(response)
        if start and not re.match(rf"bytes {start}-", response.headers.get("Content-Range", "")):
            raise UserError(f"{repo.name}: the hub sends other bytes of {file.path} than asked for; use another hub")
        with naming(part), part.open("ab", buffering=0) as content:
            for block in response.iter_bytes():
                if start + len(block) > file.size:
                    raise UserError(
                        f"{repo.name}: the hub sends more of {file.path} than the {file.size:,} bytes that it states; use another hub"
                    )
                content.write(block)
                start += len(block)
                tally.add(len(block))
    if start != file.size:
        raise httpx2.RemoteProtocolError(f"{file.path} ended at {start:,} of {file.size:,} bytes")
