"""Counted bytes against what torch really keeps, and against numbers worked by hand."""

from collections.abc import Sequence

import pytest
import torch

from llamaherd.losses.language import language_loss
from llamaherd.model.config import LoraConfig, ModelConfig
from llamaherd.model.lora import add_adapter, new_changes
from llamaherd.model.memory import (
    Frozen,
    Pass,
    adapter_parameters,
    block_saved,
    cache_bytes,
    frozen_bytes,
    parameters,
    trunk_saved,
)
from llamaherd.model.nf4 import Nf4Linear
from llamaherd.model.transformer import new_model, scorer_from
from llamaherd.train.batches import TokenBatch

SHAPE = ModelConfig(dim=32, layers=3, heads=4, kv_heads=2, ffn=48, vocab_size=50, context=64)


def test_a_block_by_hand() -> None:
    # One document of 10 tokens; D 32, queries 4 x 8 = 32, keys 2 x 8 = 16, F 48.
    # x, x over its mean square, normed: 3 x 32; q, out: 2 x 32; k, v: 2 x 16; then 3 x 32 and 4 x 48 again, all 10 times, 4 bytes each.
    # A float for each token in either norm, and one for each token and head in attention.
    floats = 10 * (3 * 32 + 2 * 32 + 2 * 16 + 3 * 32 + 4 * 48) + 10 + 10 + 10 * 4
    assert block_saved(SHAPE, Pass((10,), 10), None) == 4 * floats


def test_padding_of_rectangles_is_counted() -> None:
    assert Pass((8, 6, 2), 16).cells == 8 * 2 + 2
    assert Pass((8, 6, 2), 16).tokens == 16
    assert Pass((5, 5), 10).ragged is False


def kept(lengths: Sequence[int], trained_share: float, lora: LoraConfig | None = None, checkpointing: bool = False) -> tuple[int, Pass]:
    """Bytes of all distinct tensors, weights left out, that autograd keeps between a trunk's forward and backward pass."""
    model = new_model(SHAPE, 0).train()
    model.checkpointing = checkpointing
    if lora:
        add_adapter(model, "a", new_changes(model, lora, 0), lora.scale, lora.dropout)
    trained = [int(length * trained_share) for length in lengths]
    documents = [([1] * (n + 1), [0] * (n + 1 - wanted) + [1] * wanted) for n, wanted in zip(lengths, trained, strict=True)]
    batch = TokenBatch.of(documents, model.device)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    seen: dict[int, int] = {}
    alive = []

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights and value.is_floating_point():
            seen[storage.data_ptr()] = storage.nbytes()
        alive.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        hidden = model.hidden(batch.tokens, batch.layout, batch.wanted)
    assert alive
    del hidden
    return sum(seen.values()), Pass(tuple(lengths), sum(trained))


@pytest.mark.parametrize("lengths", [(20, 20, 20), (30, 17, 4), (12,)])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_what_a_trunk_keeps_is_what_torch_keeps(lengths: tuple[int, ...], share: float) -> None:
    measured, one = kept(lengths, share)
    counted, _ = trunk_saved(SHAPE, one)
    # The tokens' output of the last norm is kept by the head that comes after.
    assert counted == pytest.approx(measured, rel=0.04)


def test_what_an_adapter_keeps_is_what_torch_keeps() -> None:
    lora = LoraConfig(r=3)
    measured, one = kept((20, 20), 1.0, lora)
    counted, _ = trunk_saved(SHAPE, one, Frozen(lora, 32))
    assert counted == pytest.approx(measured, rel=0.05)


def test_parameters_are_those_of_the_models() -> None:
    model = new_model(SHAPE, 0)
    assert parameters(SHAPE) == sum(weight.numel() for weight in model.parameters())
    assert parameters(SHAPE, scorer=True) == sum(weight.numel() for weight in scorer_from(model).parameters())
    lora = LoraConfig(r=3, layers=("wq", "w2"))
    assert adapter_parameters(SHAPE, lora) == sum(a.numel() + b.numel() for a, b in new_changes(model, lora, 0).values())


def test_a_base_in_4_bits() -> None:
    shape = SHAPE.model_copy(update={"dim": 256, "ffn": 512})
    model = new_model(shape, 0)
    blocks = [module for module in model.layers.modules() if isinstance(module, torch.nn.Linear)]
    quantised = sum(Nf4Linear(module.weight).nbytes for module in blocks)
    rest = sum(weight.nbytes for weight in model.parameters()) - sum(module.weight.nbytes for module in blocks)
    assert frozen_bytes(shape, Frozen(LoraConfig(), 4), on_gpu=False) == pytest.approx(quantised + rest, rel=0.001)


def test_the_cache_of_7b_is_half_a_mebibyte_per_token_in_16_bits() -> None:
    shape = ModelConfig()
    assert cache_bytes(shape, 1, 1, 2) == 2 * 32 * 32 * 128 * 2 + 32 * 2
    assert cache_bytes(shape, 2, 10) == 20 * cache_bytes(shape, 1, 1)


def test_the_loss_keeps_log_probabilities_of_trained_tokens_alone() -> None:
    logits = torch.randn(7, 50, requires_grad=True)
    found = []
    with torch.autograd.graph.saved_tensors_hooks(lambda value: found.append(value) or value, lambda value: value):
        language_loss(logits, torch.zeros(7, dtype=torch.long), torch.ones(7))
    assert max(value.nbytes for value in found) == 7 * 50 * 4
