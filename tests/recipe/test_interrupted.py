"""A run that meets kill -9 in the middle of three stages, or a full disk, ends as one that nothing disturbed."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.files import read_json
from llamaherd.core.metrics import read_metrics

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs kill -9 and limits of the system")

STAGES = {
    "training": ["base", "v0", "v1", "v2", "v3", "v4", "v5-rejection"],
    "sampling": [f"v{n}-{what}" for n in range(1, 6) for what in ("preferences", "samples")] + ["ghost", "distilled"],
    "rewarding": [f"v{n}-{domain}" for n in range(1, 6) for domain in ("helpfulness", "safety")] + ["v5"],
}
TIMES = ("seconds", "started", "finished", "tokens_per_s", "flop_utilisation", "energy_wh_estimate", "peak_memory_bytes")


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        timed = {key for key in value if key in TIMES or key.startswith("ppo/seconds_") or key.endswith("tokens_per_s")}
        return {key: without_times(item) for key, item in value.items() if key not in timed}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def results(run: Path) -> dict[str, Any]:
    """All that a run leaves behind, but for times: hashes of all files, training curves, the summary."""
    found = {"summary": without_times(read_json(run / "summary.json"))}
    for path in sorted(run.glob("*/manifest.json")):
        manifest, name = read_json(path), path.parent.name
        found[f"{name}: files"] = {file: digest for file, digest in manifest["files"].items() if file != "metrics.jsonl"}
        found[f"{name}: curve"] = without_times(read_metrics(path.with_name("metrics.jsonl")))
        found[f"{name}: metrics"] = without_times(manifest["metrics"])
    return found


def assert_same_results(run: Path, other: Path) -> None:
    expected, found = results(run), results(other)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not list(other.glob("*.partial"))


def killed_within(command: tuple[str, ...], out: Path, stage: str, delay_s: float) -> dict[str, Any]:
    """Runs the command, kills it `delay_s` after `stage` began and says what stood there then."""
    partial = out / f"{stage}.partial"
    process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (partial / "state").is_dir() and not (out / stage).is_dir():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    time.sleep(delay_s)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run had ended before"
    steps = [int(path.name.removeprefix("step-")) for path in partial.glob("state/step-*")]
    return {
        "finished": {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/manifest.json")},
        "within": partial.is_dir(), "steps": max(steps, default=0), "log": read_metrics(partial / "metrics.jsonl"),
    }  # fmt: skip


@pytest.mark.timeout(400)
def test_kills_in_three_stages_change_nothing(finished_run, tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    chosen = sorted((rng.choice(names) for names in STAGES.values()), key=finished_run.order.index)
    out = tmp_path / "tiny"
    killed = {}
    for stage in chosen:
        seconds = read_json(finished_run.folder / stage / "manifest.json")["seconds"]
        killed[stage] = killed_within(finished_run.command, out, stage, rng.uniform(0.1, 0.8) * seconds)
        told = {key: value for key, value in killed[stage].items() if key in ("within", "steps")}
        print(f"seed {seed}: killed in {stage} ({seconds:.2f} s), {told}")
    done = subprocess.run([*finished_run.command, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_results(finished_run.folder, out)
    for stage, then in killed.items():
        # What was finished is not made again, and the steps before the last saved state are not trained again: their
        # measured times are still those of the first start.
        assert {name: (out / name / "manifest.json").stat().st_mtime_ns for name in then["finished"]} == then["finished"]
        if then["within"]:
            assert read_metrics(out / stage / "metrics.jsonl")[: then["steps"]] == then["log"][: then["steps"]]


def cut_short(run: Path, order: list[str], first: str, folder: Path) -> Path:
    """A copy of a run that has come as far as before the artifact `first`."""
    shutil.copytree(run, folder)
    for name in order[order.index(first) :]:
        shutil.rmtree(folder / name)
    (folder / "summary.json").unlink()
    (folder / "report.html").unlink()
    return folder


@contextlib.contextmanager
def small_disk(folder: Path, used_bytes: int) -> Iterator[tuple[Callable[[], object] | None, Callable[[], object]]]:
    """A disk at `folder` with some room beyond `used_bytes`: (what limits a process at its start, what gives it all space)."""

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, capture_output=True)

    try:
        mount(f"size={used_bytes + (1 << 20)}")
    except (OSError, subprocess.CalledProcessError):
        import resource

        # Whoever may not mount gets a limit on the size of a file, which a model exceeds.
        limit = (300_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit), lambda: None
        return
    try:
        yield None, lambda: mount(f"remount,size={used_bytes * 4}")
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_line_and_loses_nothing(finished_run, tmp_path):
    copy = cut_short(finished_run.folder, finished_run.order, "v5-helpfulness", tmp_path / "copy")
    # Pages of a disk in memory are larger than many of the files.
    used_bytes = sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in copy.rglob("*"))
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, used_bytes) as (limit, relieve):
        shutil.copytree(copy, disk / "tiny")
        command = [*finished_run.command, "--out", str(disk / "tiny")]
        failed = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
        assert failed.returncode == 1
        pattern = r"llamaherd: .*(No space left on device|File too large|os error \d+).*nothing finished is lost.*\n"
        assert re.fullmatch(pattern, failed.stderr), failed.stderr
        relieve()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert_same_results(finished_run.folder, disk / "tiny")


def test_a_run_that_was_moved_goes_on(finished_run, tmp_path):
    moved = cut_short(finished_run.folder, finished_run.order, "v5-evaluation", tmp_path / "elsewhere")
    command = [part for part in finished_run.command if part != sys.executable]
    done = subprocess.run([sys.executable, *command, "--out", "elsewhere"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_results(finished_run.folder, moved)
