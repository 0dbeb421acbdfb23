"""Packaged settings of stages: found by name, what the paper prints, what they need, and PPO's on a model of the 7B's depth."""

import json
from pathlib import Path

import pytest

from llamaherd.checkpoints.huggingface import save_model
from llamaherd.cli import STAGES, main
from llamaherd.commands.common import SETTINGS, packaged, settings_file
from llamaherd.core.artifacts import open_artifact
from llamaherd.core.config import load
from llamaherd.core.errors import UserError
from llamaherd.model.config import PRESETS, ModelConfig
from llamaherd.model.transformer import new_model, scorer_from
from llamaherd.stages.distill import DistillConfig
from llamaherd.stages.ghost import GhostConfig
from llamaherd.stages.ppo import PpoStageConfig
from llamaherd.stages.pretrain import PretrainConfig
from llamaherd.stages.reject import RejectConfig
from llamaherd.stages.reward import RewardConfig
from llamaherd.stages.sft import SftConfig
from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.train.config import OptimizerConfig

INPUTS = ["--model=m", "--helpfulness=h", "--safety=s", "--prompts=p"]
DATA = ["--model=m", "--data=d"]


def demand_optimizer(optimizer: OptimizerConfig, lr: float, schedule: str = "cosine", clip: float = 1.0) -> None:
    """Section 2's AdamW, which the later stages take over: .9, .95, 1e-5, decay 0.1, clipping at 1."""
    assert (optimizer.kind, optimizer.lr, optimizer.schedule) == ("adamw", lr, schedule)
    assert (optimizer.beta1, optimizer.beta2, optimizer.eps, optimizer.weight_decay) == (0.9, 0.95, 1e-5, 0.1)
    assert optimizer.clip == clip


def test_what_the_paper_prints_of_pretraining() -> None:
    """Section 2: 4M tokens a step in rows of 4,096, 2T of them, rate 3e-4 after 2,000 steps of warm-up, down to a tenth."""
    config = load(PretrainConfig, settings_file(Path("llama2-7b-pretrain"), "pretrain"), ["--shards=s"])
    assert (config.model, config.row_tokens) == ("llama2-7b", 4096)
    assert config.batch_rows * config.row_tokens == 4 * 2**20
    assert config.steps * config.batch_rows * config.row_tokens == pytest.approx(2e12, rel=1e-6)
    demand_optimizer(config.optimizer, 3e-4)
    assert (config.optimizer.warmup_steps, config.optimizer.final_share) == (2000, 0.1)
    assert config.checkpointing


@pytest.mark.parametrize(("name", "lr", "clip"), [("llama2-7b-sft", 2e-5, 1.0), ("llama2-7b-qlora", 2e-4, 0.3)])
def test_what_the_paper_prints_of_tuning(name: str, lr: float, clip: float) -> None:
    """Section 3: cosine from 2e-5, decay 0.1, batch 64, 4,096 tokens, 2 epochs; the scripts of section 16 for QLoRA."""
    config = load(SftConfig, settings_file(Path(name), "sft"), DATA)
    assert (config.epochs, config.row_tokens, config.batch_rows, config.steps) == (2, 4096, 64, None)
    demand_optimizer(config.optimizer, lr, clip=clip)
    assert config.checkpointing
    if name == "llama2-7b-sft":
        assert config.lora is None
    else:
        assert config.lora is not None
        assert (config.lora.r, config.lora.alpha, config.lora.dropout, config.lora.layers) == (64, 16, 0.1, "all")
        assert (config.base.bits, config.optimizer.warmup_share) == (4, 0.03)


@pytest.mark.parametrize("domain", ["helpfulness", "safety"])
def test_what_the_paper_prints_of_reward_models(domain: str) -> None:
    """Section 5: one epoch, 1e-5 (5e-6 for the 70B), cosine to a tenth, warm-up of 3% and at least 5 steps, 512 pairs; each its mix."""
    config = load(RewardConfig, settings_file(Path(f"llama2-7b-{domain}"), "reward"), DATA)
    assert (config.domain, config.mix, config.rest_share, config.margin) == (domain, domain, None, "small")
    assert (config.epochs, config.batch_pairs, config.most_pairs) == (1, 512, None)
    demand_optimizer(config.optimizer, 1e-5)
    assert (config.optimizer.warmup_share, config.optimizer.warmup_steps, config.optimizer.final_share) == (0.03, 5, 0.1)
    assert config.safety_weight > 0
    assert config.lora is not None
    assert (config.base.bits, config.checkpointing) == (16, True)


def test_what_the_paper_prints_of_sampling() -> None:
    """Section 6: several answers to each prompt, the best by the gate at 0.15; sections 7 and 9 print no sampling."""
    reject = load(RejectConfig, settings_file(Path("llama2-7b-reject"), "reject"), INPUTS)
    assert (reject.combination, reject.gate, reject.bits) == ("gate", 0.15, 16)
    assert reject.k == 20
    assert len(reject.temperatures) > 1
    assert load(GhostConfig, settings_file(Path("llama2-7b-ghost"), "ghost"), ["--model=m", "--scripts=s"]).bits == 16
    assert load(DistillConfig, settings_file(Path("llama2-7b-distill"), "distill"), ["--model=m", "--safety=s", "--prompts=p"]).bits == 16


