"""Bases and their adapters: who belongs to whom, four bits while reading, and both as one model."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llamaherd.checkpoints.adapted import as_trained, base_artifact, base_of, dequantised, folded, load_frozen, log_probs
from llamaherd.checkpoints.huggingface import load_model, save_model
from llamaherd.checkpoints.peft import AdapterFiles, lay_over, read_adapter
from llamaherd.checkpoints.source import open_source
from llamaherd.core.errors import UserError
from llamaherd.core.seeds import torch_rng
from llamaherd.model.config import LoraConfig, ModelConfig
from llamaherd.model.lora import add_adapter, new_changes
from llamaherd.model.nf4 import Nf4Linear
from llamaherd.model.transformer import Transformer, new_model
from llamaherd.tokenizer.sentencepiece import Tokenizer

CONFIG = LoraConfig(r=4, alpha=8)
CPU = torch.device("cpu")


@pytest.fixture
def base(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    return new_base(tokenizer, tmp_path / "base")


def new_base(tokenizer: Tokenizer, folder: Path, seed: int = 0, **values: object) -> Path:
    shape = {"dim": 64, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 128, "vocab_size": tokenizer.vocab_size, "context": 64}
    model = Transformer(ModelConfig.model_validate(shape | values))
    for name, weight in model.named_parameters():
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.2, generator=torch_rng(seed, name))
    save_model(model, tokenizer, folder)
    return folder


def new_adapter(base: Path, folder: Path, said: str | None = None) -> Path:
    model, _ = load_model(base)
    changes = {
        path: (a, torch.randn(b.shape, generator=torch_rng(0, path)) * 0.2) for path, (a, b) in new_changes(model, CONFIG, 0).items()
    }
    add_adapter(model, "one", changes, CONFIG.scale)
    AdapterFiles(model, "one", CONFIG, str(base) if said is None else said).save(folder)
    return folder


def tokens() -> torch.Tensor:
    return torch.randint(3, 300, (1, 40), generator=torch_rng(0, "tokens"))


def test_an_adapter_is_opened_as_the_model_that_it_makes_of_its_base(base: Path, tmp_path: Path) -> None:
    adapter = new_adapter(base, tmp_path / "adapter")
    model, tokenizer = load_model(base)
    lay_over(model, "one", read_adapter(adapter))
    folded_in, same = load_model(adapter)
    assert (folded_in(tokens()) - model(tokens())).abs().max() < 1e-4 * model(tokens()).abs().max()
    assert same.model == tokenizer.model


@pytest.mark.parametrize("tied", [False, True])
def test_four_bits_are_quantised_while_reading(tokenizer: Tokenizer, tmp_path: Path, tied: bool) -> None:
    base = new_base(tokenizer, tmp_path / "base", tied=tied)
    frozen, _ = load_frozen(base, 4, CPU)
    layers = [module for module in frozen.modules() if isinstance(module, Nf4Linear)]
    assert len(layers) == 2 * 7
    assert sum(layer.nbytes for layer in layers) / frozen.config.trunk_parameters == pytest.approx(0.516, abs=0.01)
    source = dequantised(open_source(base))
    for layer in range(2):
        assert frozen.layers[layer].attention.wq.dequantised().equal(source.read(f"layers.{layer}.attention.wq.weight"))
    assert frozen.tok_embeddings.weight.equal(source.read("tok_embeddings.weight"))
    assert (frozen.output.weight is frozen.tok_embeddings.weight) == tied
    expected = log_probs(source, tokens()[0].tolist())
    assert torch.allclose(frozen(tokens())[0].log_softmax(-1), expected, atol=1e-4)
    assert not torch.allclose(load_model(base)[0](tokens())[0].log_softmax(-1), expected, atol=0.01)


@pytest.mark.parametrize("bits", [16, 32])
def test_other_bases_keep_their_weights(base: Path, bits: int) -> None:
    frozen, _ = load_frozen(base, bits, CPU)
    assert frozen.dtype == {16: torch.bfloat16, 32: torch.float32}[bits]
    assert frozen.layers[0].attention.wq.weight.equal(load_model(base)[0].layers[0].attention.wq.weight.to(frozen.dtype))


def test_block_by_block_is_the_model_as_a_whole(base: Path) -> None:
    expected = load_model(base)[0](tokens())[0].log_softmax(-1)
    assert torch.allclose(log_probs(open_source(base), tokens()[0].tolist()), expected, atol=1e-5)


def test_as_trained_on_four_bits(base: Path, tmp_path: Path) -> None:
    adapter = read_adapter(new_adapter(base, tmp_path / "adapter"))
    frozen, _ = load_frozen(base, 4, CPU)
    lay_over(frozen, "one", adapter)
    ids = tokens()[0].tolist()
    expected = frozen(tokens())[0].log_softmax(-1)
    for way in (
        lambda source: log_probs(folded(source, adapter), ids),
        lambda source: log_probs(source, ids, adapter),
    ):
        difference = {bits: (way(as_trained(bits)(open_source(base))) - expected).abs().max() for bits in (4, 32)}
        assert difference[4] < 1e-3
        assert difference[32] > 0.1


def test_where_a_base_is_found(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert base_of(new_adapter(base, tmp_path / "one")) == base
    assert base_of(new_adapter(base, tmp_path / "two", "elsewhere/base")) == base, "beside the adapter under the same name"
    monkeypatch.chdir(tmp_path)
    assert base_of(new_adapter(base, tmp_path / "three", "base")) == Path("base")
    for said, shown in (("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf"), ("", "not named")):
        nowhere = new_adapter(base, tmp_path / f"nowhere{len(said)}", said)
        with pytest.raises(UserError, match=rf"whose base \({shown}\) is not here; give the base as MODEL, and --adapter"):
            load_model(nowhere)


def test_an_adapter_is_no_base(base: Path, tmp_path: Path) -> None:
    one = new_adapter(base, tmp_path / "one")
    for bits in (4, 32):
        with pytest.raises(UserError, match="is an adapter; merge it into its base first"):
            load_frozen(one, bits, CPU)
    two = new_adapter(base, tmp_path / "two", str(one))
    with pytest.raises(UserError, match="its base .*one is itself an adapter"):
        load_model(two)
    circle = new_adapter(base, tmp_path / "circle", str(tmp_path / "circle"))
    with pytest.raises(UserError, match="is itself an adapter"):
        load_model(circle)


def test_a_base_is_told_by_its_weights(base: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    same, other = new_base(tokenizer, tmp_path / "same"), new_base(tokenizer, tmp_path / "other", seed=1)
    assert base_artifact(base).hash == base_artifact(same).hash != base_artifact(other).hash
    for content, name in ((b"config", "config.json"), (b"weights", "model.safetensors")):
        before = base_artifact(same).hash
        path = same / name
        raw = path.read_bytes()
        path.write_bytes(raw.replace(b'"hidden_act"', b'"hidden_bct"') if content == b"config" else raw[:-4] + b"\0\0\0\1")
        assert base_artifact(same).hash != before


def test_another_tokenizer_is_another_base(base: Path, tmp_path: Path) -> None:
    adapter = new_adapter(base, tmp_path / "adapter")
    from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer

    train_tokenizer(["the quick brown fox " * 3], TokenizerConfig(vocab_size=290)).save(adapter)
    with pytest.raises(UserError, match="has another tokenizer than its base|has another tokenizer than"):
        load_model(adapter)


READER = """
import sys, threading, time
from pathlib import Path
import torch
from llamaherd.core.device import set_threads
set_threads(1)
from llamaherd.checkpoints.adapted import load_frozen
from llamaherd.checkpoints.huggingface import load_model
from llamaherd.model.nf4 import Nf4Linear, bitsandbytes
bitsandbytes()
Nf4Linear(torch.randn(64, 64))

