import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llamaherd.chat.dialogue import Message, checked
from llamaherd.data.records import Domain, Grade, Preference
from llamaherd.model.layout import Layout
from llamaherd.model.transformer import Scorer
from llamaherd.reward.model import RewardModel
from llamaherd.reward.pairs import Pair, encode_pair, fitting, mix, pair_loss, some_of
from llamaherd.tokenizer.sentencepiece import Tokenizer


def row(number: int, domain: Domain = "helpfulness", grade: Grade | None = "better", safe: tuple[bool, bool] | None = None) -> Preference:
    prompt = checked([Message("user", f"Question {number}")])
    labels = safe or (None, None)
    return Preference(prompt, f"Good {number}", f"Bad {number}", grade, domain, labels[0], labels[1])


@given(own=st.integers(1, 40), other=st.integers(0, 40), share=st.sampled_from([0.0, 1 / 9, 0.5, 1.0, 3.0]), seed=st.integers(0, 9))
def test_the_mix_has_exact_counts(own: int, other: int, share: float, seed: int) -> None:
    rows = [row(number, "helpfulness" if number < own else "safety") for number in range(own + other)]
    mixed = mix(rows, "helpfulness", share, seed)
    counts = Counter(preference.domain for preference in mixed)
    assert counts["helpfulness"] == own
    assert counts["safety"] == min(other, round(share * own))
    assert mixed == [preference for preference in rows if preference in mixed], "in file order, none twice"
    assert mixed == mix(rows, "helpfulness", share, seed)


def test_the_papers_safety_mix_is_nine_to_one() -> None:
    rows = [row(number, "safety" if number < 900 else "helpfulness") for number in range(1800)]
    mixed = mix(rows, "safety", 1 / 9, 0)
    assert Counter(preference.domain for preference in mixed) == {"safety": 900, "helpfulness": 100}
    assert mix(rows, "safety", 1 / 9, 1) != mixed


def test_some_of_a_mix_in_its_order_the_fewer_among_the_more() -> None:
    rows = [row(number) for number in range(30)]
    few, more = some_of(rows, 5, 0), some_of(rows, 20, 0)
    assert (len(few), len(more)) == (5, 20)
    assert few == [preference for preference in more if preference in few]
    assert more == [preference for preference in rows if preference in more]
    assert few != some_of(rows, 5, 1)
    assert some_of(rows, None, 0) == some_of(rows, 30, 0) == some_of(rows, 99, 0) == rows


def test_a_pair_as_encoded(tiny_scorer: Scorer, tokenizer: Tokenizer) -> None:
    model = RewardModel(tiny_scorer, tokenizer)
    pair = encode_pair(row(1, "safety", "significantly", (True, False)), model, "large")
    assert (pair.margin, pair.labels) == (3.0, (1.0, 0.0))
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    assert pair.chosen == [bos, *tokenizer.encode("[INST] Question 1 [/INST] Good 1 "), eos]
    assert pair.rejected == [bos, *tokenizer.encode("[INST] Question 1 [/INST] Bad 1 "), eos]
    foreign = encode_pair(row(1, grade=None), model, "large")
    assert foreign.margin == 0
    assert all(map(math.isnan, foreign.labels))


def test_comparisons_longer_than_the_context_are_told_apart(tiny_scorer: Scorer, tokenizer: Tokenizer) -> None:
    model = RewardModel(tiny_scorer, tokenizer)
    long = Preference(row(0).prompt, "word " * 130, "Bad", None, "safety")
    assert fitting([row(1), long, row(2)], model) == [row(1), row(2)]


PAIRS = [
    Pair([1, 260, 300, 2], [1, 260, 280, 281, 2], 1.0, (1.0, 0.0)),
    Pair([1, 270, 2], [1, 270, 290, 291, 292, 2], 2 / 3, (math.nan, math.nan)),
    Pair([1, 265, 266, 2], [1, 265, 2], 0.0, (0.0, 0.0)),
]


def alone(scorer: Scorer, ids: list[int]) -> Tensor:
    return scorer(torch.tensor([ids]), Layout.of([len(ids)]))[-1]