def test_what_the_paper_prints_of_ppo() -> None:
    """Section 6: batch 512, mini-batch 64, one step each, clip 0.2, beta 0.01, AdamW .9/.95, eps 1e-5, decay 0.1, clip 1, rate 1e-6."""
    config = load(PpoStageConfig, settings_file(Path("llama2-7b-ppo"), "ppo"), INPUTS)
    ppo = config.ppo
    assert (ppo.batch, ppo.mini_batch, ppo.epochs, ppo.clip, ppo.beta, ppo.max_new_tokens) == (512, 64, 1, 0.2, 0.01, 256)
    assert 200 <= ppo.iterations <= 400
    demand_optimizer(config.optimizer, 1e-6, "constant")
    assert config.roles is not None
    assert config.roles.bits in (4, 16)


def test_every_packaged_file_belongs_to_a_command() -> None:
    modules = {stage.module for stage in STAGES.values()}
    assert {file.parent.name for file in SETTINGS.glob("*/*.yaml")} <= modules
    assert packaged("sft") == ["llama2-7b-qlora", "llama2-7b-sft"]
    assert packaged("reward") == ["llama2-7b-helpfulness", "llama2-7b-safety"]
    assert not list(SETTINGS.glob("*.yaml"))


def test_a_name_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings_file(None, "ppo") is None
    Path("llama2-7b-ppo").mkdir()  # what came of an earlier --out of that name is no file of settings
    assert settings_file(Path("llama2-7b-ppo"), "ppo") == SETTINGS / "ppo" / "llama2-7b-ppo.yaml"
    assert settings_file(tmp_path / "mine.yaml", "ppo") == tmp_path / "mine.yaml"
    Path("mine").write_text("k: 2\n", "utf-8")
    assert settings_file(Path("mine"), "reject") == Path("mine")


@pytest.mark.parametrize(
    ("stage", "name", "told"),
    [
        ("ppo", "llama2-ppo", "no such file (did you mean 'llama2-7b-ppo'?); packaged settings for ppo are llama2-7b-ppo"),
        ("reward", "llama2-7b-safty", "no such file (did you mean 'llama2-7b-safety'?); packaged settings for reward are llama2-7b-helpfulness, llama2-7b-safety"),
        ("sft", "llama2-7b-ppo", "is for `llamaherd ppo`; packaged settings for sft are llama2-7b-qlora, llama2-7b-sft"),
        ("curves", "llama2-7b-curves", "no such file; there are no packaged settings for curves"),
    ],
)  # fmt: skip
def test_a_name_that_is_none(stage: str, name: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        settings_file(Path(name), stage)
    assert str(error.value) == f"--config {name}: {told}"


def test_help_lists_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    for command, stage in STAGES.items():
        main([*command.split(), "--help"])
        said = " ".join(capsys.readouterr().out.replace("│", " ").split())
        for name in packaged(stage.module):
            assert name in said, command


def planned(capsys: pytest.CaptureFixture[str], task: str, name: str, *more: str) -> float:
    """Gigabytes that a recipe needs at the 7B's own shape."""
    main(["plan", task, "llama2-7b", "--config", name, "--device=cuda", "--memory=24GB", "--no-measure", "--json", *more])
    return float(json.loads(capsys.readouterr().out)["total_bytes"]) / 1e9


def test_what_each_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(capsys, "qlora", "llama2-7b-qlora") < 16
    assert 16 * 6.738 < planned(capsys, "sft", "llama2-7b-sft") < 141
    assert 10 * 6.738 < planned(capsys, "sft", "llama2-7b-sft", "--optimizer.kind=adamw-8bit") < 80
    for domain in ("helpfulness", "safety"):
        assert 13.5 < planned(capsys, "reward", f"llama2-7b-{domain}") < 24
    assert planned(capsys, "ppo", "llama2-7b-ppo", "--context=512") == pytest.approx(33.0, abs=0.05)
    assert planned(capsys, "ppo", "llama2-7b-ppo", "--context=512", "--roles.bits=4") < 24


def test_the_settings_run_on_a_model_of_that_depth(
    tokenizer: Tokenizer, tiny_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMAHERD_THREADS", "1")  # two of them on a busy machine take many times as long for such small products
    shape = ModelConfig(dim=32, layers=PRESETS["llama2-7b"].layers, heads=4, ffn=32, vocab_size=tokenizer.vocab_size, context=128)
    model = new_model(shape, 0)
    save_model(model, tokenizer, tmp_path / "chat")
    save_model(scorer_from(model), tokenizer, tmp_path / "judge")
    main([
        "ppo", "--config", "llama2-7b-ppo", "--model", str(tmp_path / "chat"), "--helpfulness", str(tmp_path / "judge"),
        "--safety", str(tmp_path / "judge"), "--prompts", str(tiny_inputs / "prompts.jsonl"), "--out", str(tmp_path / "out"),
        "--ppo.iterations=1", "--ppo.batch=4", "--ppo.mini-batch=2", "--ppo.micro-batch=1", "--ppo.max-new-tokens=4",
        "--ppo.signal.unfinished=score",
    ])  # fmt: skip
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("memory by role, MB")
    assert printed[1].startswith("base, 16 bits")
    assert any(line.startswith("needs ") and "answers are sampled 4 at a time" in line for line in printed)
    assert printed[-1].startswith(f"{tmp_path / 'out'}: 1 iterations")
    assert open_artifact(tmp_path / "out", "adapter").metrics["steps"] == 2
