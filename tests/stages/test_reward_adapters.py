"""Reward models as adapters: the same losses, gradients and scores as peft's, and reward models wherever one is asked for."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor
from torch.nn.functional import logsigmoid

from llamaherd.assistant.local import Assistant
from llamaherd.checkpoints.huggingface import load_model
from llamaherd.checkpoints.peft import AdapterFiles, read_adapter
from llamaherd.core.artifacts import Artifact, open_artifact
from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_json, read_rows, write_json
from llamaherd.core.metrics import read_metrics
from llamaherd.core.seeds import torch_rng
from llamaherd.data.records import read_preferences
from llamaherd.model.config import LoraConfig
from llamaherd.model.lora import add_adapter, changes_of, new_changes
from llamaherd.model.transformer import Scorer, scorer_on
from llamaherd.reward.accuracy import comparison_rows
from llamaherd.reward.model import RewardModel
from llamaherd.reward.pairs import Pair, pair_loss
from llamaherd.stages import merge, reject, reward
from llamaherd.train import loop

LORA = {"r": 4, "alpha": 8}


def run(folder: Path, data: Path, out: Path, **values: Any) -> Artifact:
    given = {
        "model": str(folder / "v0"), "data": str(data), "domain": "helpfulness", "epochs": 6, "batch_pairs": 4, "micro_pairs": 2,
        "test_share": 0.25, "optimizer": {"lr": 1e-2}, "lora": LORA,
    }  # fmt: skip
    return reward.run(build(reward.RewardConfig, given | values), out, 0)


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Artifact]:
    """Trained on a base in 32 bits and in 4."""
    place = tmp_path_factory.mktemp("adapters")
    return {bits: run(tiny_folder, tiny_inputs / "preferences.jsonl", place / f"reward-{bits}", base={"bits": bits}) for bits in (32, 4)}


def scores_of(folder: Path, inputs: Path) -> list[float]:
    rows = comparison_rows(RewardModel.load(folder), read_preferences(inputs / "preferences.jsonl"))
    return [row[f"{side}_logit"] for row in rows for side in ("chosen", "rejected")]


@pytest.mark.parametrize("bits", [32, 4])
def test_it_learns_and_loads_as_it_was_trained(made: dict[int, Artifact], tiny_inputs: Path, bits: int) -> None:
    done = made[bits]
    assert done.kind == "reward-model"
    assert sorted(path.name for path in done.path.glob("*.safetensors")) == ["adapter_model.safetensors"], "no base is saved"
    rows = read_metrics(done.path / "metrics.jsonl")
    assert rows[0]["loss"] > rows[-1]["loss"] + 0.2
    assert done.metrics["accuracy"]["own"]["all"]["value"] == 1.0
    assert done.manifest["parents"]["base"]["path"].endswith("v0")
    assert "library_name: peft\npipeline_tag: text-classification" in (done.path / "README.md").read_text()
    tested = {row["id"]: row for _, row in read_rows(done.path / "tested.jsonl")}
    loaded = comparison_rows(RewardModel.load(done.path), read_preferences(tiny_inputs / "preferences.jsonl"))
    there = [row for row in loaded if row["id"] in tested]
    assert {row["id"] for row in there} == set(tested)
    for row in there:
        assert row["chosen_logit"] == pytest.approx(tested[row["id"]]["chosen_logit"], abs=1e-3)


def theirs_on(base: Path, head: Tensor) -> Any:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0, dtype=torch.float32)
    model.score.weight.data.copy_(head)
    return model


PAIRS = [
    Pair([1, 260, 300, 2], [1, 260, 280, 281, 2], 1.0, (1.0, 0.0)),
    Pair([1, 270, 2], [1, 270, 290, 291, 292, 2], 2 / 3, (float("nan"), float("nan"))),
    Pair([1, 265, 266, 2], [1, 265, 2], 0.0, (0.0, 0.0)),
]


@pytest.mark.parametrize("settings", [LoraConfig(r=4, alpha=8), LoraConfig(r=3, alpha=1.5, rslora=True, layers=("wq", "w2"))])
def test_losses_and_gradients_are_pefts_of_task_type_seq_cls(tiny_folder: Path, settings: LoraConfig) -> None:
    base = tiny_folder / "v0"
    scorer, head = with_adapter(base, settings)
    found = pair_loss(scorer, PAIRS, 0.0)
    found.total.backward()  # type: ignore[no-untyped-call]

    names = {"wq": "q_proj", "wk": "k_proj", "wv": "v_proj", "wo": "o_proj", "w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    asked = peft.LoraConfig(
        task_type="SEQ_CLS", r=settings.r, lora_alpha=settings.alpha, use_rslora=settings.rslora,
        target_modules=[names[name] for name in settings.names], lora_dropout=0.0,
    )  # fmt: skip
    theirs = peft.get_peft_model(theirs_on(base, head), asked).eval()
    weights = dict(theirs.named_parameters())
    for path, change in changes_of(scorer, "one").items():
        stem = path.replace("attention.", "self_attn.").replace("feed_forward.", "mlp.").rpartition(".")
        stem_name = f"base_model.model.model.{stem[0]}.{names[stem[2]]}"
        weights[f"{stem_name}.lora_A.default.weight"].data.copy_(change.a)
        weights[f"{stem_name}.lora_B.default.weight"].data.copy_(change.b)
    total = torch.zeros(())
    for pair in PAIRS:
        chosen, rejected = (theirs(torch.tensor([ids])).logits[0, 0] for ids in (pair.chosen, pair.rejected))
        total = total - logsigmoid(chosen - rejected - pair.margin)
    total.backward()  # type: ignore[no-untyped-call]
    assert found.total.item() == pytest.approx(total.item(), rel=1e-5)
    trained = {name for name, weight in weights.items() if weight.requires_grad}
    assert len(trained) == sum(weight.requires_grad for weight in scorer.parameters())
    head_gradient = next(weight.grad for name, weight in weights.items() if "score.modules_to_save" in name)
    assert head_gradient is not None
    assert scorer.score.weight.grad is not None
    assert torch.allclose(scorer.score.weight.grad, head_gradient, rtol=1e-4, atol=1e-5 * head_gradient.abs().max().item())
    for path, change in changes_of(scorer, "one").items():
        holder, _, last = path.replace("attention.", "self_attn.").replace("feed_forward.", "mlp.").rpartition(".")
        for side, ours in (("A", change.a.grad), ("B", change.b.grad)):
            other = weights[f"base_model.model.model.{holder}.{names[last]}.lora_{side}.default.weight"].grad
            assert ours is not None
            assert other is not None
            assert torch.allclose(ours, other, rtol=1e-4, atol=1e-5 * other.abs().max().item() + 1e-7), path


def with_adapter(base: Path, settings: LoraConfig) -> tuple[Scorer, Tensor]:
    """A scorer with an adapter and a head that are not zero."""
    model, _ = load_model(base)
    scorer = scorer_on(model)
    new = new_changes(scorer, settings, 0)
    add_adapter(
        scorer, "one", {path: (a, torch.randn(b.shape, generator=torch_rng(0, path)) * 0.2) for path, (a, b) in new.items()}, settings.scale
    )
    head = torch.randn(scorer.score.weight.shape, generator=torch_rng(0, "head")) * 0.3
    scorer.score.weight.data.copy_(head)
    scorer.score.requires_grad_(True)
    return scorer.eval(), head


def test_peft_loads_ours_with_its_head_and_we_load_pefts(
    made: dict[int, Artifact], tiny_folder: Path, tiny_inputs: Path, tmp_path: Path
) -> None:
    done = made[32]
    model = RewardModel.load(done.path)
    theirs = peft.PeftModel.from_pretrained(theirs_on(tiny_folder / "v0", torch.zeros(1, 16)), done.path).eval()
    ids = [[1, 260, 300, 2], [1, 270, 290, 291, 292, 2]]
    with torch.no_grad():
        expected = [theirs(torch.tensor([row])).logits.item() for row in ids]
    assert [model._score([row])[0] for row in ids] == pytest.approx(expected, abs=1e-4)
    theirs.save_pretrained(tmp_path / "theirs")
    config = read_json(tmp_path / "theirs" / "adapter_config.json")
    assert config["task_type"] == "SEQ_CLS"
    write_json(tmp_path / "theirs" / "adapter_config.json", {**config, "base_model_name_or_path": str(tiny_folder / "v0")})
    assert scores_of(tmp_path / "theirs", tiny_inputs) == pytest.approx(scores_of(done.path, tiny_inputs), abs=1e-4)


@pytest.mark.parametrize("bits", [32, 4])
def test_merged_it_is_a_whole_reward_model(
    made: dict[int, Artifact], tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, bits: int
) -> None:
    settings = {"model": str(tiny_folder / "v0"), "adapter": str(made[bits].path)}
    done = merge.run(build(merge.MergeConfig, settings), tmp_path / "whole", 0)
    assert (done.kind, done.metrics["domain"]) == ("reward-model", "helpfulness")
    assert re.search("scores drift by .* logits on average", merge.headline(done))
    assert "likeliest" not in merge.headline(done)
    assert done.metrics["drift_max_nats"] < 1e-3
    assert scores_of(done.path, tiny_inputs) == pytest.approx(scores_of(made[bits].path, tiny_inputs), abs=1e-4)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(done.path, dtype=torch.float32)
    with torch.no_grad():
        found = theirs(torch.tensor([[1, 260, 300, 2]])).logits.item()
    assert found == pytest.approx(RewardModel.load(done.path)._score([[1, 260, 300, 2]])[0], abs=1e-4)


def test_it_judges_in_rejection_sampling(made: dict[int, Artifact], tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    settings = {
        "model": str(tiny_folder / "v0"), "helpfulness": str(made[32].path), "safety": str(tiny_folder / "safety"),
        "prompts": str(tiny_inputs / "prompts.jsonl"), "k": 2, "max_new_tokens": 12,
    }  # fmt: skip
    done = reject.run(build(reject.RejectConfig, settings), tmp_path / "out", 0)
    assert done.metrics["candidates"] == 24


def test_it_is_no_chat_model(made: dict[int, Artifact], tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=r"LlamaForSequenceClassification, expected LlamaForCausalLM"):
        load_model(made[32].path)
    with pytest.raises(UserError, match=r"is a reward model's adapter, which scores and does not answer"):
        Assistant.load(tiny_folder / "v0", adapters={"reward": made[32].path})


def test_what_is_saved_on_the_way_comes_back(tiny_folder: Path, tmp_path: Path) -> None:
    settings = LoraConfig(r=4, alpha=8)
    scorer, _ = with_adapter(tiny_folder / "v0", settings)
    files = AdapterFiles(scorer, "one", settings, str(tiny_folder / "v0"))
    files.save(tmp_path / "state")
    before = {name: weight.clone() for name, weight in scorer.named_parameters() if weight.requires_grad}
    for weight in scorer.parameters():
        if weight.requires_grad:
            weight.data.zero_()
    files.load(tmp_path / "state")
    assert before.keys() == {name for name, weight in scorer.named_parameters() if weight.requires_grad}
    assert all(torch.equal(weight, before[name]) for name, weight in scorer.named_parameters() if name in before)


def test_interruption_changes_nothing(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout included: what a step drops depends on which step it is."""
    values = {"epochs": 1, "lora": {**LORA, "dropout": 0.3}, "optimizer": {"lr": 1e-2, "checkpoint_every_s": 0}}
    data = tiny_inputs / "preferences.jsonl"
    whole = run(tiny_folder, data, tmp_path / "whole", **values)
    step = loop._step

    def stopping(*arguments: Any) -> dict[str, float]:
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(loop, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_folder, data, tmp_path / "cut", **values)
    monkeypatch.setattr(loop, "_step", step)
    cut = run(tiny_folder, data, tmp_path / "cut", **values)
    assert tensors(cut) == tensors(whole)


