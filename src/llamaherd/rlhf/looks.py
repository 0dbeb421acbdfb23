"""Looks at held-out prompts: which policy is the best, and when to stop.

A look is `iteration`; mean `reward` (None without a judged answer); `kl` to the starting policy, a figure in nats per answer; and with a
guard `guard`, the mean of its logits, a figure whose value is None without a judged answer.
"""

import math
from collections.abc import Sequence
from typing import Any

from .config import PpoConfig

Look = dict[str, Any]


def reward_of(look: Look) -> float:
    """The reward as a number; of nothing judged, less than any."""
    return -math.inf if look["reward"] is None else float(look["reward"])


def guard_of(look: Look) -> float | None:
    """What the guard says, if there is one and it judged anything."""
    value = look.get("guard", {}).get("value")
    return None if value is None else float(value)


def guarded_best(looks: Sequence[Look]) -> Look | None:
    """The first look of those with the guard's highest value."""
    return max((look for look in looks if guard_of(look) is not None), key=lambda look: guard_of(look) or 0.0, default=None)


def guard_fell(looks: Sequence[Look], tolerance: float) -> Look | None:
    """The look before the last one from which the guard has fallen by more than `tolerance` logits; None when it has not."""
    mark, now = guarded_best(looks[:-1]), guard_of(looks[-1])
    return mark if mark and now is not None and now < (guard_of(mark) or 0.0) - tolerance else None


def best_of_looks(looks: Sequence[Look], config: PpoConfig) -> Look:
    """The first look of those with the highest reward, among those within the KL budget from which the guard had not fallen.

    The very first one, the starting policy, is always among them. Whether a look may be chosen depends on no later one.
    """
    allowed = [looks[0]]
    for index, look in enumerate(looks[1:], 2):
        if look["kl"]["value"] <= config.kl_budget_nats and guard_fell(looks[:index], config.guard_tolerance) is None:
            allowed.append(look)
    return max(allowed, key=reward_of)


def why_stop(looks: Sequence[Look], config: PpoConfig) -> str | None:
    """What ends training after the newest look, in words, or None."""
    newest, best = looks[-1], looks.index(best_of_looks(looks, config))
    iteration = newest["iteration"]
    if over := over_budget(newest["kl"]["value"] or 0.0, iteration, config):
        return over
    mark = guard_fell(looks, config.guard_tolerance)
    if mark is not None and reward_of(newest) > reward_of(mark):
        return (
            f"the guard fell from {guard_of(mark):.2f} to {guard_of(newest):.2f}, by more than {config.guard_tolerance:g}, while the reward rose from "
            f"{reward_of(mark):.2f} to {reward_of(newest):.2f}, at iteration {iteration}: the policy exploits the reward models"
        )
    if len(looks) - 1 - best >= config.patience:
        return f"held-out reward has not risen for {config.patience} looks, at iteration {iteration}"
    return None


def over_budget(nats: float, iteration: int, config: PpoConfig) -> str | None:
    """What to say of so large a KL, or None while it is within the budget."""
    return f"KL {nats:.1f} nats over the budget at iteration {iteration}" if nats > config.kl_budget_nats else None
