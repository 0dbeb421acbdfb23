"""PPO with five roles on one base: what is trained, published, saved and resumed, and what is refused."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from llamaherd.assistant.local import Assistant
from llamaherd.checkpoints.adapted import bits_of
from llamaherd.checkpoints.huggingface import load_model, save_model
from llamaherd.checkpoints.peft import read_adapter
from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.core.metrics import read_metrics
from llamaherd.model.transformer import Transformer
from llamaherd.reward.model import RewardModel
from llamaherd.rlhf import greedy
from llamaherd.rlhf.config import RolesConfig
from llamaherd.rlhf.ppo import Ppo
from llamaherd.rlhf.roles import Roles, shared_roles
from llamaherd.stages import ppo, reward, sft

LORA = {"r": 4, "alpha": 8}
SETTINGS = {"iterations": 3, "batch": 8, "mini_batch": 4, "micro_batch": 4, "max_new_tokens": 12, "beta": 0.05, "check_every": 1}


@pytest.fixture(scope="module")
def judges(tiny_folder: Path, tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Reward models as adapters on v0."""
    place = tmp_path_factory.mktemp("judges")
    found = {}
    for domain in ("helpfulness", "safety"):
        given = {
            "model": str(tiny_folder / "v0"), "data": str(tiny_inputs / "preferences.jsonl"), "domain": domain, "epochs": 2,
            "batch_pairs": 4, "micro_pairs": 4, "test_share": 0.25, "optimizer": {"lr": 1e-2}, "lora": LORA,
        }  # fmt: skip
        found[domain] = str(reward.run(build(reward.RewardConfig, given), place / domain, 0).path)
    return found


