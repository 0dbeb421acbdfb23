"""PPO (paper.md section 6) as a batch source and a loss for the one training loop: sample, judge, then one step per mini-batch."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..assistant.local import Answer, Assistant
from ..core.seeds import seed_for
from ..data.records import Prompt
from ..generate.config import SamplingConfig
from ..losses.language import token_log_probs
from ..losses.ppo import entropy, explained_variance, policy_loss, value_loss
from ..measures.intervals import mean
from ..model.transformer import Scorer, Transformer
from ..reward.combine import Combination
from ..train.batches import TokenBatch, epochs, split
from ..train.loop import LossSum
from .config import PpoConfig
from .judging import combined_logits
from .rollouts import Experience, Rollout, answer_nats, experience, with_lowest

Observe = Callable[[Sequence[Prompt], Sequence[str]], float]
"""A figure that is logged beside the reward and never trained on (the miniature's oracle)."""


@dataclass(frozen=True)
class PpoBatch:
    """Rollouts of one forward pass; `figures` are the iteration's, carried by its first batch into the log."""

    rollouts: Sequence[Rollout]
    figures: dict[str, float] = field(default_factory=dict)


class ActorCritic(nn.Module):
    """What PPO trains: the policy and a critic with weights of its own, begun as the policy with a value head at zero."""

    def __init__(self, policy: Transformer, critic: Scorer):
        super().__init__()
        self.policy, self.critic = policy, critic


def ppo_loss(model: ActorCritic, batch: PpoBatch, config: PpoConfig) -> LossSum:
    """Clipped policy loss plus value_weight times the critic's, summed over answer tokens."""
    tokens = TokenBatch.of([rollout.document for rollout in batch.rollouts], model.policy.device)
    logits = model.policy.output(model.policy.hidden(tokens.tokens, tokens.layout, tokens.wanted)[0])
    log_probs = token_log_probs(logits, tokens.targets[tokens.trained])
    values = model.critic(tokens.tokens, tokens.layout, tokens.wanted)
    rollouts = batch.rollouts
    old_log_probs = torch.cat([rollout.old_log_probs for rollout in rollouts])
    old_values = torch.cat([rollout.old_values for rollout in rollouts])
    advantages = torch.cat([rollout.advantages for rollout in rollouts])
    returns = torch.cat([rollout.returns for rollout in rollouts])
    everywhere = torch.ones_like(log_probs)
    policy = policy_loss(log_probs, old_log_probs, advantages, everywhere, config.clip)
    critic = value_loss(values, old_values, returns, everywhere, config.value_clip)
    count = len(log_probs)
    sums = {
        "ppo/policy_loss": (policy.total.item(), float(count)),
        "ppo/value_loss": (critic.item(), float(count)),
        "ppo/clip_fraction": (float(policy.clipped), float(count)),
        "ppo/update_kl": (float(policy.kl), float(count)),
        "ppo/entropy": (entropy(logits.detach()).sum().item(), float(count)),
    }
    explained = float(explained_variance(values, returns, everywhere))
    if math.isfinite(explained):
        sums["ppo/explained_variance"] = (explained * count, float(count))
    sums |= {name: (value, 1.0) for name, value in batch.figures.items()}
    shape = model.policy.config
    flops = sum(shape.training_flops(tokens.size, tokens.mean_document, count, outputs) for outputs in (shape.vocab_size, 1))
    return LossSum(policy.total + config.value_weight * critic, count, tokens.size, flops, sums)


@dataclass
class Ppo:
    """The batch source. Its state between iterations: how many were done, the place in the prompts, the looks so far."""

    model: ActorCritic
    reference: Transformer
    assistant: Assistant
    """Answers with the policy's present weights."""
    rewards: Combination
    prompts: Sequence[Prompt]
    held_out: Sequence[Prompt]
    """Answered at every look."""
    config: PpoConfig
    seed: int
    keep: Callable[[int], None]
    """Called with the iteration when a look is the best one so far: its policy is what training ends with."""
    observe: Observe | None = None
    looks: list[dict[str, Any]] = field(default_factory=list)
    """`iteration`, mean `reward` (None without a usable answer) and `kl` to the starting policy, a figure in nats per answer."""
    stopped: str | None = None

    def batches(self, standing: Any) -> Iterator[tuple[list[PpoBatch], Any]]:
        """Mini-batches of all iterations; one can resume only where an iteration ends, since rollouts are not saved."""
        standing = standing or {"iteration": 0, "prompts": None, "looks": []}
        self.looks = list(standing["looks"])
        order = epochs(len(self.prompts), self.config.batch, self.seed, standing["prompts"])
        for iteration in range(standing["iteration"], self.config.iterations):
            if iteration % self.config.check_every == 0:
                self.look(iteration)
                if self.stopped:
                    return
            indices, position = next(order)
            done = self._experience([self.prompts[index] for index in indices], iteration)
            self._demand_budget(done.figures["ppo/kl_k3"], iteration)
            if self.stopped:
                return
            standing = {"iteration": iteration + 1, "prompts": position, "looks": list(self.looks)}
            mini_batches = split(done.rollouts, self.config.mini_batch)
            for number, rollouts in enumerate(mini_batches):
                parts = split(rollouts, self.config.micro_batch)
                figures = done.figures | {"ppo/iteration": iteration + 1.0} if number == 0 else {}
                batch = [PpoBatch(part, figures if index == 0 else {}) for index, part in enumerate(parts)]
                yield batch, standing if number == len(mini_batches) - 1 else None

    def look(self, iteration: int) -> None:
        """Answers the held-out prompts after `iteration` iterations; keeps the policy if none was better, stops if it is time to."""
        answers, logits = self._answers(self.held_out, "held-out")
        kl = mean(answer_nats(answers, self.model.policy, self.reference, self.config.micro_batch))
        # Unfinished answers count as in training: else a policy that finishes only its best answers would look better.
        reward = float(with_lowest(logits).mean()) if any(logit is not None for logit in logits) else None
        self.looks.append({"iteration": iteration, "reward": reward, "kl": kl})
        best = self.looks.index(self.best)
        if best == len(self.looks) - 1:
            self.keep(iteration)
        elif len(self.looks) - 1 - best >= self.config.patience:
            self.stopped = f"held-out reward has not risen for {self.config.patience} looks, at iteration {iteration}"
        self._demand_budget(kl["value"] or 0.0, iteration)

    @property
    def best(self) -> dict[str, Any]:
        """The first look of those with the highest reward within the KL budget; the very first one is the starting policy."""
        within = [look for look in self.looks[1:] if look["kl"]["value"] <= self.config.kl_budget_nats]
        return max([self.looks[0], *within], key=lambda look: -math.inf if look["reward"] is None else look["reward"])

    def _demand_budget(self, nats: float, iteration: int) -> None:
        if nats > self.config.kl_budget_nats:
            self.stopped = f"KL {nats:.1f} nats over the budget at iteration {iteration}"

    def steps(self) -> int:
        """Gradient steps of all iterations, if nothing stops them."""
        per_epoch = [min(self.config.batch, len(self.prompts) - start) for start in range(0, len(self.prompts), self.config.batch)]
        sizes = [per_epoch[index % len(per_epoch)] for index in range(self.config.iterations)]
        return sum(-(-size // self.config.mini_batch) for size in sizes)

    def _sampling(self) -> SamplingConfig:
        # The whole distribution is sampled: a nucleus would hide from the policy what it is updated on.
        return SamplingConfig(temperature=self.config.temperature, top_p=1.0, max_new_tokens=self.config.max_new_tokens)

    def _answers(self, prompts: Sequence[Prompt], *name: str | int) -> tuple[list[Answer], list[float | None]]:
        self.model.eval()
        seeds = [seed_for(self.seed, *name, index) for index in range(len(prompts))]
        answers = self.assistant.answers([prompt.dialogue for prompt in prompts], self._sampling(), seeds)
        return answers, combined_logits(self.rewards, prompts, answers)

    def _experience(self, prompts: Sequence[Prompt], iteration: int) -> Experience:
        answers, logits = self._answers(prompts, "ppo", iteration)
        found = experience(answers, logits, self.model.policy, self.reference, self.model.critic, self.config)
        for domain, is_safety in (("safety", True), ("helpfulness", False)):
            own = [logit for prompt, logit in zip(prompts, logits, strict=True) if prompt.safety == is_safety and logit is not None]
            if own:
                found.figures[f"ppo/reward_{domain}"] = sum(own) / len(own)
        if self.observe is not None:
            found.figures["ppo/oracle"] = self.observe(prompts, [answer.text for answer in answers])
        return found
