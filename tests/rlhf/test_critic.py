from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from llamaherd.assistant.local import Assistant
from llamaherd.core.errors import UserError
from llamaherd.model.config import ModelConfig
from llamaherd.model.layout import Layout
from llamaherd.model.transformer import Scorer, new_model, scorer_from
from llamaherd.reward.model import RewardModel
from llamaherd.rlhf.critic import critic_from
from llamaherd.tokenizer.sentencepiece import Tokenizer

SHAPE = ModelConfig(dim=16, layers=1, heads=2, ffn=16, vocab_size=340, context=64)


def values(scorer: Scorer, ids: Sequence[int]) -> list[float]:
    with torch.no_grad():
        found: list[float] = scorer(torch.tensor([ids]), Layout.of([len(ids)], torch.device("cpu"))).tolist()
    return found


def reward(shape: ModelConfig, tokenizer: Tokenizer) -> RewardModel:
    scorer = scorer_from(new_model(shape, 5))
    torch.nn.init.normal_(scorer.score.weight)
    return RewardModel(scorer, tokenizer)


def test_begun_as_the_policy_every_value_is_zero(toy: Assistant) -> None:
    critic = critic_from(toy.model, toy.tokenizer)
    assert values(critic, [1, 3, 4]) == [0, 0, 0]
    assert critic.tok_embeddings.weight.equal(toy.model.tok_embeddings.weight)
    assert critic.tok_embeddings.weight.data_ptr() != toy.model.tok_embeddings.weight.data_ptr()


def test_begun_as_a_reward_model_it_says_what_that_says(tokenizer: Tokenizer) -> None:
    policy, judge = new_model(SHAPE, 1), reward(SHAPE, tokenizer)
    critic = critic_from(policy, tokenizer, judge)
    assert values(critic, [1, 3, 4]) == values(judge.scorer, [1, 3, 4])
    with torch.no_grad():
        critic.score.weight += 1
    assert values(critic, [1, 3, 4]) != values(judge.scorer, [1, 3, 4]), "a copy: the judge stays what it was"


def test_a_tied_policy_has_the_shape_of_its_reward_model(tokenizer: Tokenizer) -> None:
    tied = SHAPE.model_copy(update={"tied": True})
    critic_from(new_model(tied, 1), tokenizer, reward(SHAPE, tokenizer))


def test_a_reward_model_that_the_critic_cannot_be(tokenizer: Tokenizer, tmp_path: Path) -> None:
    policy = new_model(SHAPE, 1)
    wider = reward(SHAPE.model_copy(update={"dim": 32, "context": 128}), tokenizer)
    with pytest.raises(
        UserError, match=r"differ in shape \(dim 32 and 16, head_size 16 and 8, context 128 and 64\); give critic.start=policy"
    ):
        critic_from(policy, tokenizer, wider)
    other = reward(SHAPE, type("Other", (), {"hash": "other"})())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has another tokenizer than the policy, whose ids the critic reads; give critic.start=policy"):
        critic_from(policy, tokenizer, other)
