"""A throw-away PostgreSQL cluster from the binaries that are there, on a free port of loopback."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def binaries() -> Path | None:
    """The folder of `initdb`, or None where PostgreSQL is not installed, or this user may not start it (as root without `postgres`)."""
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name)), Path("/opt/homebrew/bin")]
    if named := shutil.which("initdb"):
        folders.append(Path(named).resolve().parent)
    found = next((path for path in folders if all((path / name).exists() for name in ("initdb", "postgres", "pg_isready"))), None)
    if found is None or (_as_root() and not _has_user()):
        return None
    return found


def _as_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _has_user() -> bool:
    import pwd

    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return False
    return True


@contextmanager
def cluster(bin: Path) -> Iterator[str]:
    """The URL of a database in it, without its name: `postgresql+psycopg://postgres@127.0.0.1:PORT/`."""
    with tempfile.TemporaryDirectory(prefix="llamaherd-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        other: dict[str, Any] = {"cwd": "/"}
        if _as_root():  # PostgreSQL refuses to run as root
            import pwd

            entry = pwd.getpwnam("postgres")
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            other |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        made = [bin / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        subprocess.run(made, check=True, capture_output=True, **other)
        settings = [f"port={port}", "listen_addresses=127.0.0.1", "fsync=off", "max_connections=60", f"unix_socket_directories={folder}"]
        command = [bin / "postgres", "-D", folder / "data", *(word for setting in settings for word in ("-c", setting))]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **other)
        try:
            ready = [bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
            while subprocess.run(ready, check=False).returncode:
                assert server.poll() is None, "PostgreSQL did not start"
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/"
        finally:
            server.send_signal(signal.SIGQUIT)  # at once, and without tidying up
            server.wait(20)
