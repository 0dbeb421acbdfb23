"""One reward from two reward models (paper.md section 6): the piecewise gate, then the logit of what it chose."""

import math
from collections.abc import Sequence

from ..chat.dialogue import Dialogue
from ..data.records import Prompt
from .model import RewardModel

GATE = 0.15
"""Below this safety score an answer is judged by safety even where the prompt is not tagged."""


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

    def logits(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """The combined logit of each answer to its prompt."""
        dialogues: list[Dialogue] = [
            prompt.dialogue.followed_by("assistant", answer) for prompt, answer in zip(prompts, answers, strict=True)
        ]
        scores = zip(prompts, self.helpfulness.logits(dialogues), self.safety.logits(dialogues), strict=True)
        return [gated(helpful, safe, prompt.safety, self.gate) for prompt, helpful, safe in scores]
