import pytest
import torch

from llamaherd.model import packed
from llamaherd.model.config import ModelConfig
from llamaherd.model.layout import Layout
from llamaherd.model.packed import pack
from llamaherd.model.transformer import Transformer, new_model

SHAPE = ModelConfig(dim=48, layers=2, heads=6, kv_heads=2, ffn=80, vocab_size=70, context=64)


@pytest.mark.parametrize("tied", [False, True])
def test_a_packed_model_says_the_same(monkeypatch: pytest.MonkeyPatch, tied: bool) -> None:
    from llamaherd.generate.config import SamplingConfig
    from llamaherd.generate.engine import generate

    monkeypatch.setattr(packed, "LEAST_BYTES", 0)
    shape = SHAPE.model_copy(update={"tied": tied})
    plain, model = new_model(shape, 0), new_model(shape, 0)
    assert pack(model)
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
    assert not pack(new_model(SHAPE, 0)), "small"
    monkeypatch.setattr(packed, "LEAST_BYTES", 0)
    assert not pack(new_model(SHAPE, 0).to(torch.bfloat16))
    monkeypatch.setattr(packed, "MOST_BYTES", 10)
    model: Transformer = new_model(SHAPE, 0)
    assert not pack(model), "large"
    assert model.output.weight.shape == (70, 48)
