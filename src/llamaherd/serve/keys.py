"""Keys: who may ask, by name. Only hashes are kept; a key is shown once, when it is made."""

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..core.errors import UserError, did_you_mean
from ..core.files import read_json, replacing

FILE = "keys.json"
FIRST = "local"
"""Name of the key that is made at the first start: what was said without keys on this machine stays with its holder."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def digest(key: bytes) -> bytes:
    """What is kept of a key. A plain SHA-256, since keys are 256 random bits: no list of likely ones exists that a slow hash would hold up."""
    return hashlib.sha256(key).digest()


def write_private(file: Path, value: Any) -> None:
    """JSON that only its owner may read; the file is whole or what it was. Raises OSError."""
    with replacing(file) as beside:
        beside.touch(mode=0o600)
        beside.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


class Keys:
    """The keys of a state folder, read again whenever their file changed, so that adding and removing needs no new start."""

    def __init__(self, folder: Path):
        self.file = folder / FILE
        self._seen: tuple[int, int, int] | None = None
        self._owners: dict[bytes, str] = {}

    def owner(self, key: bytes) -> str | None:
        """Name of the key's holder. Compared with every key in constant time, so that the time taken says nothing."""
        return self.owner_of(digest(key))

    def owner_of(self, hashed: bytes) -> str | None:
        """The same for the hash of a key."""
        self._refresh()
        found = None
        for known, name in self._owners.items():
            if hmac.compare_digest(known, hashed):
                found = name
        return found

    def names(self) -> list[str]:
        """Raises UserError for a damaged file."""
        return list(self._read())

    def add(self, name: str) -> str:
        """A new key for a new name, as text that is kept nowhere. Raises UserError."""
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r:.80} is no name for a key; give letters, digits and . _ @ -, at most 64, a letter or digit first")
        key = f"lh-{secrets.token_urlsafe(32)}"
        with self._alone():
            kept = self._read()
            if name in kept:
                raise UserError(f"there is a key of {name} already; remove it first, or choose another name")
            write_private(self.file, {**kept, name: {"sha256": digest(key.encode()).hex(), "created_s": int(time.time())}})
        return key

    def remove(self, name: str) -> None:
        """Ends a key and every browser session that was begun with it. Raises UserError."""
        with self._alone():
            kept = self._read()
            if name not in kept:
                there = f"there are {', '.join(kept)}" if kept else "there is none"
                raise UserError(f"no key of {name!r:.80}{did_you_mean(name, kept)}; {there}")
            del kept[name]
            write_private(self.file, kept)

    def _alone(self) -> FileLock:
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock(self.file.with_suffix(".lock"), mode=0o600)

    def _read(self) -> dict[str, Any]:
        if not self.file.exists():
            return {}
        kept = read_json(self.file)
        try:
            if any(len(bytes.fromhex(entry["sha256"])) != hashlib.sha256().digest_size for entry in kept.values()):
                raise ValueError
        except (AttributeError, TypeError, KeyError, ValueError):
            raise UserError(f"{self.file}: not a file of keys; remove it and make the keys again") from None
        return dict(kept)

    def _refresh(self) -> None:
        """Nobody gets in by a file that is gone; one that is damaged is an error of the server."""
        try:
            now = os.stat(self.file)
        except FileNotFoundError:
            self._seen, self._owners = None, {}
            return
        seen = (now.st_mtime_ns, now.st_size, now.st_ino)
        if seen != self._seen:
            self._owners = {bytes.fromhex(entry["sha256"]): name for name, entry in self._read().items()}
            self._seen = seen
