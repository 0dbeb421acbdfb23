from typing import Any

import pytest

from llamaherd.rlhf.config import PpoConfig
from llamaherd.rlhf.looks import best_of_looks, guard_fell, why_stop


def config(**values: Any) -> PpoConfig:
    return PpoConfig.model_validate({"guard_tolerance": 0.5, "kl_budget_nats": 2.0, "patience": 3} | values)


def looks(*rows: tuple[float | None, float | None], nats: float = 1.0) -> list[dict[str, Any]]:
    """Looks every four iterations, of (reward, guard)."""

    def figure(value: float | None) -> dict[str, Any]:
        return {"value": value, "low": value, "high": value, "n": 9}

    return [
        {"iteration": 4 * index, "reward": reward, "kl": figure(nats if index else 0.0), "guard": figure(guard)}
        for index, (reward, guard) in enumerate(rows)
    ]


def test_reward_up_while_the_guard_falls_stops_and_the_one_before_is_the_best() -> None:
    rows = [(0.0, 1.0), (1.0, 1.2), (2.0, 0.8), (3.0, 0.6)]
    for count in (1, 2, 3):
        assert why_stop(looks(*rows[:count]), config()) is None
    stopped = why_stop(looks(*rows), config())
    assert stopped == (
        "the guard fell from 1.20 to 0.60, by more than 0.5, while the reward rose from 1.00 to 3.00, at iteration 12: "
        "the policy exploits the reward models"
    )
    assert best_of_looks(looks(*rows), config())["iteration"] == 8


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([(0.0, 1.0), (1.0, 0.5)], 4),  # not by more than the tolerance
        ([(0.0, 1.0), (-1.0, 0.2)], 0),  # reward fell as well: that is no game, and patience sees to it
        ([(0.0, 0.0), (1.0, 0.4), (2.0, -0.05)], 8),
        ([(0.0, None), (1.0, 0.4), (2.0, 0.3)], 8),
        ([(None, None), (None, None)], 0),
        ([(0.0, 1.0), (5.0, None)], 4),
    ],
)
def test_what_does_not_stop(rows: list[tuple[float | None, float | None]], best: int) -> None:
    assert why_stop(looks(*rows), config()) is None
    assert best_of_looks(looks(*rows), config())["iteration"] == best


def test_a_policy_from_which_the_guard_fell_is_never_published() -> None:
    found = looks((0.0, 1.0), (9.0, 0.1), (1.0, 0.9))
    assert guard_fell(found[:2], 0.5) is found[0]
    assert best_of_looks(found, config())["iteration"] == 8


def test_whether_a_look_may_be_chosen_depends_on_no_later_one() -> None:
    rows = [(0.0, 0.0), (3.0, 0.0), (1.0, 2.0)]
    assert best_of_looks(looks(*rows), config())["iteration"] == 4
    assert why_stop(looks(*rows), config()) is None


def test_without_a_guard_it_does_not_count() -> None:
    found = [{key: value for key, value in look.items() if key != "guard"} for look in looks((0.0, 1.0), (9.0, -9.0))]
    assert best_of_looks(found, config())["iteration"] == 4
    assert why_stop(found, config()) is None


def test_the_budget_comes_first() -> None:
    assert why_stop(looks((0.0, 1.0), (9.0, -9.0), nats=2.5), config()) == "KL 2.5 nats over the budget at iteration 4"
