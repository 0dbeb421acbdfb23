"""Kill -9, a second process, a read-only folder: what other processes and the system may do to a build."""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import filelock  # noqa: F401  (imported before a child gives up the rights to read the packages)
import pytest

from llamaherd.core.artifacts import Artifact, building, code_version, find_artifact, hash_files, locked
from llamaherd.core.chunks import in_chunks
from llamaherd.core.config import Config
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_json, write_json, write_text
from llamaherd.core.metrics import MetricsLog, read_metrics

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

ITEMS = list(range(40))


class Settings(Config):
    """None are needed."""


def child(work: Callable[[], object]) -> int:
    """Runs `work` in a process of its own, whose exit status tells how it went: 0 well, 1 UserError, 2 OSError."""
    process = os.fork()
    if process:
        return process
    status = 3
    try:
        work()
        status = 0
    except UserError:
        status = 1
    except OSError as error:
        status = 2 if error.filename else 3
    finally:
        os._exit(status)


def ended(process: int) -> int:
    """Exit status of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "the child did not get there"
        time.sleep(0.001)


def built(out: Path) -> None:
    """A stage in small: chunks with state, metrics that resume, large files."""
    with building(out, kind="samples", stage="test", config=Settings(), parents={}, seed=0) as place:
        done = place.state / "step.json"
        step = read_json(done) if done.exists() else 0
        log = MetricsLog(place.state / "metrics.jsonl", resume_step=step)
        for number in range(step + 1, 31):
            log.write(number, {"loss": 1 / number})
            write_json(done, number)
        log.close()

        def work(chunk: Sequence[int], first: int) -> list[dict[str, int]]:
            return [{"item": item, "first": first} for item in chunk]

        rows = in_chunks(place.state / "chunks", ITEMS, 4, work)
        place.metrics["items"] = [row["item"] for row in rows]
        write_text(place.folder / "metrics.jsonl", (place.state / "metrics.jsonl").read_text())
        for name in "abc":
            (place.folder / name).write_bytes(name.encode() * 100_000)


def whole_or_absent(out: Path, reference: Artifact) -> bool:
    """Whether the artifact is there, which then must be the reference to the last byte."""
    if not out.exists():
        return False
    found = find_artifact(out)
    assert found
    assert hash_files(out) == found.manifest["files"] == reference.manifest["files"]
    assert found.hash == reference.hash
    assert found.metrics == reference.metrics
    return True


@pytest.fixture
def reference(tmp_path: Path) -> Artifact:
    assert ended(child(lambda: built(tmp_path / "unbroken" / "out"))) == 0
    found = find_artifact(tmp_path / "unbroken" / "out")
    assert found
    assert found.metrics["items"] == ITEMS
    return found


def test_kills_at_random_moments_leave_it_whole_or_absent(tmp_path: Path, reference: Artifact) -> None:
    rng, out, kills, span_s = random.Random(0), tmp_path / "out", 0, 0.1
    for _ in range(40):
        process = child(lambda: built(out))
        time.sleep(rng.random() * span_s)
        os.kill(process, signal.SIGKILL)
        kills += ended(process) == -signal.SIGKILL
        if whole_or_absent(out, reference):
            span_s *= 0.7  # a later kill would come too late again
            shutil.rmtree(out)
            shutil.rmtree(tmp_path / "out.partial", ignore_errors=True)
    assert kills >= 10, "most kills came too late to mean anything"


def test_kills_at_file_operations_change_nothing_of_the_result(tmp_path: Path, reference: Artifact) -> None:
    counter = tmp_path / "operations"

    def killed_at(out: Path, last: int) -> None:
        count = 0

        def hook(event: str, _: object) -> None:
            nonlocal count
            count += event.startswith(("open", "os.", "shutil."))
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        built(out)
        counter.write_text(str(count))

    assert ended(child(lambda: killed_at(tmp_path / "counted", -1))) == 0
    operations = int(counter.read_text())
    for last in [*range(1, operations - 40, 29), *range(operations - 40, operations)]:
        out = tmp_path / str(last)
        assert ended(child(partial(killed_at, out, last))) == -signal.SIGKILL
        if not whole_or_absent(out, reference):
            assert ended(child(partial(built, out))) == 0
            assert whole_or_absent(out, reference)


def test_a_finished_chunk_is_never_worked_again(tmp_path: Path) -> None:
    folder, worked = tmp_path / "chunks", tmp_path / "worked"

    def work(chunk: Sequence[int], first: int) -> list[dict[str, int]]:
        with worked.open("a") as file:
            file.write(f"{first}\n")
        if first == 12 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [{"item": item} for item in chunk if item % 2]

    assert ended(child(lambda: in_chunks(folder, ITEMS, 4, work))) == -signal.SIGKILL
    assert [row["item"] for row in in_chunks(folder, ITEMS, 4, work)] == ITEMS[1::2]
    starts = [int(line) for line in worked.read_text().split()]
    assert starts == [0, 4, 8, 12, 12, 16, 20, 24, 28, 32, 36]


def holding(out: Path, ready: Path) -> Callable[[], None]:
    def hold() -> None:
        with building(out, kind="samples", stage="test", config=Settings(), parents={}, seed=0) as place:
            write_json(place.state / "step.json", 7)
            ready.touch()
            time.sleep(60)

    return hold


def test_a_second_process_is_refused_and_a_kill_frees_the_lock(tmp_path: Path) -> None:
    out, ready = tmp_path / "out", tmp_path / "ready"
    first = child(holding(out, ready))
    until(ready.exists)
    with pytest.raises(UserError, match=r"out is in use by another llamaherd process"):
        built(out)
    assert ended(child(lambda: built(out))) == 1
    os.kill(first, signal.SIGKILL)
    assert ended(first) == -signal.SIGKILL
    with building(out, kind="samples", stage="test", config=Settings(), parents={}, seed=0) as place:
        assert read_json(place.state / "step.json") == 7
    assert find_artifact(out)


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="mine"), locked(tmp_path / "deep" / "lock", "it"):
            raise RuntimeError("mine")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can reach (those of tmp_path belong to one)."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_a_read_only_folder_is_named_and_nothing_in_it_lost(open_folder: Path) -> None:
    write_text(open_folder / "x.txt", "old")
    open_folder.chmod(0o555)
    code_version()

    def as_anyone(work: Callable[[], object]) -> int:
        def unprivileged() -> None:
            if os.getuid() == 0:
                os.setuid(65534)
            work()

        return ended(child(unprivileged))

    assert as_anyone(lambda: write_text(open_folder / "x.txt", "new")) == 2
    assert as_anyone(lambda: built(open_folder / "out")) == 2
    assert as_anyone(lambda: built(open_folder / "deep" / "out")) == 2
    assert as_anyone(lambda: MetricsLog(open_folder / "m.jsonl")) == 2
    assert os.listdir(open_folder) == ["x.txt"]
    assert (open_folder / "x.txt").read_text() == "old"


def test_metrics_of_a_killed_writer_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"

    def endless() -> None:
        log = MetricsLog(path)
        for step in range(1, 10**9):
            log.write(step, {"loss": 0.5})

    process = child(endless)
    until(lambda: path.exists() and path.stat().st_size > 100_000)
    os.kill(process, signal.SIGKILL)
    ended(process)
    rows = read_metrics(path)
    assert rows == [{"step": step, "loss": 0.5} for step in range(1, len(rows) + 1)]