def held():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024

before, most, stop = held(), 0, False
def watch():
    global most
    while not stop:
        most = max(most, held())
        time.sleep(0.005)
thread = threading.Thread(target=watch, daemon=True)
thread.start()
model, _ = load_frozen(Path(sys.argv[1]), int(sys.argv[2]), torch.device("cpu"))
stop = True
thread.join()
print(most - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say what memory a process has of its own")
def test_a_base_never_stands_in_sixteen_bits_as_a_whole(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """20 million weights in bfloat16 are 40 MB; read into 4 bits they take 10, and some for one matrix at a time."""
    base = tmp_path / "base"
    shape = ModelConfig(dim=512, layers=12, heads=8, ffn=512, vocab_size=tokenizer.vocab_size, context=64)
    save_model(new_model(shape, seed=0).bfloat16(), tokenizer, base)
    sixteen_bits = shape.trunk_parameters * 2
    most = int(subprocess.run([sys.executable, "-c", READER, str(base), "4"], capture_output=True, text=True, check=True).stdout)
    assert most < 0.8 * sixteen_bits
    whole = int(subprocess.run([sys.executable, "-c", READER, str(base), "16"], capture_output=True, text=True, check=True).stdout)
    assert whole > 0.9 * sixteen_bits, "the measurement does not see a whole model"
