import pytest

from llamaherd.core.seeds import torch_rng
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer


@pytest.fixture
def model() -> Transformer:
    """Random weights large enough for attention and answers to vary."""
    model = Transformer(ModelConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=56, vocab_size=40, context=48))
    for weight in model.parameters():
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.2, generator=torch_rng(0, "weights"))
    return model
