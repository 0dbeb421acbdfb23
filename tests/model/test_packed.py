import pytest
import torch

from llamaherd.model import memory
from llamaherd.model.config import ModelConfig
from llamaherd.model.layout import Layout
from llamaherd.model.packed import Packed, pack
from llamaherd.model.transformer import Transformer, new_model

SHAPE = ModelConfig(dim=48, layers=2, heads=6, kv_heads=2, ffn=80, vocab_size=70, context=64)

FREE = 1 << 40


@pytest.mark.parametrize("tied", [False, True])
def test_a_packed_model_says_the_same(monkeypatch: pytest.MonkeyPatch, tied: bool) -> None:
    from llamaherd.generate.config import SamplingConfig
    from llamaherd.generate.engine import generate

    monkeypatch.setattr(memory, "LEAST_PACKED_BYTES", 0)
    shape = SHAPE.model_copy(update={"tied": tied})
    plain, model = new_model(shape, 0), new_model(shape, 0)
    assert pack(model, FREE)
    config = SamplingConfig(temperature=1.0, max_new_tokens=12)
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12]]
    with torch.inference_mode():
        for tokens, layout in ((torch.tensor([[4]]), None), (torch.arange(20)[None] + 3, Layout.of([7, 13]))):
            torch.testing.assert_close(model(tokens, layout), plain(tokens, layout), rtol=1e-5, atol=1e-6)
    for asked in (prompts, prompts[:1]):
        for mine, other in zip(
            generate(model, asked, config, range(3)[: len(asked)], ()),
            generate(plain, asked, config, range(3)[: len(asked)], ()),
            strict=True,
        ):
            assert mine.ids == other.ids
            assert mine.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_what_would_not_gain_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not pack(new_model(SHAPE, 0), FREE), "small"
    monkeypatch.setattr(memory, "LEAST_PACKED_BYTES", 0)
    assert not pack(new_model(SHAPE, 0).to(torch.bfloat16), FREE)
    assert not pack(new_model(SHAPE, 0), memory.packed_bytes(SHAPE, FREE)), "more than half of what is free"
    monkeypatch.setattr(memory, "MOST_PACKED_BYTES", 10)
    model: Transformer = new_model(SHAPE, 0)
    assert not pack(model, FREE), "large"
    assert model.output.weight.shape == (70, 48)


@pytest.mark.parametrize("tied", [False, True])
def test_bytes_besides_are_those_of_the_matrices(monkeypatch: pytest.MonkeyPatch, tied: bool) -> None:
    """Before, every weight once. After, of each packed matrix two layouts; a tied head's embedding stays beside its own two."""
    monkeypatch.setattr(memory, "LEAST_PACKED_BYTES", 0)
    shape = SHAPE.model_copy(update={"tied": tied})
    model = new_model(shape, 0)
    before = sum(weight.nbytes for weight in model.parameters())
    assert pack(model, FREE)
    after = sum(weight.nbytes for weight in model.parameters())
    after += sum(2 * module._one.nbytes for module in model.modules() if isinstance(module, Packed))
    assert after - before == memory.packed_bytes(shape, FREE)
