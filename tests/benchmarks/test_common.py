import pytest
import torch
from benchmarks.common import Case, compare, our_model, transformers_twin

from llamaherd.core.seeds import torch_rng
from llamaherd.model.layout import Layout
from llamaherd.model.transformer import scorer_from


def test_both_sides_have_the_same_weights() -> None:
    ours = our_model("tiny")
    tokens = torch.randint(3, 500, (2, 20), generator=torch_rng(0))
    with torch.inference_mode():
        assert torch.allclose(ours(tokens), transformers_twin(ours)(tokens).logits, atol=1e-4)


def test_scores_are_the_same() -> None:
    ours = scorer_from(our_model("tiny"))
    torch.nn.init.ones_(ours.score.weight)
    tokens = torch.randint(3, 500, (1, 20), generator=torch_rng(0))
    with torch.inference_mode():
        assert torch.allclose(ours(tokens, Layout.of([20]))[-1:], transformers_twin(ours)(tokens).logits[0], atol=1e-4)


def test_fresh_weights_are_as_sure_as_a_trained_model() -> None:
    with torch.inference_mode():
        logits = our_model("miniature")(torch.randint(3, 1000, (1, 200), generator=torch_rng(0)))[0]
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    assert 0.5 < entropy < 2.0


def test_a_row_holds_medians_and_the_ratio_of_pairs() -> None:
    """A clock that each call moves on: theirs takes 1, 2 and 4 seconds, ours 0.5, 0.5 and 2, each after a call to warm up."""
    now, theirs, ours = [0.0], iter([9.0, 1.0, 2.0, 4.0]), iter([9.0, 0.5, 0.5, 2.0])

    def work(seconds: float) -> int:
        now[0] += seconds
        return 100

    case = Case("name", lambda: work(next(ours)), lambda: work(next(theirs)))
    assert compare(case, 3, lambda: now[0]) == "| name | 50 | 200 | 2.00 | 2.00 to 4.00 |"


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(Exception, match="no model preset 'minature'"):
        our_model("minature")
