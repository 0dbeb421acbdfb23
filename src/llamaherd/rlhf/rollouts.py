"""One PPO iteration's experience: sampled answers with rewards, and what policy, reference and critic say of their tokens.

B answers; A tokens of all of them end to end, the end-of-sequence included as the last action of a finished answer.

The policy is the distribution that is sampled: at another temperature than 1 all log-probabilities - before and after an update, and the
reference's - are those at that temperature, so that the first update starts from ratios of 1. With a nucleus, a token was sampled with
its probability over the nucleus's mass; each token's term in the loss is weighted by that mass, the importance ratio of the policy to
what sampled. What the nucleus leaves out is never seen, which no weight mends.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..assistant.local import Answer
from ..generate.sampling import nucleus_mass
from ..losses.gae import gae
from ..losses.kl import ESTIMATES
from ..losses.language import token_log_probs
from ..losses.sums import whiten
from ..model.roles import logits_and_values, on_one_trunk
from ..model.transformer import Scorer, Transformer
from ..train.batches import Masked, TokenBatch, split
from .config import PpoConfig
from .signal import Running, scores_of, token_rewards


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
    """GAE, whitened over the declared scope."""
    returns: Tensor
    """What the critic learns."""
    weights: Tensor | None = None
    """The policy's probability over that of what sampled; None: 1, the whole distribution was sampled."""


def document_of(answer: Answer) -> Masked:
    """Prompt and answer with the mask that trains every action, the first token and the end-of-sequence included."""
    ids = answer.completion.ids
    return [*answer.prompt_ids, *ids], [0] * len(answer.prompt_ids) + [1] * len(ids)


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Logits of the distribution that is sampled."""
    return logits if temperature == 1 else logits / temperature


@torch.inference_mode()
def answer_log_probs(model: Transformer, documents: Sequence[Masked], micro_batch: int, temperature: float = 1.0) -> list[Tensor]:
    """Log-probability of each answer token, one tensor per document."""
    found: list[Tensor] = []
    for part in split(documents, micro_batch):
        batch = TokenBatch.of(part, model.device)
        hidden = model.hidden(batch.tokens, batch.layout, batch.wanted)[0]
        log_probs = token_log_probs(at_temperature(model.output(hidden), temperature), batch.targets[batch.trained])
        found += torch.split(log_probs, [sum(mask) for _, mask in part])
    return found


@torch.inference_mode()
def answer_masses(model: Transformer, documents: Sequence[Masked], config: PpoConfig) -> list[Tensor]:
    """Probability of the nucleus that each answer token was sampled from, one tensor per document."""
    found: list[Tensor] = []
    for part in split(documents, config.micro_batch):
        batch = TokenBatch.of(part, model.device)
        logits = model.output(model.hidden(batch.tokens, batch.layout, batch.wanted)[0])
        found += torch.split(nucleus_mass(logits, config.temperature, config.sampler.top_p), [sum(mask) for _, mask in part])
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


@torch.inference_mode()
def answer_log_probs_and_values(
    policy: Transformer, critic: Scorer, documents: Sequence[Masked], config: PpoConfig
) -> tuple[list[Tensor], list[Tensor]]:
    """Log-probabilities and values of each answer token, by one pass where the critic is a head on the policy's trunk."""
    if not on_one_trunk(policy, critic):
        own = answer_log_probs(policy, documents, config.micro_batch, config.temperature)
        return own, answer_values(critic, documents, config.micro_batch)
    log_probs: list[Tensor] = []
    values: list[Tensor] = []
    for part in split(documents, config.micro_batch):
        batch, lengths = TokenBatch.of(part, policy.device), [sum(mask) for _, mask in part]
        logits, valued = logits_and_values(policy, critic, batch.tokens, batch.layout, batch.wanted)
        log_probs += torch.split(token_log_probs(at_temperature(logits, config.temperature), batch.targets[batch.trained]), lengths)
        values += torch.split(valued, lengths)
    return log_probs, values


