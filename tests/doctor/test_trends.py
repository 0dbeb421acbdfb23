import pytest

from llamaherd.doctor.trends import ends, trend


def test_by_hand() -> None:
    """Ten pairs of five values all rise: S = 10, variance 5 * 4 * 15 / 18, and the continuity correction takes one."""
    assert trend([1, 2, 3, 4, 5]) == pytest.approx(9 / (50 / 3) ** 0.5)
    assert trend([5, 4, 3, 2, 1]) == pytest.approx(-9 / (50 / 3) ** 0.5)
    # Two equal values take 2 * 1 * 9 / 18 = 1 from the variance and their pair from S.
    assert trend([1, 1, 2, 3, 4]) == pytest.approx(8 / (50 / 3 - 1) ** 0.5)


def test_no_trend() -> None:
    assert trend([1, 1, 1, 1, 1, 1]) == 0.0
    assert trend([1, 2, 3, 4]) == 0.0, "too few to be sure of anything"
    assert abs(trend([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])) < 1.96


def test_ends() -> None:
    assert ends([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0]) == (1.5, 8.0)
    assert ends([2.0]) == (2.0, 2.0)
