"""One PPO iteration's experience: sampled answers with rewards, and what policy, reference and critic say of their tokens.

B answers; A tokens of all of them end to end, the end-of-sequence included as the last action of a finished answer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..assistant.local import Answer
from ..losses.gae import gae
from ..losses.kl import k1, k3
from ..losses.language import token_log_probs
from ..losses.sums import whiten
from ..model.transformer import Scorer, Transformer
from ..train.batches import Masked, TokenBatch, split
from .config import PpoConfig


@dataclass(frozen=True)
class Rollout:
    """One answer as PPO sees it; all tensors have one number per token of the answer."""

    document: Masked
    """Prompt and answer ids; the mask is 1 on the answer."""
    old_log_probs: Tensor
    """Of the policy that sampled, before this iteration's updates."""
    old_values: Tensor
    """Of the critic, before this iteration's updates."""
    advantages: Tensor
    """GAE, whitened over all tokens of the iteration."""
    returns: Tensor
    """What the critic learns."""


def document_of(answer: Answer) -> Masked:
    """Prompt and answer with the mask that trains every action, the first token and the end-of-sequence included."""
    ids = answer.completion.ids
    return [*answer.prompt_ids, *ids], [0] * len(answer.prompt_ids) + [1] * len(ids)


@torch.inference_mode()
def answer_log_probs(model: Transformer, documents: Sequence[Masked], micro_batch: int) -> list[Tensor]:
    """Log-probability of each answer token, one tensor per document."""
    found: list[Tensor] = []
    for part in split(documents, micro_batch):
        batch = TokenBatch.of(part, model.device)
        hidden = model.hidden(batch.tokens, batch.layout, batch.wanted)[0]
        log_probs = token_log_probs(model.output(hidden), batch.targets[batch.trained])
        found += torch.split(log_probs, [sum(mask) for _, mask in part])
    return found


@torch.inference_mode()
def answer_values(critic: Scorer, documents: Sequence[Masked], micro_batch: int) -> list[Tensor]:
    """The critic's value before each answer token, one tensor per document."""
    found: list[Tensor] = []
    for part in split(documents, micro_batch):
        batch = TokenBatch.of(part, critic.device)
        values = critic(batch.tokens, batch.layout, batch.wanted)
        found += torch.split(values, [sum(mask) for _, mask in part])
    return found


def answer_nats(answers: Sequence[Answer], policy: Transformer, reference: Transformer, micro_batch: int) -> list[float]:
    """k3 of each answer as a whole: how far the policy that sampled it has moved from the reference."""
    documents = [document_of(answer) for answer in answers]
    pairs = zip(*(answer_log_probs(model, documents, micro_batch) for model in (policy, reference)), strict=True)
    return [float(k3(mine, theirs).sum()) for mine, theirs in pairs]


def with_lowest(logits: Sequence[float | None]) -> Tensor:
    """[B] combined logits, where None (unfinished, empty, tagged) gets the lowest of the others; zeros where all are None."""
    lowest = min((logit for logit in logits if logit is not None), default=0.0)
    return torch.tensor([lowest if logit is None else logit for logit in logits], dtype=torch.float32)


def whitened_rewards(logits: Sequence[float | None]) -> Tensor:
    """[B] rewards with mean 0 and variance 1 over the batch (section 6); all 0 where they are equal: then only the KL term acts."""
    return whiten(with_lowest(logits))


@dataclass(frozen=True)
class Experience:
    """All rollouts of an iteration and its figures for the log."""

    rollouts: list[Rollout]
    figures: dict[str, float]


def experience(
    answers: Sequence[Answer],
    logits: Sequence[float | None],
    policy: Transformer,
    reference: Transformer,
    critic: Scorer,
    config: PpoConfig,
) -> Experience:
    """Rewards per token - minus beta times k1 to the reference, and the whitened reward on the last - turned into advantages."""
    documents = [document_of(answer) for answer in answers]
    old = answer_log_probs(policy, documents, config.micro_batch)
    reference_log_probs = answer_log_probs(reference, documents, config.micro_batch)
    values = answer_values(critic, documents, config.micro_batch)
    scores = whitened_rewards(logits).to(policy.device)
    lengths = [len(row) for row in old]
    kl_rows = [k1(mine, theirs) for mine, theirs in zip(old, reference_log_probs, strict=True)]
    rewards = pad_sequence([-config.beta * row for row in kl_rows], batch_first=True)
    last = torch.tensor(lengths, device=rewards.device) - 1
    rewards[torch.arange(len(answers), device=rewards.device), last] += scores
    mask = torch.arange(rewards.shape[1], device=rewards.device)[None] <= last[:, None]
    advantages, returns = gae(rewards, pad_sequence(values, batch_first=True), mask, config.gamma, config.lam)
    advantages = whiten(advantages, mask)
    rollouts = [
        Rollout(documents[i], old[i].clone(), values[i].clone(), advantages[i, :n].clone(), returns[i, :n].clone())
        for i, n in enumerate(lengths)
    ]
    known = [logit for logit in logits if logit is not None]
    sampled = torch.tensor([value for answer in answers for value in answer.completion.log_probs])
    k3_rows = [k3(mine, theirs).sum() for mine, theirs in zip(old, reference_log_probs, strict=True)]
    figures = {
        "ppo/reward": sum(known) / len(known) if known else math.nan,
        "ppo/kl_k1": float(torch.stack([row.sum() for row in kl_rows]).mean()),
        "ppo/kl_k3": float(torch.stack(k3_rows).mean()),
        "ppo/answer_tokens": sum(lengths) / len(lengths),
        "ppo/unfinished": sum(not answer.completion.finished for answer in answers) / len(answers),
        "ppo/sampling_gap": float((torch.cat(old).cpu() - sampled).abs().max()),
    }
    return Experience(rollouts, figures)