def tensors(artifact: Artifact) -> bytes:
    return (artifact.path / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lora": None, "base": {"bits": 4}}, "base.bits 4 is for a frozen base under an adapter"),
        ({"lora": {"r": 4, "layers": ["wq", "output"]}}, "a reward model has no vocabulary head"),
        ({"mix": "safety"}, "mix safety is that of the safety model, and domain is helpfulness"),
        ({"mix": "open"}, "mix open needs the names of the published sources"),
        ({"rest_share": 0.5}, "rest_share is for a mix with a name"),
        ({"shares": {"hh": -1}}, "shares"),
    ],
)
def test_settings_that_do_not_fit_together(
    tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, values: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        run(tiny_folder, tiny_inputs / "preferences.jsonl", tmp_path / "out", **values)


def damaged(folder: Path, out: Path, change: dict[str, Any], drop: Sequence[str] = ()) -> Path:
    from safetensors.torch import load_file, save_file

    out.mkdir()
    write_json(out / "adapter_config.json", {**read_json(folder / "adapter_config.json"), **change})
    kept = {name: value for name, value in load_file(folder / "adapter_model.safetensors").items() if not name.endswith(tuple(drop) or "-")}
    save_file(kept, out / "adapter_model.safetensors")
    return out


def test_adapters_whose_head_is_missing_or_not_meant(made: dict[int, Artifact], tmp_path: Path) -> None:
    folder = made[32].path
    assert read_adapter(damaged(folder, tmp_path / "same", {})).head is not None
    with pytest.raises(UserError, match=r"names task_type SEQ_CLS, and its tensors hold no score.weight"):
        read_adapter(damaged(folder, tmp_path / "headless", {}, ["score.weight"]))
    with pytest.raises(UserError, match=r"holds score.weight and no task_type SEQ_CLS"):
        read_adapter(damaged(folder, tmp_path / "plain", {"task_type": "CAUSAL_LM", "modules_to_save": None}))
    with pytest.raises(UserError, match=r"modules_to_save is"):
        read_adapter(damaged(folder, tmp_path / "more", {"modules_to_save": ["score", "embed_tokens"]}))


def test_the_manifest_says_what_it_judges(made: dict[int, Artifact]) -> None:
    assert open_artifact(made[4].path, "reward-model").metrics["domain"] == "helpfulness"