def answer_nats(answers: Sequence[Answer], policy: Transformer, reference: Transformer, config: PpoConfig) -> list[float]:
    """The reported estimate of the KL of each answer as a whole: how far the policy that sampled it has moved from the reference."""
    documents = [document_of(answer) for answer in answers]
    pairs = zip(*(answer_log_probs(model, documents, config.micro_batch, config.temperature) for model in (policy, reference)), strict=True)
    return [float(ESTIMATES[config.signal.kl_reported](mine, theirs).sum()) for mine, theirs in pairs]


@dataclass(frozen=True)
class Experience:
    """All rollouts of an iteration, its figures for the log, and the reward of each answer as a whole."""

    rollouts: list[Rollout]
    figures: dict[str, float]
    scores: list[float]


def experience(
    answers: Sequence[Answer],
    logits: Sequence[float | None],
    policy: Transformer,
    reference: Transformer,
    critic: Scorer,
    config: PpoConfig,
    running: Running | None = None,
) -> Experience:
    """Rewards per token - minus beta times the KL to the reference, and the whitened reward on the last - turned into advantages."""
    signal, documents = config.signal, [document_of(answer) for answer in answers]
    old, values = answer_log_probs_and_values(policy, critic, documents, config)
    reference_log_probs = answer_log_probs(reference, documents, config.micro_batch, config.temperature)
    scores = scores_of(logits, signal, running or Running()).to(policy.device)
    estimates = {
        name: [ESTIMATES[name](mine, theirs) for mine, theirs in zip(old, reference_log_probs, strict=True)]
        for name in sorted({"k1", "k3", signal.kl_in_reward, signal.kl_reported})
    }
    rows = token_rewards(scores, estimates[signal.kl_in_reward], config.beta)
    lengths = [len(row) for row in rows]
    rewards = pad_sequence(rows, batch_first=True)
    mask = torch.arange(rewards.shape[1], device=rewards.device)[None] < torch.tensor(lengths, device=rewards.device)[:, None]
    advantages, returns = gae(rewards, pad_sequence(values, batch_first=True), mask, config.gamma, config.lam)
    if signal.whiten_advantages == "batch":
        advantages = whiten(advantages, mask)
    masses = [mass.clone() for mass in answer_masses(policy, documents, config)] if config.sampler.top_p < 1 else [None] * len(lengths)
    rollouts = [
        Rollout(documents[i], old[i].clone(), values[i].clone(), advantages[i, :n].clone(), returns[i, :n].clone(), masses[i])
        for i, n in enumerate(lengths)
    ]
    # The engine tells of temperature 1, whatever it samples at.
    own = old if config.temperature == 1 else answer_log_probs(policy, documents, config.micro_batch)
    figures = _figures(answers, logits, own)
    figures |= {f"ppo/kl_{name}": float(torch.stack([row.sum() for row in found]).mean()) for name, found in estimates.items()}
    return Experience(rollouts, figures, scores.tolist())


def _figures(answers: Sequence[Answer], logits: Sequence[float | None], own: Sequence[Tensor]) -> dict[str, float]:
    """What can be said of an iteration's answers. `own`: log-probabilities at temperature 1."""
    known = [logit for logit in logits if logit is not None]
    sampled = torch.tensor([value for answer in answers for value in answer.completion.log_probs])
    gap = (torch.cat(list(own)).cpu() - sampled).abs()
    return {
        "ppo/reward": sum(known) / len(known) if known else math.nan,
        "ppo/answer_tokens": sum(len(row) for row in own) / len(own),
        "ppo/unfinished": sum(not answer.completion.finished for answer in answers) / len(answers),
        "ppo/unjudged": sum(logit is None for logit in logits) / len(logits),
        "ppo/sampling_gap": float(gap.max()),
        "ppo/sampling_gap_mean": float(gap.mean()),
    }


def whitened_together(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts with advantages whitened over all their tokens."""
    lengths = [len(rollout.advantages) for rollout in rollouts]
    parts = torch.split(whiten(torch.cat([rollout.advantages for rollout in rollouts])), lengths)
    return [replace(rollout, advantages=part) for rollout, part in zip(rollouts, parts, strict=True)]
