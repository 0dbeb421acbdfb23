import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.core.errors import UserError
from llamaherd.data.mixture import copies_of, mixture_statistics


def test_factual_sources_are_read_more_often():
    sources = ["encyclopedia", "forum", "encyclopedia", "stories", "web", "web"]
    assert copies_of(sources, {"encyclopedia": 2, "stories": 0}, seed=0) == [2, 1, 2, 0, 1, 1]


@given(st.integers(1, 50), st.floats(0, 5), st.integers(0, 100))
def test_fractions_are_a_seeded_choice_of_the_right_number(count, weight, seed):
    copies = copies_of(["a"] * count + ["b"] * 3, {"a": weight}, seed)
    assert copies == copies_of(["a"] * count + ["b"] * 3, {"a": weight}, seed)
    assert copies[count:] == [1, 1, 1]
    assert set(copies[:count]) <= {int(weight), int(weight) + 1}
    assert abs(sum(copies[:count]) - weight * count) <= 0.5 + 1e-6


def test_another_seed_chooses_other_documents():
    assert copies_of(["a"] * 40, {"a": 1.5}, 0) != copies_of(["a"] * 40, {"a": 1.5}, 1)


def test_weights_of_unknown_sources_are_explained():
    with pytest.raises(UserError, match=r"weights.encyclopaedia: .*did you mean 'encyclopedia'\?"):
        copies_of(["encyclopedia", "forum"], {"encyclopaedia": 2}, 0)


def test_statistics_before_and_after():
    assert mixture_statistics(["b", "a", "b"], [10, 20, 10], [2, 1, 1]) == {
        "a": {"documents": 1, "tokens": 20, "mixed_documents": 1, "mixed_tokens": 20, "share": 0.5, "mixed_share": 0.4},
        "b": {"documents": 2, "tokens": 20, "mixed_documents": 3, "mixed_tokens": 30, "share": 0.5, "mixed_share": 0.6},
    }
