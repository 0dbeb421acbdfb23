"""Memory by role: counted by hand, beside what torch's allocator says was alive in whole iterations, and as it is printed."""

from dataclasses import replace
from typing import Any

import pytest
from benchmarks.ppo import Run, ours, work_of
from tests.train.test_memory import peak_of

from llamaherd.chat.dialogue import Message, checked
from llamaherd.core.config import build, parse_overrides
from llamaherd.data.records import Prompt
from llamaherd.model.config import PRESETS, LoraConfig, ModelConfig
from llamaherd.model.memory import Pass
from llamaherd.rlhf.config import PpoConfig, RolesConfig
from llamaherd.rlhf.memory import Work, held, instants, table
from llamaherd.train.config import OptimizerConfig

SHAPE = ModelConfig(dim=96, layers=4, heads=4, kv_heads=2, ffn=256, vocab_size=700, context=128)


def run_of(**values: Any) -> Run:
    settings = {
        "iterations": 2, "batch": 16, "mini_batch": 8, "micro_batch": 4, "max_new_tokens": 24, "check_every": 100, "kl_budget_nats": 1e9,
        "sampling_gap_nats": 1.0, "signal": {"unfinished": "score"}, "samples": 0,
    }  # fmt: skip
    prompts = [Prompt(checked([Message("user", " ".join(map(str, range(3 + number, 43 + number))))]), False) for number in range(16)]
    return Run(SHAPE, prompts, build(PpoConfig, settings | values.pop("ppo", {})), 0, judges=2, lora=LoraConfig(r=4), **values)


@pytest.mark.parametrize(
    ("roles", "values"),
    [
        ("separate", {}), ("adapter", {}), ("head", {}), ("adapter", {"checkpointing": True}), ("separate", {"checkpointing": True}),
        ("adapter", {"ppo": {"micro_batch": 8}}), ("head", {"ppo": {"max_new_tokens": 64, "micro_batch": 1}}),
    ],
)  # fmt: skip
def test_whole_iterations_hold_what_was_counted(roles: str, values: dict[str, Any]) -> None:
    run = run_of(**values)
    iteration = ours(run, roles)
    iteration()  # afterwards gradients and moments are there
    work = work_of(run, roles)
    throughout = sum(sum(parts.values()) for parts in held(work).values())
    # The profile begins with what is held throughout, gradients included, so that its peak is what comes on top.
    counted = max(one.total for one in instants(work))
    measured = throughout + max(0, peak_of(iteration))
    assert counted == pytest.approx(measured, rel=0.15), (counted, measured, throughout)


def test_roles_on_one_base_hold_little_more_than_the_base() -> None:
    run = run_of()
    apart, shared = (sum(sum(parts.values()) for parts in held(work_of(run, roles)).values()) for roles in ("separate", "adapter"))
    base = SHAPE.parameters * 4
    assert shared < 1.6 * base < 9 * base < apart


def seven(**roles: Any) -> Work:
    config = build(PpoConfig, {"micro_batch": 8, "sampler": {"together": 64}})
    lora = LoraConfig(r=16)
    step = [Pass((511,) * 8, 256 * 8)] * 8
    return Work(
        PRESETS["llama2-7b"], [lora, lora], config, OptimizerConfig(), step, RolesConfig(lora=lora, **roles), False, True, False, True
    )  # fmt: skip


def test_a_7b_by_hand() -> None:
    adapter = 4 * 32 * 16 * (4 * 2 * 4096 + 3 * (4096 + 11008))
    found = held(seven(bits=16))
    assert found["base"] == {"weights": 2 * 6_738_415_616}
    assert found["policy"] == {"adapters": adapter, "gradients": adapter, "optimizer": 2 * adapter}
    assert found["critic"] == found["policy"]
    assert found["helpfulness"] == {"adapters": adapter + 4 * 4096}
    assert found["reference"] == {"adapters": 0}
    assert held(seven(bits=16, critic="head"))["critic"] == {"adapters": 4 * 4096, "gradients": 4 * 4096, "optimizer": 8 * 4096}
    sampling = next(one for one in instants(seven(bits=16)) if one.name == "sampling")
    assert sampling.roles["policy"]["cache"] == 64 * 512 * 32 * (2 * 2 * 32 * 128 + 2)
    assert max(one.total for one in instants(seven(bits=16))) < 60e9
    assert max(one.total for one in instants(seven(bits=4))) < 40e9


def test_a_rollout_of_any_size_is_sampled_in_chunks_that_fit_the_stated_memory() -> None:
    """Ten times the answers need no more while they are sampled."""
    given = {"sampler": {"memory_gib": 0.001}}
    small, large = (work_of(run_of(ppo=given | {"batch": size}), "separate") for size in (16, 160))
    assert small.rows == large.rows < 16
    of = lambda work: next(one.moment.parts["cache"] for one in instants(work) if one.name == "sampling")  # noqa: E731
    assert of(small) == of(large) < 0.001 * 2**30


def test_the_table() -> None:
    lines = table(seven(bits=4), 24 * 10**9)
    assert lines[0].split()[:4] == ["memory", "by", "role,", "MB"]
    assert lines[0].split()[4:] == ["weights", "adapters", "gradients", "optimizer", "cache", "activations"]
    assert [line.split("  ")[0].strip() for line in lines[1:7]] == [
        "base, 4 bits",
        "policy",
        "critic",
        "reference",
        "helpfulness",
        "safety",
    ]
    assert lines[7].startswith("all at once, sampling")
    assert lines[8] == "needs 22.91 GB of 24.0 GB; answers are sampled 64 at a time"
    assert table(seven(bits=4), 10**9)[8].startswith("does not fit: needs 22.91 GB of 1.0 GB")


def test_the_guard_is_a_whole_model_beside_the_others() -> None:
    work = seven(bits=16)
    guarded = replace(work, judges=[*work.judges, PRESETS["llama2-7b"]])
    assert held(guarded)["guard"] == {"weights": 4 * (6_738_415_616 - 32_000 * 4096 + 4096)}
    assert table(guarded, None)[7].startswith("guard")
    assert max(one.total for one in instants(guarded)) - max(one.total for one in instants(work)) >= held(guarded)["guard"]["weights"]


@pytest.mark.parametrize("gigabytes", [32, 24, 12, 8])
def test_what_does_not_fit_is_told_what_would(gigabytes: int) -> None:
    """Each line's settings, given, need what it says."""
    work, free = replace(seven(bits=16), checkpointing=False), gigabytes * 10**9
    lines = table(work, free)
    assert lines[8].startswith("does not fit: ")
    for line in lines[9:]:
        assert line.startswith("fits with ")
        settings, _, size = line.removeprefix("fits with ").partition(": ")
        changes = parse_overrides(settings.split())
        step = work.step
        if rows := changes.get("ppo.micro_batch"):
            step = [Pass((511,) * rows, 256 * rows)] * (64 // rows)
        together = changes.get("ppo.sampler.together", 64)
        ppo = work.ppo.model_copy(update={"sampler": work.ppo.sampler.model_copy(update={"together": together})})
        roles = RolesConfig(lora=LoraConfig(r=16), bits=changes.get("roles.bits", 16))
        then = replace(work, ppo=ppo, roles=roles, step=step, checkpointing=changes.get("checkpointing", False))
        total = max(one.total for one in instants(then))
        assert total <= free
        assert size == f"{total / 1e9:,.2f} GB"
    assert len(lines) > 9


def test_what_can_never_fit_says_so() -> None:
    assert table(seven(bits=16), 10**9)[-1].startswith("even with --ppo.sampler.together=1 ")
