"""Settings of PPO, with what the paper prints (section 6) and what it leaves open."""

from pydantic import Field, model_validator

from ..core.config import Config


class PpoConfig(Config):
    """Proximal policy optimisation on the combined reward."""

    iterations: int = Field(200, ge=1)
    """Rounds of sampling and updating, at most."""
    batch: int = Field(512, ge=2)
    """Answers sampled per iteration, one per prompt."""
    mini_batch: int = Field(64, ge=1)
    """Answers per gradient step; each answer is used once."""
    micro_batch: int = Field(64, ge=1)
    """Answers per forward pass."""
    clip: float = Field(0.2, gt=0, lt=1)
    """Policy ratios outside 1 - clip .. 1 + clip get no further."""
    beta: float = Field(0.01, ge=0)
    """Weight of the KL to the starting policy."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount per token (not printed in the paper)."""
    lam: float = Field(0.95, ge=0, le=1)
    """GAE's lambda (not printed in the paper)."""
    value_weight: float = Field(0.5, ge=0)
    """Weight of the critic's loss (not printed in the paper)."""
    value_clip: float | None = Field(None, gt=0)
    """Clips the critic's move per iteration; null: unclipped (not printed in the paper)."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of rollouts; anything but 1 samples another policy than the one that is updated."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer; an unfinished one gets the batch's lowest reward."""
    kl_budget_nats: float = Field(20.0, gt=0)
    """Training stops when the mean KL of an answer to the starting policy exceeds this."""
    check_every: int = Field(10, ge=1)
    """Iterations between looks at held-out prompts; the policy of the best look is published."""
    patience: int = Field(3, ge=1)
    """Looks without a better held-out reward before training stops."""

    @model_validator(mode="after")
    def _batches_fit(self) -> "PpoConfig":
        if self.batch % self.mini_batch:
            raise ValueError(f"batch {self.batch} is not a multiple of mini_batch {self.mini_batch}")
        return self
