"""Steps in the order in which they may run, and the time that takes; worked by hand on five steps."""

from pathlib import Path

import pytest

from llamaherd.recipe.schedule import Schedule, needs
from llamaherd.recipe.steps import Step
from llamaherd.stages.sft import SftConfig

RUN = Path("runs/x")
EXPECTED_S = {"a": 4.0, "b": 1.0, "c": 5.0, "d": 2.0, "e": 3.0}


def step(name: str, *waits: str) -> Step:
    values = {"model": "elsewhere/model", "data": [str(RUN / other / "dialogues.jsonl") for other in waits] or ["own.jsonl"]}
    return Step(name, "sft", SftConfig.model_validate(values), 0)


@pytest.fixture
def schedule() -> Schedule:
    """b and c wait for a, d for b, e for c and d: the longest chain is a, c, e."""
    return Schedule([step("a"), step("b", "a"), step("c", "a"), step("d", "b"), step("e", "c", "d")], RUN, EXPECTED_S)


def test_a_step_needs_the_artifacts_that_its_settings_point_to() -> None:
    assert needs(step("e", "c", "d"), RUN) == {"c", "d"}
    assert needs(step("a"), RUN) == set()


def test_the_step_with_the_longest_chain_behind_it_comes_first(schedule: Schedule) -> None:
    assert schedule.chain_s == {"a": 12, "b": 6, "c": 8, "d": 5, "e": 3}
    assert schedule.next([], []) == "a"
    assert schedule.next([], ["a"]) is None
    assert schedule.next(["a"], []) == "c"
    assert schedule.next(["a"], ["c"]) == "b"
    assert schedule.next(["a", "b"], ["c"]) == "d"
    assert schedule.next(["a", "b", "d"], ["c"]) is None
    assert schedule.next(list("abcde"), []) is None


@pytest.mark.parametrize(
    ("done", "workers", "seconds"),
    [("", 1, 15), ("", 2, 12), ("", 9, 12), ("a", 1, 11), ("a", 2, 8), ("abc", 2, 5), ("abcde", 2, 0)],
)
def test_the_time_left(schedule: Schedule, done: str, workers: int, seconds: float) -> None:
    assert schedule.left_s(list(done), workers) == seconds
