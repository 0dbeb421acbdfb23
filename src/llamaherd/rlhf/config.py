"""Settings of PPO, with what the paper prints (section 6) and what it leaves open; docs/ppo.md has the reasons and the biases."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ..core.config import Config
from ..model.config import LoraConfig

Estimate = Literal["k1", "k2", "k3"]
"""Of the KL, see `losses/kl.py`."""


class SignalConfig(Config):
    """From the reward models' logits to advantages (the paper prints that rewards are whitened, and beta)."""

    unfinished: Literal["lowest", "penalty", "score"] = "lowest"
    """What an unfinished answer gets: the batch's lowest reward, `penalty`, or its own score as if it had ended there. Empty answers, those
    with a tag and those beyond a reward model's context have no score: `penalty` where that is chosen, else the lowest."""
    penalty: float = -5.0
    """The logit that `unfinished: penalty` gives, before whitening."""
    whiten_rewards: Literal["batch", "running", "none"] = "batch"
    """Mean and variance over the iteration's batch, over all batches so far, or rewards as they are."""
    reward_clip: float | None = Field(None, gt=0)
    """Rewards beyond this, once whitened, are cut to it; null: none is."""
    kl_in_reward: Estimate = "k1"
    """Estimate that is taken from the reward of each token; k1 alone has the gradient of the KL there."""
    kl_reported: Estimate = "k3"
    """Estimate that looks show and that is held against kl_budget_nats."""
    whiten_advantages: Literal["batch", "mini-batch", "none"] = "batch"
    """Over the tokens of the iteration, of each mini-batch, or not at all."""


class CriticConfig(Config):
    """Where the critic comes from (not printed in the paper)."""

    start: Literal["policy", "helpfulness", "safety"] = "policy"
    """The policy with a value head at zero, or a reward model with its head, which needs the policy's tokenizer and shape."""
    lr: float | None = Field(None, gt=0)
    """Its own peak learning rate; null: the policy's."""


class SamplerConfig(Config):
    """How rollouts are sampled (not printed in the paper)."""

    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus; below 1 the policy never sees what it leaves out."""
    together: int = Field(128, ge=1)
    """Answers sampled at a time, at most."""
    memory_gib: float | None = Field(None, gt=0)
    """Memory for the answers sampled at a time, beside the weights; null: only `together` counts."""


class PpoConfig(Config):
    """Proximal policy optimisation on the combined reward."""

    renamed: ClassVar[dict[str, str]] = {
        "kl_coef": "beta", "init_kl_coef": "beta", "target_kl": "kl_budget_nats", "kl_budget": "kl_budget_nats", "kl_estimator": "signal.kl_in_reward",
        "cliprange": "clip", "clip_range": "clip", "cliprange_value": "value_clip", "vf_coef": "value_weight", "entropy_coef": "entropy_weight",
        "ppo_epochs": "epochs", "num_ppo_epochs": "epochs", "batch_size": "batch", "mini_batch_size": "mini_batch", "micro_batch_size": "micro_batch",
        "response_length": "max_new_tokens", "missing_eos_penalty": "signal.penalty", "whiten_rewards": "signal.whiten_rewards",
        "top_p": "sampler.top_p", "sample_together": "sampler.together", "critic_lr": "critic.lr", "lambda": "lam",
    }  # fmt: skip

    iterations: int = Field(200, ge=1)
    """Rounds of sampling and updating, at most."""
    batch: int = Field(512, ge=2)
    """Answers sampled per iteration, one per prompt."""
    mini_batch: int = Field(64, ge=1)
    """Answers per gradient step; each answer is used once per epoch."""
    micro_batch: int = Field(64, ge=1)
    """Answers per forward pass."""
    epochs: int = Field(1, ge=1)
    """Times that each answer is used; from the second on in a new order."""
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
    entropy_weight: float = Field(0.0, ge=0)
    """Weight of the entropy bonus in the loss (not printed in the paper)."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of rollouts; the policy that is updated is the one at this temperature."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer; `signal.unfinished` says what one that is cut there gets."""
    kl_budget_nats: float = Field(20.0, gt=0)
    """Training stops when the mean KL of an answer to the starting policy exceeds this."""
    check_every: int = Field(10, ge=1)
    """Iterations between looks at held-out prompts; the policy of the best look is published."""
    patience: int = Field(3, ge=1)
    """Looks without a better held-out reward before training stops."""
    guard_tolerance: float = Field(0.2, ge=0)
    """Logits that the guard may fall below its best look; further down no policy is published, and one whose reward rose stops the run."""
    sampling_gap_nats: float = Field(0.1, gt=0)
    """The run stops when sampler and trainer differ by more than this in a token's log-probability, on average."""
    samples: int = Field(3, ge=0)
    """Answers of each iteration that are written to sampled.jsonl."""
    signal: SignalConfig = SignalConfig()
    """From rewards to advantages."""
    critic: CriticConfig = CriticConfig()
    """Where the critic comes from."""
    sampler: SamplerConfig = SamplerConfig()
    """How rollouts are sampled."""

    @model_validator(mode="after")
    def _batches_fit(self) -> "PpoConfig":
        if self.batch % self.mini_batch:
            raise ValueError(f"batch {self.batch} is not a multiple of mini_batch {self.mini_batch}")
        return self

    def steps(self, prompts: int | None = None) -> int:
        """Gradient steps of all iterations, if nothing stops them. `prompts`: how many there are; with fewer left than a batch takes, an
        iteration has fewer answers. None: enough for every batch.
        """
        count = self.batch if prompts is None else prompts
        sizes = [min(self.batch, count - start) for start in range(0, count, self.batch)]
        return self.epochs * sum(-(-sizes[index % len(sizes)] // self.mini_batch) for index in range(self.iterations))


class RolesConfig(Config):
    """Policy, critic, reference and both reward models on one base that is not trained: what each has of its own is an adapter, or a head.

    The reference is the chat model that training starts from: the base, with that model's adapter if it has one, which the policy's
    adapter then begins as. Reward models are adapters that were trained on the same base, or whole models beside it.
    """

    lora: LoraConfig = LoraConfig()
    """The policy's adapter and the critic's, unless the chat model has one: then of its rank. Without dropout."""
    bits: Literal[4, 16, 32] | None = None
    """Of the base's weights; null: as the chat model's adapter was trained, else 32."""
    critic: Literal["adapter", "head"] = "adapter"
    """A critic with an adapter of its own, or a value head on the policy's trunk: half the work, and one trunk for two aims."""
    publish: Literal["adapter", "merged"] = "adapter"
    """What comes of it: the policy's adapter, or a whole model with the adapter merged in."""

    @model_validator(mode="after")
    def _no_dropout(self) -> "RolesConfig":
        if self.lora.dropout:
            raise ValueError(f"lora.dropout is {self.lora.dropout:g}; PPO updates the very policy that sampled, which dropout would change")
        return self
