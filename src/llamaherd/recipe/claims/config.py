"""How much is made for the claims."""

from typing import Annotated

from pydantic import Field

from ...core.config import Config
from ...stages.temperatures import TemperatureSettings


class ClaimsConfig(Config):
    """What `llamaherd claims` makes beyond the runs; everything else is as in the recipe."""

    reward_pairs: tuple[Annotated[int, Field(ge=1)], ...] = (300, 600, 1200)
    """Comparisons that reward models learn from, beside one on all of them."""
    batch_pairs: int = Field(300, ge=1)
    """Comparisons of a reward model that learns from one batch alone; of fewer all are taken."""
    safety_shares: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = (0.0, 0.01, 0.1, 0.25, 0.5)
    """Shares of the safety data in the last version's tuning mix, beside all of it (the paper's figure 15)."""
    hot_lr: float = Field(5e-4, gt=0)
    """Learning rate of the PPO that is to go wrong."""
    hot_beta: float = Field(0.0, ge=0)
    """Its weight of the KL to the starting policy."""
    few_dialogues: int = Field(1500, ge=1)
    """Supervised dialogues of good answers only, against all of the recipe's mixture."""
    sft_steps: int = Field(250, ge=1)
    """Supervised fine-tuning of each of the two."""
    attention_steps: int = Field(300, ge=2)
    """Pretraining of the two models that differ in their attention."""
    held_out_documents: int = Field(1500, ge=1)
    """Documents on which those are measured, before cleaning."""
    temperatures: TemperatureSettings = TemperatureSettings(prompts=20, temperatures=(0.4, 0.8, 1.1, 1.4, 1.7, 2.0), max_new_tokens=48)
    """Answers over temperatures."""
