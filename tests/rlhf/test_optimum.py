"""Small problems whose optimum is known, through the code of the recipe: PPO and rejection sampling have to reach it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llamaherd.assistant.local import Assistant
from llamaherd.data.records import Prompt
from llamaherd.generate.config import SamplingConfig
from llamaherd.losses.kl import ESTIMATES
from llamaherd.model.transformer import Transformer, scorer_from
from llamaherd.rlhf.config import PpoConfig
from llamaherd.rlhf.ppo import ActorCritic, Ppo, ppo_loss
from llamaherd.rlhf.rejection import best_rows, pooled, sample_answers
from llamaherd.train.batches import Masked, TokenBatch, next_token_loss
from llamaherd.train.config import OptimizerConfig
from llamaherd.train.loop import train


def copy(model: Transformer) -> Transformer:
    other = Transformer(model.config)
    other.load_state_dict(model.state_dict())
    return other.eval()


def distribution(model: Transformer, prompt: Sequence[int], temperature: float = 1.0) -> Tensor:
    with torch.no_grad():
        return (model(torch.tensor([list(prompt)]))[0, -1] / temperature).softmax(-1)


class Letter:
    """The reward of one-letter answers: a -1 up to h 1; anything else is no letter, and -1."""

    def logits(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        return [float(REWARDS[4 + ord(answer) - ord("a")]) if answer.isalpha() else -1.0 for answer in answers]

    def fits(self, prompt: Prompt, answer: str) -> bool:
        return True


REWARDS = torch.cat([-torch.ones(4), torch.linspace(-1, 1, 8)])
"""Of each id as the only token of an answer. Ids 1 and 2 end an empty answer, which gets the lowest reward of its batch, -1."""


@pytest.mark.parametrize("temperature", [1.0, pytest.param(0.7, marks=pytest.mark.slow)])
def test_ppo_reaches_the_optimum_of_reward_less_kl(toy: Assistant, prompts: list[Prompt], tmp_path: Path, temperature: float) -> None:
    """Of all policies pi0 exp(R / beta) / Z is the best (rewards as they are, one token); at a temperature all of them are at that one."""
    settings = PpoConfig.model_validate({
        "iterations": 32, "batch": 512, "mini_batch": 256, "micro_batch": 512, "beta": 1.0, "lam": 1.0, "max_new_tokens": 1,
        "temperature": temperature, "kl_budget_nats": 1e9, "check_every": 999, "signal": {"unfinished": "score", "whiten_rewards": "none"},
    })  # fmt: skip
    ids = toy.prompt_ids(prompts[0].dialogue)
    start = distribution(toy.model, ids, temperature)
    optimum = start * (REWARDS / settings.beta).exp()
    optimum /= optimum.sum()
    model = ActorCritic(toy.model, scorer_from(toy.model))
    ppo = Ppo(model, copy(toy.model), toy, Letter(), prompts * 64, prompts[:2], settings, 7, lambda _: None)  # type: ignore[arg-type]
    train(
        model, lambda batch: ppo_loss(model, batch, settings), ppo.batches, total_steps=ppo.steps(),
        config=OptimizerConfig(lr=0.03, schedule="cosine", final_share=0.0, weight_decay=0.0, checkpoint_every_s=1e9), files=None,  # type: ignore[arg-type]
        state=tmp_path / "state", metrics=tmp_path / "metrics.jsonl", label="test",
    )  # fmt: skip
    found = distribution(toy.model, ids, temperature)
    assert float((start - optimum).abs().sum()) / 2 > 0.2, "the optimum is to be far from the start"
    assert float((found - optimum).abs().sum()) / 2 < 0.02, (found, optimum)

    def objective(policy: Tensor) -> float:
        return float((policy * (REWARDS - settings.beta * (policy / start).log())).sum())

    assert objective(found) > objective(optimum) - 0.02 * (objective(optimum) - objective(start))


def letters(row: Any, prompt: Sequence[int]) -> Masked:
    answer = [4 + ord(letter) - ord("a") for letter in row.answer if letter.isalpha()] + [2]
    return [*prompt, *answer], [0] * len(prompt) + [1] * len(answer)


def test_rejection_sampling_reaches_the_one_answer_that_pays(toy: Assistant, table: Any, prompts: list[Prompt], tmp_path: Path) -> None:
    """Three versions: K answers to each prompt, the pool's best of all versions, tuning on those."""
    rewards, sampling = table({"c": 1.0}, otherwise=0.0), SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=8)
    pool: list[Any] = []

    def share() -> float:
        answers = toy.answers([prompts[0].dialogue] * 200, sampling, list(range(200)))
        return sum(answer.text == "c" for answer in answers) / 200

    shares = [share()]
    for version in range(3):
        rows = sample_answers(toy, rewards, prompts, 0, 24, sampling, version)
        pool = pooled(pool, best_rows(rows, f"v{version}"), rewards).rows
        assert len(pool) == len(prompts)
        ids = toy.prompt_ids(prompts[0].dialogue)
        batch = TokenBatch.of([letters(row, ids) for row in pool], toy.model.device)

        def batches(_: Any, batch: TokenBatch = batch) -> Any:
            for _step in range(15):
                yield [batch], None

        train(
            toy.model, lambda one: next_token_loss(toy.model, one), batches, total_steps=15,
            config=OptimizerConfig(lr=0.01, schedule="constant", weight_decay=0.0, checkpoint_every_s=1e9), files=None,  # type: ignore[arg-type]
            state=tmp_path / f"state-{version}", metrics=tmp_path / f"{version}.jsonl", label="test",
        )  # fmt: skip
        shares.append(share())
    assert all(row.answer == "c" for row in pool)
    assert shares[0] < 0.1
    assert shares[-1] > 0.9, shares


def test_which_estimate_has_the_gradient_of_the_kl_in_the_reward() -> None:
    """Exactly, over all tokens: as a reward k1 has the gradient of KL(p || q), k3 that of KL(p || q) - KL(q || p), and k2 neither."""
    logits = torch.tensor([0.5, -0.2, 0.1, 0.9], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.1, 0.4, -0.3, 0.6], dtype=torch.float64).log_softmax(-1)

    def gradient(value: Tensor) -> Tensor:
        [found] = torch.autograd.grad(value, logits)
        return found

    def as_reward(name: str) -> Tensor:
        log_probs = logits.log_softmax(-1)
        estimate = ESTIMATES[name](log_probs, reference).detach()
        return gradient((log_probs.detach().exp() * estimate * log_probs).sum())

    log_probs = logits.log_softmax(-1)
    forward = gradient((log_probs.exp() * (log_probs - reference)).sum())
    log_probs = logits.log_softmax(-1)
    backward = gradient((reference.exp() * (reference - log_probs)).sum())
    assert torch.allclose(as_reward("k1"), forward)
    assert torch.allclose(as_reward("k3"), forward - backward)
    for name in ("k2", "k3"):
        assert as_reward(name).norm() < 0.5 * forward.norm()
