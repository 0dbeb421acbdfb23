"""Self-BLEU, worked by hand."""

import math

import pytest

from llamaherd.measures.diversity import bleu, self_bleu


def test_equal_texts_are_as_alike_as_can_be() -> None:
    assert self_bleu(["a b c d e"] * 3) == pytest.approx(1)
    assert self_bleu(["a", "a"]) == pytest.approx(1)
    assert self_bleu(["", ""]) == 1


def test_nothing_in_common() -> None:
    assert self_bleu(["a b c d", "e f g h"]) == 0
    assert self_bleu(["", "a"]) == 0


def test_two_texts_by_hand() -> None:
    """Of `a b c` in `a b d`: 2 of 3 words, 1 of 2 pairs, no run of three (1/2 of one); equally long."""
    assert self_bleu(["a b c", "a b d"]) == pytest.approx((2 / 3 * 1 / 2 * 1 / 2) ** (1 / 3))


def test_a_word_counts_as_often_as_the_others_hold_it() -> None:
    """`a a` in `a`: one of two words, no pair; `a` in `a a`: all, but half as long."""
    first, second = (1 / 2 * 1 / 2) ** (1 / 2), math.exp(1 - 2)
    assert self_bleu(["a a", "a"]) == pytest.approx((first + second) / 2)


def test_the_best_of_the_others_counts() -> None:
    """`a b` stands in full among the others; `x` matches nothing."""
    assert self_bleu(["a b", "x", "a b"]) == pytest.approx((1 + 1 + 0) / 3)


def test_shorter_than_the_closest_reference() -> None:
    assert bleu([2, 1], 2, [3, 9]) == pytest.approx(math.exp(1 - 3 / 2))
    assert bleu([2, 1], 2, [1, 3]) == 1, "of two that are equally close the shorter one counts"


def test_the_order_of_the_texts_does_not_matter() -> None:
    texts = ["the cat sat on a mat", "a dog sat on the mat", "the cat and the dog"]
    assert self_bleu(texts) == pytest.approx(self_bleu(texts[::-1]))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["the cat sat on a mat .", "the dog sat on the mat .", "a cat ran .", "the cat sat on the mat ."], 0.5453748316597238),
        (["hat on a ran", "sat ran cat dog hat sat sat", "sat a on a ran"], 0.337108864160597),
        (["the the the the", "the", "the cat the"], 0.1912339119850991),
    ],
)
def test_equals_sacrebleu_2_6(texts: list[str], expected: float) -> None:
    """Mean of its sentence scores against all others: exponential smoothing, effective order, words at spaces."""
    assert self_bleu(texts) == pytest.approx(expected, abs=1e-9)
