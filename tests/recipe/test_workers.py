"""Processes that work on steps: what they say reaches the one who gives orders, and none of them outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamaherd.core.errors import UserError
from llamaherd.recipe.chain import chain
from llamaherd.recipe.config import load_recipe
from llamaherd.recipe.run import run_recipe
from llamaherd.recipe.steps import Step
from llamaherd.recipe.workers import Workers


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def steps(run: Path) -> dict[str, Step]:
    return {step.name: step for step in chain(load_recipe("tiny"), run)}


def test_a_step_is_done_and_the_process_takes_the_next(run: Path, steps: dict[str, Step]) -> None:
    with Workers(run, 1) as workers:
        for name in ("world", "corpus"):
            workers.start(steps[name])
            assert workers.running == {name}
            step, message = workers.wait()
            assert (step, message["done"]) == (name, name)
            assert message["headline"]
            assert message["seconds"] > 0
            assert (run / name / "manifest.json").is_file()
            assert workers.running == set()
        assert len(workers.all) == 1, "an idle one is taken first"
    assert [worker.process.poll() is None for worker in workers.all] == [False]


def test_errors_for_users_arrive_as_such(run: Path, steps: dict[str, Step]) -> None:
    with Workers(run, 1) as workers:
        workers.start(steps["v0"])
        with pytest.raises(UserError, match="base"):
            workers.wait()


def test_a_failing_disk_is_an_os_error(run: Path, steps: dict[str, Step]) -> None:
    run.mkdir()
    (run / "world.partial").write_text("a file where a folder must be")
    with Workers(run, 1) as workers:
        workers.start(steps["world"])
        with pytest.raises(OSError, match="world.partial"):
            workers.wait()


def test_a_process_that_is_killed_is_named(run: Path, steps: dict[str, Step]) -> None:
    with Workers(run, 1) as workers:
        workers.start(steps["world"])
        workers.all[0].process.kill()
        with pytest.raises(UserError, match="that worked on world ended with code -9; is memory short"):
            workers.wait()


def test_training_tells_how_far_it_is(run: Path, steps: dict[str, Step]) -> None:
    with Workers(run, 1) as workers:
        for name in ("world", "corpus", "tokenizer", "shards", "base"):
            workers.start(steps[name])
            messages = [workers.wait()[1]]
            while "done" not in messages[-1]:
                messages.append(workers.wait()[1])
    assert any(message.get("progress", "").startswith("pretrain ") for message in messages)


def test_nobody_outlives_the_one_who_gives_orders(tmp_path: Path) -> None:
    """Killed with -9, the run leaves no process that would still hold its locks."""
    command = [sys.executable, "-m", "llamaherd.cli", "run", "tiny", "--pretrain.steps=100000", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while not (tmp_path / "run" / "base.partial" / "metrics.jsonl").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    for _ in range(500):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("a worker went on by itself")


def test_an_error_of_a_step_ends_the_run_and_all_its_processes(tmp_path: Path) -> None:
    recipe = load_recipe("tiny", ["--corpus.filters.min_characters=100000"])
    with pytest.raises(UserError, match="no document is left"):
        run_recipe(recipe, tmp_path / "run", lambda line: None)
    assert (tmp_path / "run" / "world" / "manifest.json").is_file()