@pytest.fixture(scope="module")
def tuned(tiny_folder: Path, tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model that is an adapter on v0."""
    given = {
        "model": str(tiny_folder / "v0"), "data": str(tiny_inputs / "dialogues.jsonl"), "epochs": 1, "batch_rows": 2, "micro_rows": 1,
        "optimizer": {"lr": 1e-2}, "lora": {"r": 2, "alpha": 4},
    }  # fmt: skip
    return sft.run(build(sft.SftConfig, given), tmp_path_factory.mktemp("tuned") / "chat", 0).path


@pytest.fixture
def run(tiny_folder: Path, tiny_inputs: Path, judges: dict[str, str], tmp_path: Path) -> Callable[..., Artifact]:
    def start(out: str = "out", **values: Any) -> Artifact:
        given = {
            "model": str(tiny_folder / "v0"), **judges, "prompts": str(tiny_inputs / "prompts.jsonl"), "ppo": SETTINGS,
            "optimizer": {"lr": 1e-2, "schedule": "constant"}, "roles": {"lora": LORA},
        }  # fmt: skip
        return ppo.run(build(ppo.PpoStageConfig, given | values), tmp_path / out, 0)

    return start


def roles_of(folder: Path, judges: dict[str, str], **values: Any) -> Roles:
    config = build(RolesConfig, {"lora": LORA} | values)
    return shared_roles([folder, *map(Path, judges.values())], config, "policy", 0, torch.device("cpu"))


@pytest.mark.parametrize("critic", ["adapter", "head"])
def test_an_adapter_is_published_that_peft_loads(run: Callable[..., Artifact], tiny_folder: Path, critic: str) -> None:
    before = (tiny_folder / "v0" / "model.safetensors").read_bytes()
    done = run(roles={"lora": LORA, "critic": critic})
    assert (done.kind, done.manifest["parents"]["base"]["path"]) == ("adapter", str(tiny_folder / "v0"))
    assert (tiny_folder / "v0" / "model.safetensors").read_bytes() == before
    assert not list(done.path.rglob("*critic*"))
    rows = read_metrics(done.path / "metrics.jsonl")
    assert rows[0]["ppo/kl_k3"] == pytest.approx(0, abs=1e-5)
    assert max(row.get("ppo/kl_k3", 0) for row in rows) > 1e-5
    assert all(row["ppo/sampling_gap"] < 1e-3 for row in rows if "ppo/sampling_gap" in row)
    assert rows[0]["ppo/value_loss"] != rows[-1]["ppo/value_loss"]
    theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(tiny_folder / "v0"), done.path).eval()
    tokens = torch.arange(3, 60)[None]
    expected = theirs(tokens).logits
    assert (load_model(done.path)[0](tokens) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_merged_on_request(run: Callable[..., Artifact]) -> None:
    adapter, merged = run("adapter"), run("merged", roles={"lora": LORA, "publish": "merged"})
    assert (adapter.kind, merged.kind) == ("adapter", "model")
    assert 0 <= merged.metrics["drift_mean_nats"] < 1e-4
    assert merged.metrics["same_likeliest"] == 1.0
    assert "merged, it drifts by " in ppo.headline(merged)
    assert "drift_mean_nats" not in adapter.metrics
    tokens = torch.arange(3, 60)[None]
    one, other = (Assistant.load(done.path).model(tokens) for done in (adapter, merged))
    assert torch.allclose(one, other, atol=1e-4 * one.abs().max().item())
    assert (merged.path / "config.json").is_file()
    assert "text-generation" in (merged.path / "README.md").read_text()


def test_it_goes_on_from_the_adapter_of_a_chat_model(
    run: Callable[..., Artifact], tuned: Path, tiny_folder: Path, judges: dict[str, str]
) -> None:
    roles = roles_of(tuned, judges)
    tokens, folded = torch.arange(3, 60)[None], load_model(tuned)[0]
    with torch.no_grad():
        expected = folded(tokens)
        for role in (roles.reference, roles.model.policy):
            assert torch.allclose(role(tokens), expected, atol=1e-4 * expected.abs().max().item())
        assert not torch.allclose(load_model(tiny_folder / "v0")[0](tokens), expected, atol=1e-3)
        assert roles.model.critic.score.weight.abs().max() == 0
    done = run(model=str(tuned))
    assert read_adapter(done.path).config.r == 2, "the chat model's rank"
    assert read_adapter(done.path).base == str(tiny_folder / "v0")
    assert read_metrics(done.path / "metrics.jsonl")[0]["ppo/kl_k3"] == pytest.approx(0, abs=1e-5)


def test_judges_on_the_base_score_as_they_do_alone(tiny_folder: Path, judges: dict[str, str]) -> None:
    from llamaherd.chat.dialogue import Message, checked

    roles = roles_of(tiny_folder / "v0", judges)
    dialogues = [
        checked([Message("user", "Where does Ada live?"), Message("assistant", f"Ada lives in {city}.")]) for city in ("Lima", "Oslo")
    ]
    for name, folder in judges.items():
        alone = RewardModel.load(folder).logits(dialogues)
        assert getattr(roles.rewards, name).logits(dialogues) == pytest.approx(alone, abs=1e-4)
        assert alone[0] != alone[1]


def test_only_policy_and_critic_are_trained(tiny_folder: Path, judges: dict[str, str]) -> None:
    for critic, expected in (("adapter", {"policy", "critic"}), ("head", {"policy"})):
        model = roles_of(tiny_folder / "v0", judges, critic=critic).model
        names = [name for name, weight in model.named_parameters() if weight.requires_grad]
        assert {name.split(".changes.")[1].split(".")[0] for name in names if ".changes." in name} == expected
        assert [name for name in names if ".changes." not in name] == ["critic.score.weight"]
        assert all(model.is_critic(name) == (".changes.critic." in name or name.startswith("critic.")) for name in names)


def test_a_critic_that_begins_as_a_reward_model(run: Callable[..., Artifact], tiny_folder: Path, judges: dict[str, str]) -> None:
    config = build(RolesConfig, {"lora": LORA})
    roles = shared_roles([tiny_folder / "v0", *map(Path, judges.values())], config, "helpfulness", 0, torch.device("cpu"))
    head = read_adapter(Path(judges["helpfulness"])).head
    assert head is not None
    assert torch.equal(roles.model.critic.score.weight, head)
    for values in ({"helpfulness": str(tiny_folder / "helpfulness")}, {"roles": {"lora": LORA, "critic": "head"}}):
        with pytest.raises(UserError, match="critic.start: on one base only an adapter"):
            run(**values, ppo=SETTINGS | {"critic": {"start": "helpfulness"}})


@pytest.mark.parametrize("critic", ["adapter", "head"])
def test_what_is_interrupted_ends_with_the_same_bits(
    run: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, critic: str
) -> None:
    """States hold adapters and moments, and nothing of the base."""
    values = {"roles": {"lora": LORA, "critic": critic}, "optimizer": {"lr": 1e-2, "schedule": "constant", "checkpoint_every_s": 0}}
    whole = run("whole", **values)
    real = Ppo.batches

    def until(self: Ppo, standing: Any) -> Iterator[Any]:
        for number, batch in enumerate(real(self, standing)):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(Ppo, "batches", until)
    with pytest.raises(KeyboardInterrupt):
        run("cut", **values)
    [*_, state] = sorted((tmp_path / "cut.partial" / "state").glob("step-*"))
    files = {path.relative_to(state / "model").as_posix() for path in (state / "model").rglob("*") if path.is_file()}
    assert files == {f"{role}/{name}" for role in ("policy", "critic") for name in ("adapter_config.json", "adapter_model.safetensors")}
    monkeypatch.setattr(Ppo, "batches", real)
    taken_up = run("cut", **values)
    assert (taken_up.path / "adapter_model.safetensors").read_bytes() == (whole.path / "adapter_model.safetensors").read_bytes()
    assert [row["loss"] for row in read_metrics(taken_up.path / "metrics.jsonl")] == [
        row["loss"] for row in read_metrics(whole.path / "metrics.jsonl")
    ]


@pytest.mark.parametrize("bits", [4, 16])
def test_a_base_in_few_bits(run: Callable[..., Artifact], bits: int) -> None:
    done = run(roles={"lora": LORA, "bits": bits}, checkpointing=True, ppo=SETTINGS | {"sampling_gap_nats": 1.0})
    assert bits_of(done.path) == bits
    assert done.metrics["steps"] == 5
    assert Assistant.load(done.path).model.config.layers == 1


def test_checkpointing_changes_memory_alone(run: Callable[..., Artifact]) -> None:
    plain, again = run("plain"), run("again", checkpointing=True)
    assert (plain.path / "adapter_model.safetensors").read_bytes() == (again.path / "adapter_model.safetensors").read_bytes()


def test_what_is_refused(
    run: Callable[..., Artifact], tiny_folder: Path, tuned: Path, judges: dict[str, str], make_tiny: Callable[[int], Transformer], tokenizer: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    save_model(make_tiny(7), tokenizer, tmp_path / "other")
    for values, expected in (
        ({"model": str(tmp_path / "other")}, "helpfulness: was trained on .*v0 .*, and .*other is another model; give that base"),
        ({"model": judges["safety"]}, "safety: is the adapter of a reward model; PPO starts from a chat model"),
        ({"helpfulness": str(tuned)}, "chat: is the adapter of a language model; expected a reward model"),
        ({"safety": str(tiny_folder / "v0")}, "architecture LlamaForCausalLM, expected LlamaForSequenceClassification"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            run(**values)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="roles: lora.dropout is 0.1; PPO updates the very policy that sampled"):
        run(roles={"lora": LORA | {"dropout": 0.1}})


def test_whole_reward_models_may_stand_beside_the_base(run: Callable[..., Artifact], tiny_folder: Path) -> None:
    done = run(helpfulness=str(tiny_folder / "helpfulness"), safety=str(tiny_folder / "safety"))
    assert done.kind == "adapter"


def test_a_sampler_that_says_something_else_is_refused_before_any_work(
    run: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Assistant.answers

    def broken(self: Assistant, dialogues: Any, *rest: Any, **more: Any) -> Any:
        """Reads other prompts than it was given, as a wrong cache would."""
        mixed = [dialogues[-1], *dialogues[:-1]]
        given = real(self, mixed, *rest, **more)
        return [type(one)(one.text, self.prompt_ids(dialogue), one.completion) for one, dialogue in zip(given, dialogues, strict=True)]

    monkeypatch.setattr(Assistant, "answers", broken)
    for values in ({}, {"roles": None}):
        with pytest.raises(
            UserError, match=r"greedy answer to prompt \d, token \d+: the sampler takes id \d+, the plain model finds id \d+"
        ):
            run(**values)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()
    assert greedy.LOOKED_AT_PROMPTS > 1
