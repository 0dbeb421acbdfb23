"""From the combined logits of a batch to rewards per token (paper.md section 6). B answers."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..losses.sums import whiten
from .config import SignalConfig

EPSILON = 1e-8
"""Added to a variance, as in `whiten`."""


def with_lowest(logits: Sequence[float | None]) -> Tensor:
    """[B] combined logits, where None (unfinished, empty, tagged) gets the lowest of the others; zeros where all are None."""
    lowest = min((logit for logit in logits if logit is not None), default=0.0)
    return torch.tensor([lowest if logit is None else logit for logit in logits], dtype=torch.float32)


def filled(logits: Sequence[float | None], config: SignalConfig) -> Tensor:
    """[B] combined logits, where None gets what the settings say."""
    if config.unfinished != "penalty":
        return with_lowest(logits)
    return torch.tensor([config.penalty if logit is None else logit for logit in logits], dtype=torch.float32)


@dataclass
class Running:
    """Count, mean and summed squared deviations of all rewards so far; two sets are joined as Chan et al. (1979) do."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: Sequence[float]) -> None:
        """Takes a batch in."""
        count, mean = len(values), math.fsum(values) / len(values)
        squares, total = math.fsum((value - mean) ** 2 for value in values), self.count + count
        self.squares += squares + (mean - self.mean) ** 2 * self.count * count / total
        self.mean += (mean - self.mean) * count / total
        self.count = total

    def whitened(self, values: Tensor) -> Tensor:
        """Values less the mean, over the deviation; equal values so far have no scale and give zeros."""
        return (values - self.mean) / math.sqrt(self.squares / max(1, self.count) + EPSILON)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a training state."""
        return asdict(self)


def scores_of(logits: Sequence[float | None], config: SignalConfig, running: Running) -> Tensor:
    """[B] the reward of each answer as a whole: filled, whitened over the declared scope, cut.

    Over the batch they have mean 0 and variance 1; where all are equal they are 0, and only the KL term acts. Over all batches so far,
    this one is taken into `running` first.
    """
    values = filled(logits, config)
    if config.whiten_rewards == "batch":
        values = whiten(values, epsilon=EPSILON)
    elif config.whiten_rewards == "running":
        running.add(values.tolist())
        values = running.whitened(values)
    return values if config.reward_clip is None else values.clamp(-config.reward_clip, config.reward_clip)


def token_rewards(scores: Tensor, kl: Sequence[Tensor], beta: float) -> list[Tensor]:
    """The reward of each token of each answer: minus beta times the KL's estimate there, and the answer's score on the last one.

    scores [B]; kl: one tensor per answer, of one number per sampled token, the first token and the end-of-sequence included.
    """
    rewards = [-beta * row for row in kl]
    for row, score in zip(rewards, scores, strict=True):
        row[-1] += score
    return rewards
