"""PPO's choices and bad input through the stage, as a user gives them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llamaherd.checkpoints.huggingface import load_scorer, save_model
from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.core.metrics import read_metrics
from llamaherd.model.transformer import new_model, scorer_from
from llamaherd.rlhf.config import PpoConfig
from llamaherd.stages import ppo
from llamaherd.tokenizer.sentencepiece import Tokenizer

SETTINGS = {"iterations": 2, "batch": 8, "mini_batch": 4, "micro_batch": 4, "max_new_tokens": 12, "beta": 0.05, "check_every": 1}


def run(folder: Path, inputs: Path, out: Path, settings: dict[str, Any] | None = None, **values: Any) -> Artifact:
    given = {
        "model": str(folder / "v0"), "helpfulness": str(folder / "helpfulness"), "safety": str(folder / "safety"),
        "prompts": str(inputs / "prompts.jsonl"), "held_out": str(inputs / "harmless.jsonl"), "ppo": SETTINGS | (settings or {}),
        "optimizer": {"lr": 1e-3},
    }  # fmt: skip
    return ppo.run(build(ppo.PpoStageConfig, given | values), out, 0)


def test_a_run_with_every_choice_made_otherwise(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    settings = {
        "temperature": 0.8, "epochs": 2, "value_clip": 0.2, "entropy_weight": 0.01, "gamma": 0.99, "samples": 2,
        "signal": {
            "unfinished": "score", "whiten_rewards": "running", "reward_clip": 2.0, "kl_in_reward": "k3", "kl_reported": "k2",
            "whiten_advantages": "mini-batch",
        },
        "critic": {"start": "safety", "lr": 3e-3}, "sampler": {"top_p": 0.9, "together": 3, "memory_gib": 0.01},
    }  # fmt: skip
    done = run(tiny_folder, tiny_inputs, tmp_path / "out", settings, guard=str(tiny_folder / "safety"))
    # Epochs of twelve prompts: eight, then four, each used twice in parts of four.
    assert done.metrics["steps"] == 2 * (2 + 1)
    for look in done.metrics["looks"]:
        assert look["guard"]["n"] == 6
        assert look["guard"]["low"] <= look["guard"]["value"] <= look["guard"]["high"]
    rows = read_metrics(done.path / "metrics.jsonl")
    assert {"ppo/kl_k1", "ppo/kl_k2", "ppo/kl_k3", "ppo/held_out_guard", "ppo/held_out_kl"} <= rows[0].keys()
    assert rows[0]["ppo/sampling_gap"] < 1e-3
    assert "ppo/seconds_update" in rows[3]
    sampled = [json.loads(line) for line in (done.path / "sampled.jsonl").read_text().splitlines()]
    assert [row["step"] for row in sampled] == [1, 1, 2, 2]
    assert sampled[0]["messages"][0]["content"].startswith("Where does")
    first, last = done.metrics["guard_first"]["value"], done.metrics["guard_last"]["value"]
    assert f", guard {first:.2f} to {last:.2f}, KL " in ppo.headline(done)


def test_the_same_run_twice_is_the_same_bits(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    one, other = (run(tiny_folder, tiny_inputs, tmp_path / name) for name in ("one", "other"))
    assert (one.path / "model.safetensors").read_bytes() == (other.path / "model.safetensors").read_bytes()
    assert (one.path / "sampled.jsonl").read_bytes() == (other.path / "sampled.jsonl").read_bytes()
    assert one.metrics == other.metrics


def test_a_critic_begun_as_a_reward_model(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: dict[str, Any] = {}
    import llamaherd.train.loop as loop

    def train(model: Any, *_: Any, **__: Any) -> None:
        begun["critic"] = model.critic
        raise UserError("seen")

    monkeypatch.setattr(loop, "train", train)
    for start in ("policy", "helpfulness", "safety"):
        with pytest.raises(UserError, match="seen"):
            run(tiny_folder, tiny_inputs, tmp_path / "out", {"critic": {"start": start}})
        head = begun["critic"].score.weight
        expected = torch.zeros_like(head) if start == "policy" else load_scorer(tiny_folder / start)[0].score.weight
        assert head.equal(expected)


def test_a_reward_model_that_cannot_be_the_critic(
    tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, make_tiny: Any, tokenizer: Tokenizer
) -> None:
    shape = make_tiny(0).config.model_copy(update={"dim": 32})
    save_model(scorer_from(new_model(shape, 1)), tokenizer, tmp_path / "wide")
    with pytest.raises(
        UserError,
        match=r"critic.start: reward model and policy differ in shape \(dim 32 and 16, head_size 16 and 8\); give critic.start=policy",
    ):
        run(tiny_folder, tiny_inputs, tmp_path / "out", {"critic": {"start": "safety"}}, safety=str(tmp_path / "wide"))
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("role", ["helpfulness", "safety", "guard"])
def test_a_reward_model_whose_scores_are_no_numbers_is_named(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, role: str) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (tiny_folder / "safety").iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(broken / "model.safetensors")
    weights["score.weight"].fill_(3e38)  # finite, as a checkpoint has to be, and yet its scores are not
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"^dialogue 1 \('.*Where does .* live.*'\): .*broken scores it (nan|-?inf), which is no finite"):
        run(tiny_folder, tiny_inputs, tmp_path / "out", **{role: str(broken)})
    assert not list(tmp_path.glob("out*"))


def test_prompts_that_cannot_be(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "long.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "Where " * 200}]}) + "\n")
    for values, expected in (
        ({"held_out": str(tmp_path / "empty.jsonl")}, "no prompt in .*empty.jsonl; give a file with at least one"),
        ({"prompts": str(tmp_path / "long.jsonl")}, "long.jsonl: prompt 1 has .* tokens, and the model's context is 128"),
        ({"held_out": str(tmp_path / "long.jsonl")}, "long.jsonl: prompt 1 has .* tokens, and the model's context is 128"),
    ):
        with pytest.raises(UserError, match=expected):
            run(tiny_folder, tiny_inputs, tmp_path / "out", **values)
    with pytest.raises(UserError, match=r"sampler.memory_gib is 1e-06, and one answer of up to \d+ tokens takes"):
        run(tiny_folder, tiny_inputs, tmp_path / "out", {"sampler": {"memory_gib": 1e-6}})
    assert not list(tmp_path.glob("out*"))


def test_names_of_others_and_of_earlier_versions_are_refused_with_ours() -> None:
    given = {"kl_coef": 0.1, "cliprange": 0.2, "num_ppo_epochs": 4, "top_p": 0.9, "missing_eos_penalty": 1.0, "itertions": 3}
    paths = {"model": "m", "helpfulness": "h", "safety": "s", "prompts": "p"}
    with pytest.raises(ConfigError) as caught:
        build(ppo.PpoStageConfig, paths | {"ppo": given})
    assert sorted(caught.value.problems) == [
        "ppo.cliprange: unknown setting; it is called clip here",
        "ppo.itertions: unknown setting (did you mean 'iterations'?)",
        "ppo.kl_coef: unknown setting; it is called beta here",
        "ppo.missing_eos_penalty: unknown setting; it is called signal.penalty here",
        "ppo.num_ppo_epochs: unknown setting; it is called epochs here",
        "ppo.top_p: unknown setting; it is called sampler.top_p here",
    ]
    from llamaherd.rlhf.config import PpoConfig

    for name in PpoConfig.renamed.values():
        place: Any = PpoConfig()
        for part in name.split("."):
            place = getattr(place, part) if part in type(place).model_fields else pytest.fail(f"{name} is no setting")


def announced(folder: Path, inputs: Path, **values: Any) -> str:
    given = {
        "model": str(folder / "v0"), "helpfulness": str(folder / "helpfulness"), "safety": str(folder / "safety"),
        "prompts": str(inputs / "prompts.jsonl"),
    }  # fmt: skip
    return "\n".join(ppo.announced(build(ppo.PpoStageConfig, given | values), 0))


def test_what_is_said_before_the_start(tiny_folder: Path, tiny_inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = sum(1 for line in (tiny_inputs / "prompts.jsonl").read_text().splitlines() if line.strip())
    plain = announced(tiny_folder, tiny_inputs)
    assert f"there are {prompts:,} prompts, fewer than a batch of 512: an iteration has that many answers" in plain
    assert f"answers are sampled {prompts} at a time" in plain
    assert "guard" not in plain
    few = announced(tiny_folder, tiny_inputs, ppo={"batch": 4, "mini_batch": 4}, guard=str(tiny_folder / "safety"))
    assert "fewer than a batch" not in few
    assert "\nguard " in few
    assert few.endswith("is one of the two reward models, and sees nothing that the reward does not")
    monkeypatch.setattr(ppo, "free_memory_bytes", lambda _: 1)
    assert "does not fit: needs" in (tight := announced(tiny_folder, tiny_inputs))
    assert "even with --ppo.sampler.together=1 " in tight


def test_steps_with_fewer_prompts_than_a_batch() -> None:
    config = PpoConfig(iterations=3, batch=8, mini_batch=4, epochs=2)
    assert config.steps() == config.steps(8) == config.steps(16) == 12
    assert config.steps(3) == 6
    assert config.steps(10) == 2 * (2 + 1 + 2)
