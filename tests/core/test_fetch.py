"""Files of a repository on disk, against a hub that breaks off, forgets, lies and sends too much or too little."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamaherd.core import fetch as fetching
from llamaherd.core.errors import UserError
from llamaherd.core.fetch import digest_of, fetch, size_text
from llamaherd.core.hub import RemoteFile, described, repository

from .loopback import LoopbackHub

WEIGHTS = random.Random(0).randbytes(300_000)
FILES = {"config.json": b'{"a": 1}', "w.safetensors": WEIGHTS, "empty.txt": b""}
NAME = "owner/model"


def fetched(folder: Path, said: list[str] | None = None) -> dict[str, str]:
    repo = repository(NAME, "model")
    files = described(repo, repo.files)
    return dict(fetch(repo, files, folder / "files", folder / "parts", (said if said is not None else []).append))


def whole(folder: Path, files: dict[str, bytes] = FILES) -> bool:
    return {path.name: path.read_bytes() for path in (folder / "files").iterdir()} == files and not list((folder / "parts").iterdir())


def test_files_come_with_their_hashes_and_what_is_left_is_said(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add(f"models/{NAME}", FILES)
    said: list[str] = []
    assert fetched(tmp_path, said) == {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    assert whole(tmp_path)
    assert said[0] == f"{NAME} at commit {'a' * 40}: 3 files, 300.01 kB; 0 bytes here, 300.01 kB left"
    assert [line for line in said if line.startswith("w.safetensors: 300.00 kB, hash agrees; ")]
    assert said[-1].endswith("; 0 bytes left")
    again: list[str] = []
    before = len(hub.asked)
    fetched(tmp_path, again)
    assert again == [f"{NAME} at commit {'a' * 40}: 3 files, 300.01 kB; 300.01 kB here, 0 bytes left"]
    assert not [path for method, path, _ in hub.asked[before:] if method == "GET" and "resolve" in path]


def test_a_broken_connection_goes_on_from_the_byte_where_it_stopped(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add(f"models/{NAME}", FILES, cut={"w.safetensors": [100_001, 50_000, 7]})
    said: list[str] = []
    fetched(tmp_path, said)
    assert whole(tmp_path)
    assert hub.ranges("w.safetensors")[1::2] == ["", "bytes=100001-", "bytes=150001-", "bytes=150008-"]  # every second is the redirect
    assert "w.safetensors: stopped at 100,001 of 300,000 bytes; going on from there" in said


def test_what_came_before_a_failure_is_used_by_the_next_start(hub: LoopbackHub, tmp_path: Path) -> None:
    repo = hub.add(f"models/{NAME}", FILES, cut={"w.safetensors": [12_345, 0, 0, 0, 0, 0]})
    with pytest.raises(UserError, match="cannot be reached, or broke off"):
        fetched(tmp_path)
    assert not (tmp_path / "files" / "w.safetensors").exists()
    repo.cut.clear()
    repo.commit = "b" * 40  # the branch moved, the file did not change
    hub.asked.clear()
    said: list[str] = []
    fetched(tmp_path, said)
    assert whole(tmp_path)
    assert set(hub.ranges("w.safetensors")) == {"bytes=12345-"}
    assert "12.3" in said[0]
    assert f"{size_text(300_000 - 12_345)} left" in said[0]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_hub_without_ranges_is_read_from_the_first_byte(hub: LoopbackHub, tmp_path: Path, ranges: bool) -> None:
    hub.add(f"models/{NAME}", FILES, cut={"w.safetensors": [99_000]}, ranges=ranges)
    fetched(tmp_path)
    assert whole(tmp_path)


SECOND_START = """
import sys
from pathlib import Path
from tests.core.test_fetch import fetched
fetched(Path(sys.argv[1]))
"""


def test_a_killed_process_leaves_what_came_and_the_next_goes_on_from_there(hub: LoopbackHub, tmp_path: Path) -> None:
    repo = hub.add(f"models/{NAME}", FILES)
    repo.cut["w.safetensors"] = [150_000]  # then it waits before it tries again, and is killed there
    environment = {**os.environ, "HF_HUB_OFFLINE": "0"}
    process = subprocess.Popen([sys.executable, "-c", SECOND_START, str(tmp_path)], cwd=Path(__file__).parents[2], env=environment)
    end = time.monotonic() + 60
    while sum(part.stat().st_size for part in tmp_path.glob("parts/*")) < 150_000 and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "files" / "w.safetensors").exists()
    here = max(part.stat().st_size for part in (tmp_path / "parts").iterdir())
    assert here == 150_000
    hub.asked.clear()
    fetched(tmp_path)
    assert whole(tmp_path)
    assert set(hub.ranges("w.safetensors")) == {"bytes=150000-"}


def test_a_lie_about_a_hash_leaves_nothing_under_the_name(hub: LoopbackHub, tmp_path: Path) -> None:
    repo = hub.add(f"models/{NAME}", FILES, content={"w.safetensors": WEIGHTS[:-1] + b"?"})
    with pytest.raises(UserError, match=rf"^{NAME}: w.safetensors came whole and has another hash than the hub states \(sha256 "):
        fetched(tmp_path)
    assert not (tmp_path / "files" / "w.safetensors").exists()
    assert not [part for part in (tmp_path / "parts").iterdir() if part.stat().st_size > 100]
    repo.content = {"config.json": b'{"a": 2}'}
    with pytest.raises(UserError, match="config.json came whole and has another hash than the hub states .git SHA-1 "):
        fetched(tmp_path / "other")
    repo.content.clear()
    fetched(tmp_path)
    assert whole(tmp_path)


@pytest.mark.parametrize("name", ["w.safetensors", "config.json"])
def test_a_listing_and_a_file_that_state_two_hashes(hub: LoopbackHub, tmp_path: Path, name: str) -> None:
    hub.add(f"models/{NAME}", FILES, etags={name: "f" * (64 if name == "w.safetensors" else 40)})
    with pytest.raises(UserError, match=f"{name}: the hub gives two hashes for it"):
        fetched(tmp_path)


def test_a_part_that_was_damaged_on_disk_is_fetched_anew(hub: LoopbackHub, tmp_path: Path) -> None:
    repo = hub.add(f"models/{NAME}", FILES, cut={"w.safetensors": [200_000, 0, 0, 0, 0]})
    with pytest.raises(UserError):
        fetched(tmp_path)
    part = max((tmp_path / "parts").iterdir(), key=lambda path: path.stat().st_size)
    part.write_bytes(bytes(100) + part.read_bytes()[100:])
    repo.cut.clear()
    said: list[str] = []
    fetched(tmp_path, said)
    assert whole(tmp_path)
    assert "w.safetensors: what was here of it was damaged; it is fetched anew" in said


def test_a_file_that_was_damaged_on_disk_is_fetched_anew(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add(f"models/{NAME}", FILES)
    fetched(tmp_path)
    (tmp_path / "files" / "w.safetensors").write_bytes(WEIGHTS[:-1] + b"?")
    fetched(tmp_path)
    assert whole(tmp_path)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (310_000, "cannot be reached, or broke off .w.safetensors ended at 300,000 of 310,000 bytes"),
        (290_000, "sends more of w.safetensors than"),
    ],
)
def test_a_wrong_length(hub: LoopbackHub, tmp_path: Path, told: int, words: str) -> None:
    hub.add(f"models/{NAME}", FILES, sizes={"w.safetensors": told})
    with pytest.raises(UserError, match=words):
        fetched(tmp_path)
    assert not (tmp_path / "files" / "w.safetensors").exists()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_passes_is_tried_again(hub: LoopbackHub, tmp_path: Path, status: int) -> None:
    hub.add(
        f"models/{NAME}",
        FILES,
        status={"GET w.safetensors": [status, status, 200], "api": [status, 200], "HEAD config.json": [status, 200]},
    )
    fetched(tmp_path)
    assert whole(tmp_path)


@pytest.mark.parametrize(
    ("status", "words"), [(500, r"the hub fails \(500\)"), (429, r"too many requests \(429\)"), (404, "no such|not there")]
)
def test_what_stays_is_said(hub: LoopbackHub, tmp_path: Path, status: int, words: str) -> None:
    hub.add(f"models/{NAME}", FILES, status={"GET w.safetensors": [status]})
    with pytest.raises(UserError, match=words):
        fetched(tmp_path)


def test_no_room_is_said_before_anything_comes(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(f"models/{NAME}", FILES)
    usage = type("Usage", (), {"free": 250_000})
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"300.01 kB are left to fetch and 250.00 kB free; make room"):
        fetched(tmp_path)
    assert not hub.ranges("w.safetensors")


def test_a_full_disk_keeps_what_came(hub: LoopbackHub, tmp_path: Path, small_files) -> None:  # type: ignore[no-untyped-def]
    hub.add(f"models/{NAME}", FILES)
    with small_files(100_000), pytest.raises(OSError, match="File too large") as stopped:
        fetched(tmp_path)
    assert str(stopped.value.filename).startswith(str(tmp_path / "parts"))
    fetched(tmp_path)
    assert whole(tmp_path)
    assert hub.ranges("w.safetensors")[-1].startswith("bytes=")


def test_the_token_goes_to_the_hub_and_not_to_where_it_sends(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.add(f"models/{NAME}", FILES)
    fetched(tmp_path)
    seen = {(path.startswith("/cdn"), sent.get("authorization")) for _, path, sent in hub.asked}
    assert seen == {(False, "Bearer hf_secret"), (True, None)}


def test_no_telemetry_and_no_other_path(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils._runtime import is_xet_available

    monkeypatch.setenv("AI_AGENT", "x")
    hub.add(f"models/{NAME}", FILES)
    fetched(tmp_path)
    assert constants.HF_HUB_DISABLE_TELEMETRY
    assert not is_xet_available()
    assert {path.split("/")[1] for _, path, _ in hub.asked} == {"api", "owner", "cdn"}
    assert not [sent for _, _, sent in hub.asked if "torch" in sent["user-agent"] or "agent/" in sent["user-agent"]]


def test_a_failure_ends_what_else_is_waiting_at_once(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "WAITS_S", (60.0,))
    hub.add(f"models/{NAME}", FILES, cut={"w.safetensors": [9, 0]}, content={"config.json": b'{"a": 2}'})
    started = time.monotonic()
    with pytest.raises(UserError, match="config.json came whole and has another hash"):
        fetched(tmp_path)
    assert time.monotonic() - started < 30


def test_a_link_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to("a")
    file = RemoteFile("b", 1, hashlib.sha256(b"x").hexdigest())
    assert digest_of(tmp_path / "a", file) == file.sha256
    assert digest_of(tmp_path / "b", file) is None


@pytest.mark.parametrize(("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.50 kB"), (13_480_000_000, "13.48 GB")])
def test_sizes_as_people_read_them(size: int, text: str) -> None:
    assert size_text(size) == text
