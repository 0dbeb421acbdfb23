"""PPO (paper.md section 6) as a batch source and a loss for the one training loop: sample, judge, then one step per mini-batch."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..assistant.local import Answer, Assistant
from ..core.errors import UserError
from ..core.metrics import MetricsLog
from ..core.seeds import python_rng, seed_for
from ..data.records import Prompt
from ..losses.language import picked
from ..losses.ppo import entropy, explained_variance, policy_loss, value_loss
from ..measures.intervals import mean
from ..model.roles import logits_and_values, on_one_trunk
from ..model.transformer import Scorer, Transformer
from ..reward.combine import Combination
from ..reward.model import RewardModel
from ..train.batches import TokenBatch, epochs, split
from ..train.loop import LossSum
from .config import PpoConfig
from .judging import combined_logits, logits_of, why_unjudged
from .looks import Look, best_of_looks, over_budget, why_stop
from .rollouts import Experience, Rollout, answer_nats, at_temperature, experience, whitened_together
from .sampler import rows_together, sampling_of
from .signal import Running, filled, with_lowest

Observe = Callable[[Sequence[Prompt], Sequence[str]], float]
"""A figure that is logged beside the reward and never trained on (the miniature's oracle)."""


@dataclass(frozen=True)
class PpoBatch:
    """Rollouts of one forward pass; `figures` are the iteration's, carried by its first batch into the log."""

    rollouts: Sequence[Rollout]
    figures: dict[str, float] = field(default_factory=dict)


class ActorCritic(nn.Module):
    """What PPO trains: the policy and a critic with weights of its own (`critic.py`)."""

    def __init__(self, policy: Transformer, critic: Scorer):
        super().__init__()
        self.policy, self.critic = policy, critic

    def is_critic(self, name: str) -> bool:
        """Whether the weight of this name is the critic's, which may have a learning rate of its own."""
        # On one base the adapters of all roles are found in the first trunk that is walked through, which is the policy's.
        return name.startswith("critic.") or ".changes.critic." in name


def ppo_loss(model: ActorCritic, batch: PpoBatch, config: PpoConfig) -> LossSum:
    """Clipped policy loss plus value_weight times the critic's less entropy_weight times the entropy, summed over answer tokens."""
    tokens = TokenBatch.of([rollout.document for rollout in batch.rollouts], model.policy.device)
    logits, values = logits_and_values(model.policy, model.critic, tokens.tokens, tokens.layout, tokens.wanted)
    of_all = at_temperature(logits, config.temperature).float().log_softmax(-1)  # what is learned from and the entropy share it
    log_probs = picked(of_all, tokens.targets[tokens.trained])
    rollouts = batch.rollouts
    old_log_probs = torch.cat([rollout.old_log_probs for rollout in rollouts])
    old_values = torch.cat([rollout.old_values for rollout in rollouts])
    # A positive weight goes through the minimum of the clipped loss: it may as well stand at the advantage.
    advantages = torch.cat([one.advantages if one.weights is None else one.advantages * one.weights for one in rollouts])
    returns = torch.cat([rollout.returns for rollout in rollouts])
    everywhere = torch.ones_like(log_probs)
    policy = policy_loss(log_probs, old_log_probs, advantages, everywhere, config.clip)
    critic = value_loss(values, old_values, returns, everywhere, config.value_clip)
    spread = entropy(of_all if config.entropy_weight else of_all.detach()).sum()
    count = len(log_probs)
    sums = {
        "ppo/policy_loss": (policy.total.item(), float(count)),
        "ppo/value_loss": (critic.item(), float(count)),
        "ppo/clip_fraction": (float(policy.clipped), float(count)),
        "ppo/update_kl": (float(policy.kl), float(count)),
        "ppo/entropy": (spread.item(), float(count)),
    }
    explained = float(explained_variance(values, returns, everywhere))
    if math.isfinite(explained):
        sums["ppo/explained_variance"] = (explained * count, float(count))
    sums |= {name: (value, 1.0) for name, value in batch.figures.items()}
    shape = model.policy.config
    trunks = (shape.vocab_size,) if on_one_trunk(model.policy, model.critic) else (shape.vocab_size, 1)
    flops = sum(shape.training_flops(tokens.size, tokens.mean_document, count, outputs) for outputs in trunks)
    flops *= 1.0 if model.policy.norm.weight.requires_grad else 2 / 3  # a frozen base needs no gradients of weights
    total = policy.total + config.value_weight * critic
    if config.entropy_weight:
        total = total - config.entropy_weight * spread
    return LossSum(total, count, tokens.size, flops, sums)


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
    guard: RewardModel | None = None
    """Judges the answers of every look and is never trained on."""
    samples: Path | None = None
    """Where some answers of each iteration are written."""
    looks: list[Look] = field(default_factory=list)
    """See `looks.py`."""
    stopped: str | None = None
    running: Running = field(default_factory=Running)
    """All rewards so far, where they are whitened by those."""
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds of the present iteration."""

    def __post_init__(self) -> None:
        longest = 0
        if self.config.sampler.memory_gib is not None:
            longest = max(len(self.assistant.prompt_ids(prompt.dialogue)) for prompt in (*self.prompts, *self.held_out))
        self._rows = rows_together(self.config, self.model.policy.config, longest, self.model.policy.dtype.itemsize)
        self._steps_left, self._tokens = 0, 0

    def batches(self, standing: Any) -> Iterator[tuple[list[PpoBatch], Any]]:
        """Mini-batches of all iterations; one can resume only where an iteration ends, since rollouts are not saved.

        Raises UserError, before the update, for rewards that are no numbers, and when sampler and trainer disagree.
        """
        standing = standing or {"iteration": 0, "prompts": None, "looks": [], "running": {}}
        self.looks, self.running = list(standing["looks"]), Running(**standing["running"])
        log = MetricsLog(self.samples, standing["iteration"]) if self.samples else None
        order = epochs(len(self.prompts), self.config.batch, self.seed, standing["prompts"])
        for iteration in range(standing["iteration"], self.config.iterations):
            self.phases, shown = {}, {}
            if iteration % self.config.check_every == 0:
                with self._timed("look"):
                    self.look(iteration)
                if self.stopped:
                    return
                self.phases, shown = {"look": self.phases["look"]}, self._shown()
            indices, position = next(order)
            done = self._experience([self.prompts[index] for index in indices], iteration, log)
            if done is None:
                return
            standing = {"iteration": iteration + 1, "prompts": position, "looks": list(self.looks), "running": self.running.to_json()}
            mini_batches = self._mini_batches(done.rollouts, iteration)
            self._steps_left, self._tokens = len(mini_batches), sum(len(rollout.returns) for rollout in done.rollouts)
            for number, rollouts in enumerate(mini_batches):
                parts = split(rollouts, self.config.micro_batch)
                figures = done.figures | shown | {"ppo/iteration": iteration + 1.0} if number == 0 else {}
                batch = [PpoBatch(part, figures if index == 0 else {}) for index, part in enumerate(parts)]
                yield batch, standing if number == len(mini_batches) - 1 else None

    def _mini_batches(self, rollouts: list[Rollout], iteration: int) -> list[Sequence[Rollout]]:
        """Those of all epochs; each rollout stands in one of each epoch."""
        found: list[Sequence[Rollout]] = []
        for epoch in range(self.config.epochs):
            order = list(rollouts)
            if epoch:
                python_rng(self.seed, "ppo-epoch", iteration, epoch).shuffle(order)
            found += split(order, self.config.mini_batch)
        return [whitened_together(part) for part in found] if self.config.signal.whiten_advantages == "mini-batch" else found

    def annotate(self, values: dict[str, float]) -> None:
        """Adds the seconds of all phases to the metrics of an iteration's last step."""
        self.phases["update"] = self.phases.get("update", 0.0) + values["seconds"]
        self._steps_left -= 1
        if self._steps_left == 0:
            seconds = sum(value for name, value in self.phases.items() if name != "look")
            values |= {f"ppo/seconds_{name}": value for name, value in self.phases.items()}
            values["ppo/tokens_per_s"] = self._tokens / seconds
            values["ppo/sampled_tokens_per_s"] = self._tokens / self.phases["sampling"]

    def look(self, iteration: int) -> None:
        """Answers the held-out prompts after `iteration` iterations; keeps the policy if none was better, stops if it is time to."""
        answers, logits = self._answers(self.held_out, "held-out")
        kl = mean(answer_nats(answers, self.model.policy, self.reference, self.config))
        # Unfinished answers count as in training: else a policy that finishes only its best answers would look better.
        judged = any(logit is not None for logit in logits)
        reward = float(filled(logits, self.config.signal).mean()) if judged else None
        look: Look = {"iteration": iteration, "reward": reward, "kl": kl}
        if self.guard is not None:
            own = logits_of(self.guard, self.held_out, answers, self.config.signal.unfinished == "score")
            look["guard"] = mean(with_lowest(own).tolist() if any(logit is not None for logit in own) else [])
        self.looks.append(look)
        if self.best is look:
            self.keep(iteration)
        self.stopped = why_stop(self.looks, self.config)

    @property
    def best(self) -> Look:
        """The look whose policy is published."""
        return best_of_looks(self.looks, self.config)

    def steps(self) -> int:
        """Gradient steps of all iterations, if nothing stops them."""
        return self.config.steps(len(self.prompts))

    def _shown(self) -> dict[str, float]:
        """The newest look's figures for the log."""
        look = self.looks[-1]
        values = {"reward": look["reward"], "kl": look["kl"]["value"], "guard": look.get("guard", {}).get("value")}
        return {f"ppo/held_out_{name}": float(value) for name, value in values.items() if value is not None}

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        """Adds the seconds of the block to a phase of the iteration, what a GPU has still to do included."""
        started = time.perf_counter()
        yield
        if self.model.policy.device.type == "cuda":
            torch.cuda.synchronize()
        self.phases[phase] = self.phases.get(phase, 0.0) + time.perf_counter() - started

    def _answers(self, prompts: Sequence[Prompt], *name: str | int) -> tuple[list[Answer], list[float | None]]:
        self.model.eval()
        seeds = [seed_for(self.seed, *name, index) for index in range(len(prompts))]
        with self._timed("sampling"):
            dialogues = [prompt.dialogue for prompt in prompts]
            answers = self.assistant.answers(dialogues, sampling_of(self.config), seeds, rows=self._rows)
        with self._timed("judging"):
            logits = combined_logits(self.rewards, prompts, answers, self.config.signal.unfinished == "score")
        return answers, logits

    def _experience(self, prompts: Sequence[Prompt], iteration: int, log: MetricsLog | None) -> Experience | None:
        """What the iteration trains on; None where `stopped` says why there is nothing to train on."""
        answers, logits = self._answers(prompts, "ppo", iteration)
        if all(logit is None for logit in logits):
            reasons = ", ".join(f"{count} {reason}" for reason, count in why_unjudged(answers, logits).most_common())
            self.stopped = (
                f"no answer of iteration {iteration + 1} can be judged ({reasons}), and without a reward there is nothing to learn"
            )
            return None
        with self._timed("log_probs"):
            found = experience(answers, logits, self.model.policy, self.reference, self.model.critic, self.config, self.running)
        self._demand_agreement(found.figures["ppo/sampling_gap_mean"], iteration)
        for domain, is_safety in (("safety", True), ("helpfulness", False)):
            own = [logit for prompt, logit in zip(prompts, logits, strict=True) if prompt.safety == is_safety and logit is not None]
            if own:
                found.figures[f"ppo/reward_{domain}"] = sum(own) / len(own)
        if self.observe is not None:
            found.figures["ppo/oracle"] = self.observe(prompts, [answer.text for answer in answers])
        if log is not None:
            for prompt, answer, logit, score in list(zip(prompts, answers, logits, found.scores, strict=True))[: self.config.samples]:
                log.write(iteration + 1, _sample(prompt, answer, logit, score))
        self.stopped = over_budget(found.figures[f"ppo/kl_{self.config.signal.kl_reported}"], iteration, self.config)
        return None if self.stopped else found

    def _demand_agreement(self, nats: float, iteration: int) -> None:
        if not nats <= self.config.sampling_gap_nats:
            raise UserError(
                f"PPO iteration {iteration + 1}: sampler and trainer differ by {nats:.3g} nats per token on average, over sampling_gap_nats "
                f"{self.config.sampling_gap_nats:g}: the answers came from another policy than the one that is updated, which ends in collapse; "
                "stopped before the update. Sample with the trained weights in the same precision, or raise the threshold knowingly"
            )


def _sample(prompt: Prompt, answer: Answer, logit: float | None, score: float) -> dict[str, Any]:
    """A row of the samples' log, which is ASCII: whatever could steer a terminal stands there escaped."""
    return {
        "messages": [{"role": message.role, "content": message.content} for message in prompt.dialogue.messages], "safety": prompt.safety,
        "answer": answer.text, "reward": logit, "score": score, "tokens": len(answer.completion.ids), "finished": answer.completion.finished,
    }  # fmt: skip
