"""Perplexity, by hand and part by part."""

import gzip
import math
from pathlib import Path

import pytest
import torch

from llamaherd.core.errors import UserError
from llamaherd.evaluation.compared import Compared
from llamaherd.evaluation.perplexity import Drift, perplexity, read_text, windows
from llamaherd.model.quantized import Scheme, quantize, quantize_model
from llamaherd.model.transformer import Transformer
from llamaherd.tokenizer.sentencepiece import Tokenizer

TEXT = "Anna lives in Paris. Ben lives in Rome, or so he says; he likes tea and long walks."


def test_windows_by_hand() -> None:
    assert [part.tolist() for part in windows([7, 8, 9, 10, 11], 1, 2)] == [[1, 7, 8], [1, 9, 10], [1, 11]]


def test_a_uniform_model_is_as_perplexed_as_it_has_ids(tiny_model: Transformer, tokenizer: Tokenizer) -> None:
    with torch.no_grad():
        tiny_model.output.weight.zero_()
    found = perplexity(tiny_model, tokenizer, TEXT, window=10)
    assert found.tokens == len(tokenizer.encode(TEXT))
    assert found.perplexity == pytest.approx(tiny_model.config.vocab_size, rel=1e-5)


def test_every_token_counts_once_and_sees_its_window_alone(tiny_model: Transformer, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT)[:11]
    nats = 0.0
    with torch.inference_mode():
        for start in (0, 4, 8):
            row = [tokenizer.bos_id, *ids[start : start + 4]]
            log_probs = tiny_model(torch.tensor([row[:-1]]))[0].log_softmax(-1)
            nats -= sum(float(log_probs[place, token]) for place, token in enumerate(row[1:]))
    found = perplexity(tiny_model, tokenizer, TEXT, window=4, tokens=11)
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / 11), rel=1e-5)


def test_a_window_is_at_most_the_context(tiny_model: Transformer, tokenizer: Tokenizer) -> None:
    long = TEXT * 40
    assert perplexity(tiny_model, tokenizer, long, window=10**6) == perplexity(
        tiny_model, tokenizer, long, window=tiny_model.config.context
    )


def test_drift_by_hand() -> None:
    """Two ids: 1/2 and 1/2 against 1/4 and 3/4, the first id meant."""
    drift = Drift()
    drift.add(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]]), torch.tensor([0]))
    assert drift.first.perplexity == pytest.approx(2)
    assert drift.second.perplexity == pytest.approx(4)
    assert drift.kl == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert drift.squares == pytest.approx((math.log(2) ** 2 + math.log(1.5) ** 2) / 2)
    assert drift.same_choice == 0


@pytest.mark.parametrize("scheme", [Scheme(8), Scheme(4, 32)], ids=str)
def test_part_by_part_is_the_whole(tiny_model: Transformer, tokenizer: Tokenizer, scheme: Scheme) -> None:
    compared = Compared(tiny_model.config, scheme, 20)
    compared.add("text", tokenizer.encode(TEXT), tokenizer.bos_id)
    weights = {name: weight.detach() for name, weight in tiny_model.named_parameters()}
    parts = ["tok_embeddings", *(f"layers.{layer}" for layer in range(tiny_model.config.layers)), "norm", "output"]
    for part in parts:
        floats = {name.removeprefix(f"{part}."): weight for name, weight in weights.items() if name.startswith(f"{part}.")}
        linear = {name: weight for name, weight in floats.items() if weight.dim() == 2 and part != "tok_embeddings"}
        compared.watch(part, floats, {name: quantize(weight, scheme) for name, weight in linear.items()})
    found = compared.figures()["text"]
    assert found["tokens"] == found["of_tokens"] == len(tokenizer.encode(TEXT))
    assert found["perplexity_before"] == pytest.approx(perplexity(tiny_model, tokenizer, TEXT, 20).perplexity, rel=1e-5)
    assert found["perplexity_after"] == pytest.approx(
        perplexity(quantize_model(tiny_model, scheme), tokenizer, TEXT, 20).perplexity, rel=1e-5
    )
    assert 0 < found["kl_nats"] < 1
    assert 0 < compared.weight_error < 0.1


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    bad, damaged, empty, good = tmp_path / "bad.txt", tmp_path / "damaged.txt.gz", tmp_path / "empty.txt", tmp_path / "good.txt.gz"
    bad.write_bytes(b"\xff\xfe")
    damaged.write_bytes(gzip.compress(b"words " * 1000)[:-20])
    empty.write_text(" \n")
    good.write_bytes(gzip.compress("Wörter".encode()))
    assert read_text(good) == "Wörter"
    for file, problem in ((bad, "UTF-8"), (damaged, "cannot be read"), (empty, "no text"), (tmp_path / "none.txt", "no such file")):
        with pytest.raises(UserError, match=problem) as told:
            read_text(file)
        assert str(file) in str(told.value)
