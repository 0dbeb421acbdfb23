"""Small models in many shapes, and what must be refused at once."""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llamaherd.checkpoints.huggingface import save_model
from llamaherd.checkpoints.source import open_source
from llamaherd.core.errors import UserError
from llamaherd.core.seeds import torch_rng
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer, Trunk
from llamaherd.tokenizer.sentencepiece import Tokenizer

BASE = ModelConfig(dim=32, layers=2, heads=8, ffn=48, vocab_size=344, context=40)
FORMS = {
    "all heads": BASE,
    "grouped": BASE.model_copy(update={"kv_heads": 2, "layers": 3}),
    "tied": BASE.model_copy(update={"tied": True, "kv_heads": 4}),
    "odd width": BASE.model_copy(update={"ffn": 51, "heads": 2, "dim": 44}),
    "by rule": BASE.model_copy(update={"ffn": None, "multiple_of": 24, "ffn_multiplier": 1.3}),
}
"""Shapes that every format can hold."""


def randomised(config: ModelConfig, dtype: torch.dtype = torch.float32) -> Transformer:
    model = Transformer(config).to(dtype)
    for name, weight in model.named_parameters():
        weight.data = torch.randn(weight.shape, generator=torch_rng(0, name)).mul(0.2).add(float(weight.ndim == 1)).to(dtype)
    if config.tied:
        model.output.weight = model.tok_embeddings.weight
    return model.eval()


def same_weights(folder: Path, model: Trunk) -> bool:
    """Whether a model on disk has a model's weights to the bit."""
    source = open_source(folder)
    return all(source.read(name).equal(model.get_parameter(name)) for name in source.names) and set(source.names) == set(
        dict(model.named_parameters())
    )


@pytest.fixture(scope="session")
def form_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A Hugging Face folder of a form's random weights."""
    made: dict[str, Path] = {}

    def folder(form: str) -> Path:
        if form not in made:
            made[form] = tmp_path_factory.mktemp("form")
            save_model(randomised(FORMS[form]), tokenizer, made[form])
        return made[form]

    return folder


def refused(path: Path, act: Callable[[Path], object] = open_source) -> str:
    """The one line that a bad model gives: in under a second and 100 MB, with the path in it."""
    tracemalloc.start()
    before = time.process_time()
    with pytest.raises(UserError) as found:
        act(path)
    seconds, (_, peak_bytes) = time.process_time() - before, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    line = str(found.value)
    assert "\n" not in line
    assert str(path) in line
    assert len(line) < 1000
    assert seconds < 1
    assert peak_bytes < 100 << 20
    return line.replace(str(path), "HERE")
