"""Browsers that signed in: each holds a random number in a cookie, and its hash is kept here and in the state folder."""

import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from ..core.errors import UserError
from ..core.files import read_json
from .keys import digest, write_private

FILE = "sessions.json"
MOST_OF_A_KEY = 64
"""So many browsers may be signed in with one key; the one that has been so for longest is signed out."""

log = logging.getLogger(__name__)
Kept = dict[str, tuple[str, float]]
"""Hash of what a cookie holds -> (hash of the key that it was begun with, when it ends), the oldest first."""


class Sessions:
    """Survive a new start of the server. Where the folder cannot be written they end with it, and the log says so once."""

    def __init__(self, folder: Path, life_s: float):
        self.life_s = life_s
        self._file = folder / FILE
        self._told = False
        try:
            self._kept = self._read()
        except OSError as error:
            self._kept = {}
            self._complain(error)

    def begin(self, key_hash: bytes) -> str:
        """What the cookie holds. Writes, so not from the event loop."""
        session, key = secrets.token_urlsafe(32), key_hash.hex()

        def add(kept: Kept) -> None:
            of_key = [one for one, (other, _) in kept.items() if other == key]
            for one in of_key[: max(0, len(of_key) - MOST_OF_A_KEY + 1)]:
                del kept[one]
            kept[_name(session.encode())] = key, time.time() + self.life_s

        self._change(add)
        return session

    def key_hash(self, session: bytes) -> bytes | None:
        """Hash of the key that the session was begun with."""
        found, ends = self._kept.get(_name(session), ("", 0.0))
        return bytes.fromhex(found) if time.time() < ends else None

    def end(self, session: bytes) -> None:
        """Writes, so not from the event loop."""
        name = _name(session)
        if name in self._kept:
            self._change(lambda kept: kept.pop(name, None))

    def _change(self, change: Callable[[Kept], object]) -> None:
        """Of what the file holds, since servers at other ports may share it."""
        try:
            with FileLock(self._file.with_suffix(".lock"), timeout=10, mode=0o600):
                kept = self._read()
                change(kept)
                write_private(self._file, kept)
                self._kept = kept
        except OSError as error:  # a lock that is never had is one, too
            self._complain(error)
            kept = dict(self._kept)
            change(kept)
            self._kept = kept

    def _read(self) -> Kept:
        """Those that have not ended. A damaged file signs everybody out."""
        now = time.time()
        try:
            found = read_json(self._file) if self._file.exists() else {}
            kept = {str(name): (str(key), float(ends)) for name, (key, ends) in found.items() if now < ends}
            if any(len(bytes.fromhex(key)) != hashlib.sha256().digest_size for key, _ in kept.values()):
                raise ValueError
        except (UserError, AttributeError, TypeError, ValueError):
            log.warning("%s: not a file of sessions; everybody is signed out", self._file)
            return {}
        return kept

    def _complain(self, error: OSError) -> None:
        if not self._told:
            log.warning("%s: cannot be used (%s); a new start signs everybody out", self._file, error.strerror or type(error).__name__)
        self._told = True


def _name(session: bytes) -> str:
    return digest(session).hex()
