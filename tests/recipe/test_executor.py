"""Any list of steps in any folder: what is there is left alone, the rest is made, and the time left counts what comes later."""

import re
from pathlib import Path

import pytest

from llamaherd.core.artifacts import Artifact, open_artifact
from llamaherd.core.errors import UserError
from llamaherd.recipe.chain import chain
from llamaherd.recipe.config import load_recipe
from llamaherd.recipe.executor import Executor, MovingLine, Pace, worked_s
from llamaherd.recipe.steps import Step


@pytest.fixture
def steps(tmp_path: Path) -> list[Step]:
    """The world and its corpus."""
    return chain(load_recipe("tiny"), tmp_path)[:2]


def test_what_is_not_there_is_made_and_what_is_there_is_left_alone(steps: list[Step], tmp_path: Path) -> None:
    said, sampled = list[str](), list[str]()

    def sample(artifact: Artifact) -> str:
        sampled.append(artifact.path.name)
        return "a sample"

    Executor(2, 1, said.append).work_through(steps[:1], tmp_path, {"world": 1.0}, sample)
    before = open_artifact(tmp_path / "world").manifest
    (tmp_path / "world.partial").mkdir()  # as a kill between publishing and cleaning up leaves it
    Executor(2, 1, said.append).work_through(steps, tmp_path, {"world": 1.0, "corpus": 1.0})
    assert open_artifact(tmp_path / "world").manifest == before
    assert not (tmp_path / "world.partial").exists()
    assert re.fullmatch(r"\[ 1/1\]  0:00 left  world  4,000 documents.* \(0:\d\d\)  \|  a sample", said[0])
    assert re.fullmatch(r"\[ 2/2\]  0:00 left  corpus  .* \(0:\d\d\)", said[1])
    assert (len(said), sampled) == (2, ["world"])
    assert worked_s(tmp_path) > 0


def test_the_time_left_counts_what_comes_after_the_chain(steps: list[Step], tmp_path: Path) -> None:
    """Two hours of later work, at a pace that an expectation of a moment cannot move far."""
    said = list[str]()
    executor = Executor(1, 1, said.append, later_s=7200.0)
    executor.pace.spent_s = executor.pace.due_s = 1e6
    executor.work_through(steps[:1], tmp_path, {"world": 0.0})
    assert "2:00:00 left" in said[0]


def test_an_error_of_a_step_is_raised_and_what_was_finished_stays(steps: list[Step], tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()  # in the way of the artifact, and none
    with pytest.raises(UserError, match="world exists already"):
        Executor(1, 1, lambda line: None).work_through(steps, tmp_path, {"world": 1.0, "corpus": 1.0})


def test_the_pace_is_what_was_measured_beside_what_was_expected():
    pace = Pace()
    assert pace.factor == 1
    pace.done(10, 10)
    pace.done(20, 90)
    assert pace.factor == (5 + 10 + 90) / (5 + 10 + 20)


def test_one_moving_line_for_all_steps_at_work(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    moving = MovingLine()
    moving.update("a", "unseen: this is no terminal")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    moving.update("a", "tune 1/9")
    moving.update("b", "")
    moving.update("c", "reward 7/8 and long words")
    moving.clear("a")
    moving.update("c", "reward 8/8")
    start = "\r\x1b[2K"
    assert capsys.readouterr().err == f"{start}  tune 1/9{start}  tune 1/9{start}  tune 1/9   reward 7/8 and l{start}{start}  reward 8/8"
