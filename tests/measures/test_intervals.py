import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.measures import intervals
from llamaherd.measures.intervals import (
    FEWEST,
    Figure,
    averaged,
    difference,
    effect,
    figure,
    mean,
    mean_of_sums,
    nothing,
    of_means_over_seeds,
    over_seeds,
    paired_difference,
    pooled,
    rate,
    scaled,
)


def ends(one: Figure) -> tuple[float, float]:
    assert one["low"] is not None
    assert one["high"] is not None
    return one["low"], one["high"]


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_newcombe_1998_table_1(successes: int, n: int, low: float, high: float) -> None:
    result = rate(successes, n)
    assert result["value"] == successes / n
    assert ends(result) == pytest.approx((low, high), abs=5e-5)
    mirrored = rate(n - successes, n)
    assert ends(mirrored) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_rate_holds_its_value(counts: tuple[int, int]) -> None:
    result = rate(*counts)
    low, high = ends(result)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1
    assert low < high


def test_nothing_measured_is_not_zero() -> None:
    assert rate(0, 0) == mean([]) == paired_difference([], []) == nothing() == {"value": None, "low": None, "high": None, "n": 0}
    assert difference(rate(1, 2), nothing()) == scaled(nothing(), 2) == nothing()


def test_bootstrap_mean_is_seeded_and_close_to_the_normal_interval() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400)
    result = mean(values, seed=1)
    assert result == mean(list(values), seed=1) != mean(values, seed=2)
    assert result["value"] == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert ends(result) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_a_mean_of_sums_has_the_normal_interval() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400)
    half = 1.959963984540054 * values.std(ddof=1) / math.sqrt(len(values))
    result = mean_of_sums(values.sum(), (values * values).sum(), len(values))
    assert result["value"] == pytest.approx(values.mean())
    assert ends(result) == pytest.approx((values.mean() - half, values.mean() + half))
    assert mean_of_sums(0.3, 0.3**2, 1) == {"value": 0.3, "low": 0.3, "high": 0.3, "n": 1}
    assert mean_of_sums(0.0, 0.0, 0) == nothing()


def test_blocks_draw_the_same_number_of_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(50.0)
    whole = mean(values)
    monkeypatch.setattr(intervals, "BLOCK_DRAWS", 50 * 7)
    assert mean(values) == whole


def test_coverage_is_near_its_name() -> None:
    rng = np.random.default_rng(4)
    hits = [low <= 0.3 <= high for low, high in (ends(rate(int(rng.binomial(40, 0.3)), 40)) for _ in range(400))]
    assert 0.92 <= np.mean(hits) <= 0.98
    hits = [low <= 1 <= high for low, high in (ends(mean(rng.exponential(1, 60), seed)) for seed in range(200))]
    assert 0.87 <= np.mean(hits) <= 0.99


def test_paired_difference_uses_the_pairs() -> None:
    a = np.random.default_rng(5).normal(0, 10, 100)
    result = paired_difference(a, a + 0.5)
    assert (result["value"], *ends(result)) == pytest.approx((0.5, 0.5, 0.5))
    with pytest.raises(AssertionError):
        paired_difference([1.0], [1.0, 2.0])


def test_difference_equals_newcombe_1998_method_10() -> None:
    # Newcombe's example (a): 56/70 - 48/80 = .2, interval .0524 to .3339.
    result = difference(rate(48, 80), rate(56, 70))
    assert result["value"] == pytest.approx(0.2)
    assert ends(result) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert result["n"] == 70


def test_scaled() -> None:
    assert scaled(figure(0.3, 0.2, 0.6, 50), 0.5) == {"value": 0.15, "low": 0.1, "high": 0.3, "n": 50}


def test_verdicts() -> None:
    assert effect(figure(0.2, 0.1, 0.3, 50)) == "shown"
    assert effect(figure(0.2, -0.1, 0.3, 50)) == "undecided"
    assert effect(figure(-0.2, -0.3, -0.1, 50)) == "not shown"
    assert effect(figure(0.0, 0.0, 0.0, 50)) == "not shown"
    assert effect(figure(0.2, 0.1, 0.3, 50), threshold=0.15) == "undecided"
    assert effect(figure(0.2, 0.1, 0.3, 50), "below", 0.35) == "shown"
    assert effect(figure(0.2, 0.1, 0.3, 50), "below", 0.3) == "undecided"
    assert effect(figure(0.5, 0.4, 0.6, 50), "below", 0.35) == "not shown"
    assert effect(figure(0.2, 0.1, 0.3, FEWEST - 1)) == effect(nothing()) == effect(None) == "undecided"


