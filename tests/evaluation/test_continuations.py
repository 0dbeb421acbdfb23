"""Log-probabilities of continuations: beside another implementation, and the same in whatever company."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llamaherd.core.seeds import python_rng
from llamaherd.evaluation.continuations import Request, encode_pair, fitted, likelihoods, requests_of, rolled
from llamaherd.model.transformer import Transformer
from llamaherd.tokenizer.sentencepiece import Tokenizer

TEXTS = ("Ada lives in", "Where does Max live? Max lives in", "Ben")
CITIES = (" Lima.", " Oslo and then in Rome.", " Kyiv")


def asked(tokenizer: Tokenizer) -> list[Request]:
    found = []
    for text in TEXTS:
        requests, places = requests_of([encode_pair(tokenizer, text, city) for city in CITIES])
        assert places == [(0, 0), (0, 1), (0, 2)]
        found += requests
    return [*found, Request(found[1].context, found[1].continuations[1:2])]


def test_as_another_implementation_of_the_model_says(tiny_folder: Path, tiny_model: Transformer, tokenizer: Tokenizer) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder / "v0", dtype=torch.float32)
    requests = asked(tokenizer)
    greedy = 0
    for request, found in zip(requests, likelihoods(tiny_model, requests), strict=True):
        for ids, one in zip(request.continuations, found, strict=True):
            whole = torch.tensor([[*request.context, *ids]])
            with torch.no_grad():
                log_probs = theirs(whole).logits[0, len(request.context) - 1 : -1].log_softmax(-1)
            assert one.log_prob == pytest.approx(float(log_probs[range(len(ids)), list(ids)].sum()), abs=1e-3)
            assert one.greedy == (log_probs.argmax(-1).tolist() == list(ids))
            greedy += one.greedy
    assert greedy == 0, "none of these is what a random model would say"
    context = requests[0].context
    with torch.no_grad():
        likeliest = int(theirs(torch.tensor([context])).logits[0, -1].argmax())
    assert likelihoods(tiny_model, [Request(context, ((likeliest,),))])[0][0].greedy


@pytest.mark.parametrize("batch_tokens", [1, 25, 60, 10**6])
def test_neither_batch_size_nor_order_matters(batch_tokens: int, tiny_model: Transformer, tokenizer: Tokenizer) -> None:
    requests = asked(tokenizer)
    plain = likelihoods(tiny_model, requests)
    order = list(range(len(requests)))
    python_rng(0, "order").shuffle(order)
    shuffled = likelihoods(tiny_model, [requests[place] for place in order], batch_tokens)
    for place, found in zip(order, shuffled, strict=True):
        assert [one.log_prob for one in found] == pytest.approx([one.log_prob for one in plain[place]], abs=1e-4)
        assert [one.greedy for one in found] == [one.greedy for one in plain[place]]


def test_the_boundary_by_hand(tokenizer: Tokenizer) -> None:
    """Spaces at the context's end belong to the continuation; an empty context is BOS alone."""
    context, continuation = encode_pair(tokenizer, "Ada lives in", " Lima.")
    assert (list(context), list(continuation)) == ([tokenizer.bos_id, *tokenizer.encode("Ada lives in")], tokenizer.encode("Lima."))
    assert encode_pair(tokenizer, "Ada lives in ", "Lima.") == (context, continuation)
    assert encode_pair(tokenizer, "", "Lima.") == ((tokenizer.bos_id,), tuple(tokenizer.encode("Lima.")))
    assert encode_pair(tokenizer, " \n", "Lima.")[0] == (tokenizer.bos_id,)


class Pairs:
    """A tokenizer with a piece for every two letters, and for a last one that is left alone."""

    bos_id = 0

    def encode(self, text: str) -> list[int]:
        return [sum(map(ord, text[start : start + 2])) for start in range(0, len(text), 2)]


def test_a_piece_over_the_boundary_is_predicted_whole() -> None:
    pairs: Any = Pairs()
    a, b, c, d = map(ord, "abcd")
    assert encode_pair(pairs, "abc", "d") == ((0, a + b), (c + d,))
    assert encode_pair(pairs, "ab", "cd") == ((0, a + b), (c + d,))


def test_a_context_is_cut_from_the_left_and_a_continuation_never() -> None:
    assert fitted((1, 2, 3), (4, 5), 4) == ((1, 2, 3), (4, 5))
    assert fitted((1, 2, 3), (4, 5), 3) == ((2, 3), (4, 5))
    assert fitted((1, 2, 3), (4, 5), 2) == ((3,), (4, 5))
    assert fitted((1, 2, 3), (4, 5), 1) is None


def test_rolling_windows_by_hand() -> None:
    """lm-eval's own example has ten tokens and a context of four."""
    assert [(one.context, one.continuations) for one in rolled(range(10), -1, 4)] == [
        ((-1,), ((0, 1, 2, 3),)),
        ((3,), ((4, 5, 6, 7),)),
        ((5, 6, 7), ((8, 9),)),
    ]
    assert rolled([], -1, 4) == []
    assert [len(one.context) for one in rolled(range(4), -1, 4)] == [1]


def test_a_text_in_windows_is_predicted_as_token_by_token(tiny_model: Transformer, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("Ada lives in Lima. Ben lives in Oslo.")
    found = likelihoods(tiny_model, rolled(ids, tokenizer.bos_id, 5))
    expected = []
    with torch.inference_mode():
        for start in range(0, len(ids), 5):
            end = min(start + 5, len(ids))
            read = [tokenizer.bos_id, *ids][end - 5 : end] if start else [tokenizer.bos_id, *ids[: end - 1]]
            log_probs = tiny_model(torch.tensor([read]))[0].log_softmax(-1)[-(end - start) :]
            expected.append(sum(float(row[token]) for row, token in zip(log_probs, ids[start:end], strict=True)))
    assert [one[0].log_prob for one in found] == pytest.approx(expected, abs=1e-4)
