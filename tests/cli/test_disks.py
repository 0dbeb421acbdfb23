"""Folders that cannot be written."""

import os
import subprocess

import pytest


@pytest.fixture
def read_only(tmp_path):
    """A folder in which nothing can be written, not even by root."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        if os.name != "posix" or os.geteuid() == 0:
            pytest.skip("neither a read-only mount nor permissions keep this user from writing")
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
    else:
        yield folder
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_folder(refused, workshop, read_only, monkeypatch):
    monkeypatch.chdir(workshop.folder)
    for arguments in (["data", "build", "--documents=documents.jsonl"], ["run", "tiny"]):
        line = refused(*arguments, f"--out={read_only / 'x'}", code=1)
        assert line.startswith(f"{read_only}")
        assert "Read-only file system" in line or "Permission denied" in line