def test_a_figure_is_checked() -> None:
    with pytest.raises(AssertionError):
        figure(math.nan, 0, 1, 3)
    with pytest.raises(AssertionError):
        mean([1.0, math.inf])


def test_pooled_rates_are_the_rate_of_all() -> None:
    assert pooled([rate(3, 10), nothing(), rate(5.5, 30)]) == rate(8.5, 40)
    assert pooled([]) == nothing()


def test_over_seeds_is_the_mean_of_the_seeds_means_however_many_prompts_each_has() -> None:
    result = over_seeds([{"a": 1.0, "b": 0.0, "c": 0.5}, {"d": 1.0}])
    assert result["value"] == (0.5 + 1.0) / 2
    assert result["n"] == 4
    assert over_seeds([{"a": 1.0, "b": 0.0, "c": 0.5}, {}]) == over_seeds([{"a": 1.0, "b": 0.0, "c": 0.5}])
    assert over_seeds([]) == over_seeds([{}, {}]) == nothing()


def test_one_seed_is_bootstrapped_as_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=300)
    one, other = over_seeds([{str(index): value for index, value in enumerate(values)}]), mean(list(values))
    assert one["value"] == pytest.approx(other["value"])
    assert ends(one) == pytest.approx(ends(other), abs=0.02)


def test_a_prompt_of_several_seeds_is_drawn_for_all_of_them_at_once() -> None:
    """What one seed gains on a prompt the other loses: whatever is drawn, the mean over seeds is one half."""
    names = [f"p{index}" for index in range(20)]
    first = {name: float(index % 2) for index, name in enumerate(names)}
    second = {name: 1 - value for name, value in first.items()}
    shared = over_seeds([first, second])
    assert (shared["low"], shared["value"], shared["high"], shared["n"]) == (0.5, 0.5, 0.5, 20)
    apart = over_seeds([first, {f"other {name}": value for name, value in second.items()}])
    assert apart["value"] == 0.5
    assert apart["n"] == 40
    assert ends(apart) == pytest.approx((0.5 - 1.96 * math.sqrt(0.25 / 40), 0.5 + 1.96 * math.sqrt(0.25 / 40)), abs=0.03)


def test_three_seeds_that_agree_on_every_prompt_are_no_surer_than_one() -> None:
    values = {str(index): float(index % 3 == 0) for index in range(60)}
    assert ends(over_seeds([values] * 3)) == pytest.approx(ends(over_seeds([values])), abs=1e-9)


def test_a_statistic_of_several_means_by_hand() -> None:
    """The place of the largest of three means: the second, whatever is drawn, though one seed alone would say the first."""
    first = {f"p{index}": (1.0, 0.9, 0.0) for index in range(12)}
    second = {f"p{index}": (0.0, 0.9, 0.8) for index in range(12)}

    def largest(means: np.typing.NDArray[np.float64]) -> float:
        return float(means.argmax())

    assert of_means_over_seeds([first, second], largest) == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 12}
    assert of_means_over_seeds([first], largest)["value"] == 0.0
    unsure = {f"p{index}": (float(index % 2), 1.0 - index % 2) for index in range(12)}
    assert ends(of_means_over_seeds([unsure], largest)) == (0.0, 1.0)
    assert of_means_over_seeds([{}], largest) == nothing()


def test_averaged_figures_by_hand() -> None:
    """Half-widths .3 and .4 below, .6 and .8 above: .5 / 2 and 1 / 2."""
    result = averaged([figure(1.0, 0.7, 1.6, 10), nothing(), figure(2.0, 1.6, 2.8, 20)])
    assert result == {"value": 1.5, "low": pytest.approx(1.25), "high": pytest.approx(2.0), "n": 30}
    assert averaged([figure(1.0, 0.7, 1.6, 10)]) == {"value": 1.0, "low": pytest.approx(0.7), "high": pytest.approx(1.6), "n": 10}
    assert averaged([]) == averaged([nothing()]) == nothing()
