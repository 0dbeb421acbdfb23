"""Packaged settings of stages: found by name, and those of the 7B run on a model of its depth."""

from pathlib import Path

import pytest

from llamaherd.checkpoints.huggingface import save_model
from llamaherd.cli import main
from llamaherd.commands.common import SETTINGS, settings_file
from llamaherd.core.artifacts import open_artifact
from llamaherd.core.config import load
from llamaherd.core.errors import UserError
from llamaherd.model.config import PRESETS, ModelConfig
from llamaherd.model.transformer import new_model, scorer_from
from llamaherd.stages.ppo import PpoStageConfig
from llamaherd.tokenizer.sentencepiece import Tokenizer

INPUTS = ["--model=m", "--helpfulness=h", "--safety=s", "--prompts=p"]


def test_what_the_paper_prints_of_ppo() -> None:
    """Section 6: batch 512, mini-batch 64, one step each, clip 0.2, beta 0.01, AdamW .9/.95, eps 1e-5, decay 0.1, clip 1, rate 1e-6."""
    config = load(PpoStageConfig, settings_file(Path("llama2-7b-ppo")), INPUTS)
    ppo, optimizer = config.ppo, config.optimizer
    assert (ppo.batch, ppo.mini_batch, ppo.epochs, ppo.clip, ppo.beta, ppo.max_new_tokens) == (512, 64, 1, 0.2, 0.01, 256)
    assert 200 <= ppo.iterations <= 400
    assert (optimizer.lr, optimizer.schedule, optimizer.beta1, optimizer.beta2) == (1e-6, "constant", 0.9, 0.95)
    assert (optimizer.eps, optimizer.weight_decay, optimizer.clip) == (1e-5, 0.1, 1.0)
    assert config.roles is not None
    assert config.roles.bits in (4, 16)


def test_a_name_and_a_file(tmp_path: Path) -> None:
    assert settings_file(None) is None
    assert settings_file(Path("llama2-7b-ppo")) == SETTINGS / "llama2-7b-ppo.yaml"
    assert settings_file(tmp_path / "mine.yaml") == tmp_path / "mine.yaml"
    with pytest.raises(
        UserError, match=r"--config llama2-ppo: no such file \(did you mean 'llama2-7b-ppo'\?\); packaged settings are llama2-7b-ppo"
    ):
        settings_file(Path("llama2-ppo"))


def test_the_7b_is_forecast_under_60_gb(capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "plan",
            "ppo",
            "llama2-7b",
            "--config",
            "llama2-7b-ppo",
            "--context",
            "512",
            "--device",
            "cuda",
            "--memory",
            "60GB",
            "--no-measure",
        ]
    )
    printed = capsys.readouterr().out
    assert "fits: needs 33.0 GB of 60.0 GB" in printed


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
