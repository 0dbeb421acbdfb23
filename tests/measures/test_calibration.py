import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.measures.calibration import (
    bootstrapped,
    by_bin,
    expected_calibration_error,
    histogram,
    rank_correlation,
    reliability,
    sigmoid,
    threshold_report,
)

CONFIDENCES = [0.52, 0.54, 0.74, 0.71, 0.72, 0.99, 1.0, 0.5]
HITS = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize(("logit", "value"), [(0.0, 0.5), (math.log(3), 0.75), (-math.log(3), 0.25), (800.0, 1.0), (-800.0, 0.0)])
def test_sigmoid(logit: float, value: float) -> None:
    assert sigmoid(logit) == pytest.approx(value)


def test_a_diagram_by_hand() -> None:
    bins = reliability(CONFIDENCES, HITS, bins=10)
    assert [(one["low"], one["high"]) for one in bins][:2] == [(0.5, pytest.approx(0.55)), (pytest.approx(0.55), pytest.approx(0.6))]
    assert [one["rate"]["n"] for one in bins] == [3, 0, 0, 0, 3, 0, 0, 0, 0, 2]
    assert bins[0]["confidence"] == pytest.approx((0.52 + 0.54 + 0.5) / 3)
    assert bins[0]["rate"]["value"] == pytest.approx(0.5)
    assert bins[4]["rate"]["value"] == pytest.approx(2 / 3)
    assert bins[9]["rate"]["value"] == 1.0, "certainty belongs to the last part"
    assert bins[1]["confidence"] is None
    assert bins[1]["rate"]["value"] is None


def test_the_error_by_hand() -> None:
    """Three parts of 3, 3 and 2 of 8: |0.5 - 0.52|, |2/3 - 0.7233|, |1 - 0.995|."""
    expected = (3 * abs(0.5 - 0.52) + 3 * abs(2 / 3 - (0.74 + 0.71 + 0.72) / 3) + 2 * 0.005) / 8
    found = expected_calibration_error(CONFIDENCES, HITS)
    assert found["value"] == pytest.approx(expected)
    assert found["n"] == 8
    assert found["low"] is not None
    assert found["low"] <= expected <= (found["high"] or 0)
    assert expected_calibration_error([], [])["value"] is None


def test_who_says_what_is_true_has_little_error_and_who_boasts_has_much() -> None:
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.5, 1.0, 4000)
    honest = (rng.random(4000) < confidences).astype(float)
    coin = (rng.random(4000) < 0.5).astype(float)
    low, high = expected_calibration_error(list(confidences), list(honest)), expected_calibration_error(list(confidences), list(coin))
    assert low["value"] is not None
    assert low["value"] < 0.03
    assert high["value"] == pytest.approx(0.25, abs=0.03)
    assert high["low"] is not None
    assert (high["high"] or 1) - high["low"] < 0.05


def test_a_threshold_by_hand() -> None:
    """0.5 itself is not below it; two of three called ones are unsafe, of three unsafe ones two are called."""
    report = threshold_report([0.1, 0.2, 0.4, 0.5, 0.9], [True, False, True, True, False], 0.5)
    assert [(report[key]["value"], report[key]["n"]) for key in ("precision", "recall", "false_alarms")] == [
        (pytest.approx(2 / 3), 3), (pytest.approx(2 / 3), 3), (0.5, 2),
    ]  # fmt: skip
    nobody = threshold_report([0.9], [False], 0.15)
    assert (nobody["precision"]["value"], nobody["recall"]["value"], nobody["false_alarms"]["value"]) == (None, None, 0.0)


def test_ranks_by_hand() -> None:
    """Ranks 0 1 2 3 against 1 0 3 2: 1 - 6 * 4 / (4 * 15) = 0.6; monotone means 1, whatever the distances."""
    assert rank_correlation([1, 2, 3, 4], [2, 1, 4, 3])["value"] == pytest.approx(0.6)
    assert rank_correlation([1, 2, 3, 4], [1, 10, 100, 1000])["value"] == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [3, 2, 1])["value"] == pytest.approx(-1.0)
    assert rank_correlation([1, 1, 1], [3, 2, 1])["value"] is None
    assert rank_correlation([], [])["n"] == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_ranks_with_ties_are_pearson_s_of_mean_ranks(pairs: list[tuple[int, int]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    if len(set(a)) < 2 or len(set(b)) < 2:
        return

    def ranks(values: list[int]) -> list[float]:
        return [sum(other < value for other in values) + (values.count(value) - 1) / 2 for value in values]

    found = rank_correlation(a, b)
    assert found["value"] == pytest.approx(float(np.corrcoef(ranks(a), ranks(b))[0, 1]), abs=1e-9)
    assert found["low"] is not None
    assert -1 - 1e-9 <= found["low"] <= (found["high"] or 0) <= 1 + 1e-9


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    """95% intervals of a mean by the bootstrap: of 100 samples a few miss, not many."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(100):
        sample = rng.normal(0.3, 1.0, 60)
        found = bootstrapped(60, lambda drawn, sample=sample: sample[drawn].mean(axis=1))  # type: ignore[misc]
        covered += (found["low"] or 0) <= 0.3 <= (found["high"] or 0)
    assert 88 <= covered <= 99


def test_a_histogram_counts_everything_once() -> None:
    assert histogram([0.0, 0.049, 0.05, 0.5, 0.999, 1.0]) == [2, 1, *[0] * 8, 1, *[0] * 8, 2]
    assert sum(histogram([0.3] * 7)) == 7


def test_levels_are_kept_apart_while_they_are_few() -> None:
    assert by_bin([3, 1, 1, 7], [0.3, 0.1, 0.2, 0.7]) == {"1": [0.1, 0.2], "3": [0.3], "7": [0.7]}
    many = by_bin([value / 20 for value in range(21)], list(map(float, range(21))), most=4)
    assert list(many) == ["0 to 0.25", "0.25 to 0.5", "0.5 to 0.75", "0.75 to 1"]
    assert [len(values) for values in many.values()] == [5, 5, 5, 6]
    assert many["0.75 to 1"][-1] == 20.0
