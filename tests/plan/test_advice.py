"""Advice is true: with it, the plan fits."""

import pytest

from llamaherd.core.config import parse_overrides
from llamaherd.model.config import PRESETS
from llamaherd.plan.advice import advise, spelled
from llamaherd.plan.forecast import TASKS, Question, Task, forecast
from llamaherd.plan.machine import Machine, parse_bytes
from llamaherd.plan.target import Target


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("name", "gigabytes"), [("llama2-7b", 12), ("llama2-7b", 80), ("stories-110m", 2), ("stories-110m", 4)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_with_any_advice_it_fits(task: Task, name: str, gigabytes: int, device: str) -> None:
    machine = Machine(device, gigabytes * 10**9, 400_000_000)
    question = Question(task, Target(name, PRESETS[name]), {})
    advice = advise(question, machine)
    assert bool(advice) != forecast(question, machine).fits
    for one in advice[:-1]:
        changes = parse_overrides(one.change.split())
        context = changes.pop("context", None)
        then = forecast(Question(task, question.target, changes, context), machine)
        assert then.total_bytes == one.total_bytes
        assert then.fits
    for one in advice[-1:]:
        larger = Machine(device, parse_bytes(one.change.partition("=")[2].partition(",")[0]), 400_000_000)
        assert forecast(question, larger).fits


def test_the_mildest_change_of_a_kind_is_named() -> None:
    question = Question("sft", Target("stories-110m", PRESETS["stories-110m"]), {"micro_rows": 8, "row_tokens": 1024})
    machine = Machine("cpu", 9 * 10**9, 400_000_000)
    changes = [one.change for one in advise(question, machine)]
    rows = next(change for change in changes if change.startswith("--micro-rows"))
    twice = 2 * int(rows.partition("=")[2])
    assert not forecast(question.also(micro_rows=twice), machine).fits


def test_settings_are_spelled_as_on_the_command_line() -> None:
    assert spelled({"ppo__micro_batch": 2, "checkpointing": True}) == "--ppo.micro-batch=2 --checkpointing=true"