def by_hand(scorer: Scorer, pairs: list[Pair], weight: float) -> Tensor:
    """Section 5's formulas, written out for one pair at a time."""
    total = torch.zeros(())
    for pair in pairs:
        chosen, rejected = alone(scorer, pair.chosen), alone(scorer, pair.rejected)
        total = total - torch.log(torch.sigmoid(chosen - rejected - pair.margin))
        for score, label in zip((chosen, rejected), pair.labels, strict=True):
            if label == 1:
                total = total - weight * torch.log(torch.sigmoid(score))
            elif label == 0:
                total = total - weight * torch.log(1 - torch.sigmoid(score))
    return total


def gradient(scorer: Scorer, loss: Tensor) -> Tensor:
    scorer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.cat([weight.grad.flatten() for weight in scorer.parameters() if weight.grad is not None])


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_loss_and_gradients_equal_the_written_out_formula(tiny_scorer: Scorer, weight: float) -> None:
    tiny_scorer.score.weight.data *= 0.1  # where log(sigmoid) is exact enough to compare
    found = pair_loss(tiny_scorer, PAIRS, weight)
    expected = by_hand(tiny_scorer, PAIRS, weight)
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (found.count, found.tokens) == (3, 25)
    ours, theirs = gradient(tiny_scorer, found.total), gradient(tiny_scorer, expected)
    assert torch.allclose(ours, theirs, atol=1e-5 * theirs.abs().max().item())


def test_parts_add_up(tiny_scorer: Scorer) -> None:
    whole = pair_loss(tiny_scorer, PAIRS, 1.0)
    parts = [pair_loss(tiny_scorer, [pair], 1.0) for pair in PAIRS]
    assert whole.total.item() == pytest.approx(sum(part.total.item() for part in parts), rel=1e-5)
    for name, (value, count) in whole.sums.items():
        assert value == pytest.approx(sum(part.sums[name][0] for part in parts), rel=1e-4)
        assert count == sum(part.sums[name][1] for part in parts) == 3


def test_a_margin_asks_for_more(tiny_scorer: Scorer) -> None:
    def at(margin: float) -> tuple[float, float]:
        loss = pair_loss(tiny_scorer, [Pair(PAIRS[0].chosen, PAIRS[0].rejected, margin, (math.nan, math.nan))], 0.0)
        return loss.total.item(), gradient(tiny_scorer, loss.total).norm().item()

    losses, gradients = zip(*(at(margin) for margin in (0.0, 1.0, 3.0)), strict=True)
    assert sorted(losses) == list(losses)
    assert sorted(gradients) == list(gradients)
    assert losses[0] < losses[1] < losses[2]
    difference = pair_loss(tiny_scorer, PAIRS[:1], 0.0).sums["reward/margin"][0]
    assert losses[2] == pytest.approx(math.log1p(math.exp(3.0 - difference)), rel=1e-5)


def test_the_auxiliary_loss_reads_labels_and_nothing_else(tiny_scorer: Scorer) -> None:
    unlabelled = [Pair(pair.chosen, pair.rejected, pair.margin, (math.nan, math.nan)) for pair in PAIRS]
    assert pair_loss(tiny_scorer, unlabelled, 5.0).total.item() == pair_loss(tiny_scorer, unlabelled, 0.0).total.item()
    one = [Pair(PAIRS[0].chosen, PAIRS[0].rejected, 1.0, (1.0, math.nan))]
    extra = pair_loss(tiny_scorer, one, 2.0).total.item() - pair_loss(tiny_scorer, one, 0.0).total.item()
    assert extra == pytest.approx(2 * math.log1p(math.exp(-alone(tiny_scorer, one[0].chosen).item())), rel=1e-3, abs=1e-6)


def test_equal_scores_are_no_agreement(tiny_scorer: Scorer) -> None:
    tiny_scorer.score.weight.data.zero_()
    assert pair_loss(tiny_scorer, PAIRS, 0.0).sums["reward/accuracy"] == (0.0, 3.0)
