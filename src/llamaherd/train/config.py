"""Settings of the one training loop."""

from typing import Literal

from pydantic import Field

from ..core.config import Config


class OptimizerConfig(Config):
    """AdamW and its schedule; defaults are the paper's pretraining values (section 2) where it prints them."""

    kind: Literal["adamw", "adamw-8bit", "paged-adamw", "paged-adamw-8bit"] = "adamw"
    """8bit: moments in 8 bits; paged: moments move to the host's memory when the GPU's is full. Both by bitsandbytes."""
    lr: float = Field(3e-4, gt=0)
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the rate moves after warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up, at least this many."""
    warmup_share: float = Field(0.0, ge=0, lt=1)
    """Steps of linear warm-up as a share of all steps, if that is more."""
    final_share: float = Field(0.1, ge=0, le=1)
    """Where the cosine ends, as a share of the peak."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the mean gradient."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """Decay of the mean squared gradient."""
    eps: float = Field(1e-5, gt=0)
    """Added to the root of the mean squared gradient."""
    weight_decay: float = Field(0.1, ge=0)
    """Decay of matrices; norms' gains are left alone."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the whole gradient."""
    checkpoint_every_s: float = Field(30.0, ge=0)
    """Seconds between saved training states; 0 saves after every step."""
