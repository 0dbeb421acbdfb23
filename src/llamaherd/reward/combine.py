"""One reward from two reward models (paper.md section 6): the piecewise gate, then the logit of what it chose."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..chat.dialogue import Dialogue
from ..data.records import Domain, Prompt
from .model import RewardModel

GATE = 0.15
"""Below this safety score an answer is judged by safety even where the prompt is not tagged."""


class Scores(NamedTuple):
    """Logits of one answer; None of a reward model that has no say."""

    helpfulness: float | None
    safety: float | None
    combined: float


class Rewards(Protocol):
    """Prompts and answers in, one reward each out."""

    def fits(self, prompt: Prompt, answer: str) -> bool:
        """Whether prompt and answer fit the context of every reward model."""

    def scores(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Scores]:
        """Logits of each answer to its prompt. Raises UserError for one that is not finite."""


def gated(helpfulness_logit: float, safety_logit: float, is_safety: bool, gate: float = GATE) -> float:
    """logit(Rc): the safety logit if the prompt is tagged or sigmoid(safety) < gate, else the helpfulness logit.

    Rs and Rh are sigmoids of these logits, so the logit of the chosen one is the logit that went in.
    """
    fires = is_safety or safety_logit < math.log(gate / (1 - gate))
    return safety_logit if fires else helpfulness_logit


class Combination:
    """Both reward models and the gate."""

    def __init__(self, helpfulness: RewardModel, safety: RewardModel, gate: float = GATE):
        self.helpfulness, self.safety, self.gate = helpfulness, safety, gate

    def fits(self, prompt: Prompt, answer: str) -> bool:
        """Whether prompt and answer fit the context of both models."""
        dialogue = prompt.dialogue.followed_by("assistant", answer)
        return self.helpfulness.fits(dialogue) and self.safety.fits(dialogue)

    def scores(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Scores]:
        """Both logits and the combined one of each answer to its prompt. Raises UserError for one that is not finite."""
        dialogues = _whole(prompts, answers)
        helpful, safe = self.helpfulness.logits(dialogues), self.safety.logits(dialogues)
        return [Scores(h, s, gated(h, s, prompt.safety, self.gate)) for prompt, h, s in zip(prompts, helpful, safe, strict=True)]

    def logits(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """The combined logit of each answer to its prompt."""
        return [scores.combined for scores in self.scores(prompts, answers)]


class Alone:
    """One reward model whose logit is the reward."""

    def __init__(self, domain: Domain, model: RewardModel):
        self.domain, self.model = domain, model

    def fits(self, prompt: Prompt, answer: str) -> bool:
        """Whether prompt and answer fit the model's context."""
        return self.model.fits(prompt.dialogue.followed_by("assistant", answer))

    def scores(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Scores]:
        """The model's logit of each answer to its prompt. Raises UserError for one that is not finite."""
        logits = self.model.logits(_whole(prompts, answers))
        own = self.domain == "helpfulness"
        return [Scores(logit if own else None, None if own else logit, logit) for logit in logits]


def _whole(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Dialogue]:
    return [prompt.dialogue.followed_by("assistant", answer) for prompt, answer in zip(prompts, answers, strict=True)]
