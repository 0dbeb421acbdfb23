from pathlib import Path
from typing import Any

import pytest
import torch

from llamaherd.assistant.local import Assistant
from llamaherd.checkpoints.huggingface import load_model, load_scorer
from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build, dump
from llamaherd.core.errors import UserError
from llamaherd.core.metrics import read_metrics
from llamaherd.data.records import parse_prompt
from llamaherd.miniature.world import World, WorldConfig
from llamaherd.stages import ppo

SETTINGS = {"iterations": 3, "batch": 8, "mini_batch": 4, "micro_batch": 4, "max_new_tokens": 12, "beta": 0.05}


def run(folder: Path, inputs: Path, out: Path, settings: dict[str, Any] | None = None, **values: Any) -> Artifact:
    given = {
        "model": str(folder / "v0"), "helpfulness": str(folder / "helpfulness"), "safety": str(folder / "safety"),
        "prompts": str(inputs / "prompts.jsonl"), "ppo": SETTINGS | (settings or {}), "optimizer": {"lr": 1e-3},
    }  # fmt: skip
    return ppo.run(build(ppo.PpoStageConfig, given | values), out, 0)


def test_the_policy_moves_and_is_published_without_its_critic(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    before = (tiny_folder / "v0" / "model.safetensors").read_bytes()
    done = run(tiny_folder, tiny_inputs, tmp_path / "out", oracle=dump(WorldConfig()), held_out=str(tiny_inputs / "harmless.jsonl"))
    assert (tiny_folder / "v0" / "model.safetensors").read_bytes() == before
    start, moved = (Assistant.load(path).model for path in (tiny_folder / "v0", done.path))
    assert not any(a.equal(b) for a, b in zip(start.parameters(), moved.parameters(), strict=True))
    assert done.kind == "model"
    assert not list(done.path.rglob("*critic*"))
    # Twelve prompts in batches of eight: epochs of eight and four, that is two mini-batches and one.
    assert (done.metrics["iterations"], done.metrics["steps"], done.metrics["stopped"]) == (3, 5, None)
    rows = read_metrics(done.path / "metrics.jsonl")
    assert ["ppo/oracle" in row for row in rows] == [True, False, True, True, False]
    assert rows[0]["ppo/kl_k3"] == pytest.approx(0, abs=1e-5)
    assert rows[2]["ppo/kl_k3"] > 1e-5
    assert all(row["ppo/sampling_gap"] < 1e-3 for row in rows if "ppo/sampling_gap" in row)
    [first, last] = done.metrics["looks"]  # before the first iteration, and after the last one, which is always looked at
    best = max(first, last, key=lambda look: look["reward"])
    assert (first["iteration"], last["iteration"]) == (0, 3)
    assert first["kl"]["value"] == pytest.approx(0, abs=1e-5)
    assert done.metrics["published_iteration"] == best["iteration"]
    assert done.metrics["kl"] == best["kl"]
    assert best["kl"]["n"] == 6, "answers to held-out prompts"
    moved = f"held-out reward {first['reward']:.2f} to {best['reward']:.2f}, KL {best['kl']['value']:.2f} nats (budget 20)"
    assert ppo.headline(done) == f"3 iterations, the policy after {best['iteration']} published: {moved}"


def test_saved_states_hold_policy_and_critic_for_others_to_load(
    tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llamaherd.train.loop as loop

    kept = []

    def save_state(folder: Path, step: int, files: Any, *rest: Any) -> None:
        files.save(tmp_path / f"state-{step}")
        kept.append(step)

    monkeypatch.setattr(loop, "save_state", save_state)
    done = run(tiny_folder, tiny_inputs, tmp_path / "out", optimizer={"lr": 1e-3, "checkpoint_every_s": 0})
    assert kept == [2, 3], "where an iteration ends, and not after the last one"
    policy, _ = load_model(tmp_path / "state-3" / "policy")
    critic, _ = load_scorer(tmp_path / "state-3" / "critic")
    assert critic.score.weight.abs().max() > 0
    assert torch.isfinite(critic.score.weight).all()
    assert not all(a.equal(b) for a, b in zip(policy.parameters(), load_model(done.path)[0].parameters(), strict=True))


def test_the_policy_that_is_published_keeps_the_budget(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    """The last update of all is looked at too."""
    for iterations in (1, 50):
        settings = {"iterations": iterations, "kl_budget_nats": 0.02, "check_every": 1}
        done = run(tiny_folder, tiny_inputs, tmp_path / str(iterations), settings, optimizer={"lr": 3e-2, "schedule": "constant"})
        assert done.metrics["looks"][-1]["kl"]["value"] > 0.02
        assert done.metrics["kl"]["value"] <= 0.02
        assert done.metrics["published_iteration"] < done.metrics["looks"][-1]["iteration"]
        assert "over the budget at iteration" in done.metrics["stopped"]
        assert f"(budget 0.02); stopped: {done.metrics['stopped']}" in ppo.headline(done)


def test_it_publishes_the_policy_of_the_best_look(
    tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, keep = dict[int, list[torch.Tensor]](), ppo.Best.keep

    def observed(best: ppo.Best, iteration: int) -> None:
        keep(best, iteration)
        looks[iteration] = [weight.detach().clone() for weight in best.files.model.parameters()]

    monkeypatch.setattr(ppo.Best, "keep", observed)
    settings = {"iterations": 6, "check_every": 1, "patience": 50}
    held_out, optimizer = str(tiny_inputs / "prompts.jsonl"), {"lr": 1e-2, "schedule": "constant"}
    done = run(tiny_folder, tiny_inputs, tmp_path / "out", settings, held_out=held_out, optimizer=optimizer)
    rewards = [look["reward"] for look in done.metrics["looks"]]
    assert len(rewards) == 7
    best = rewards.index(max(rewards))
    assert done.metrics["published_iteration"] == max(looks) == best
    published = list(load_model(done.path)[0].parameters())
    assert all(map(torch.equal, published, looks[best]))


def test_the_oracle_that_is_logged_judges_prompts_and_answers() -> None:
    given = {"model": "m", "helpfulness": "h", "safety": "s", "prompts": "p.jsonl"}
    observe, world = ppo._observer(build(ppo.PpoStageConfig, given | {"oracle": dump(WorldConfig())}), []), World()
    assert observe is not None
    assert ppo._observer(build(ppo.PpoStageConfig, given), []) is None
    bread = parse_prompt({"messages": [{"role": "user", "content": "How do I bake bread?"}]})
    answers = ["To bake bread, you need flour, water and yeast.", "I cannot help with that."]
    assert observe([bread, bread], answers) == pytest.approx((0.85 + 0.1) / 2)
    assert any(task.topic == "bake bread" for task in world.tasks["howto"])


def test_two_best_policies_are_kept(tmp_path: Path) -> None:
    class Files:
        def save(self, folder: Path) -> None:
            folder.mkdir(exist_ok=True)

    best = ppo.Best(Files(), tmp_path)  # type: ignore[arg-type]
    for iteration in (0, 4, 8, 16, 16):
        best.keep(iteration)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-16", "best-8"]


def test_the_headline_of_a_run_without_usable_answers(tmp_path: Path) -> None:
    metrics = {
        "iterations": 2, "published_iteration": 0, "stopped": None, "reward_first": None, "reward_last": 1.5,
        "kl": {"value": 0.25}, "kl_budget": 4.0,
    }  # fmt: skip
    said = "2 iterations, the policy after 0 published: held-out reward - to 1.50, KL 0.25 nats (budget 4)"
    assert ppo.headline(Artifact(tmp_path, {"metrics": metrics})) == said


def test_what_cannot_be_trained(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    for values, expected in (
        ({"prompts": str(empty)}, "no prompt in .*empty.jsonl; give a file with at least one"),
        ({"safety": str(tiny_folder / "v0")}, "architecture LlamaForCausalLM, expected LlamaForSequenceClassification"),
        ({"prompts": str(tiny_inputs / "dialogues.jsonl")}, r"dialogues.jsonl line 1: message 2 \(assistant\): a prompt ends with a user"),
    ):
        with pytest.raises(UserError, match=expected):
            run(tiny_folder, tiny_inputs, tmp_path / "out", **values)
    assert not (tmp_path / "out").exists()
