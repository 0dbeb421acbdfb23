"""What PPO's critic begins as (the paper prints nothing of it)."""

from ..core.errors import UserError
from ..model.transformer import Scorer, Transformer, scorer_from
from ..reward.model import RewardModel
from ..tokenizer.sentencepiece import Tokenizer

SHAPE = ("dim", "layers", "heads", "kv", "head_size", "ffn_width", "vocab_size", "context", "rope_theta", "norm_eps")
"""What has to be equal; whether the vocabulary head is tied does not concern a scorer."""


def critic_from(policy: Transformer, tokenizer: Tokenizer, reward: RewardModel | None = None) -> Scorer:
    """A copy of the policy with a value head at zero, or of a reward model with its head.

    The critic reads the policy's ids. Raises UserError for a reward model with another tokenizer or shape.
    """
    if reward is None:
        return scorer_from(policy)
    mine, theirs = policy.config, reward.scorer.config
    if reward.tokenizer.hash != tokenizer.hash:
        raise UserError(
            "critic.start: the reward model has another tokenizer than the policy, whose ids the critic reads; give critic.start=policy"
        )
    names = [name for name in SHAPE if getattr(mine, name) != getattr(theirs, name)]
    if names:
        said = ", ".join(f"{name} {getattr(theirs, name)} and {getattr(mine, name)}" for name in names)
        raise UserError(f"critic.start: reward model and policy differ in shape ({said}); give critic.start=policy")
    critic = scorer_from(reward.scorer)
    critic.score.load_state_dict(reward.scorer.score.state_dict())
    return critic
