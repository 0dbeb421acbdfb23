import math
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llamaherd.assistant.local import Answer, Assistant
from llamaherd.core.config import ConfigError, build
from llamaherd.core.metrics import read_metrics
from llamaherd.core.seeds import seed_for
from llamaherd.data.records import Prompt
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import generate
from llamaherd.losses.language import token_log_probs
from llamaherd.model.transformer import Transformer, scorer_from
from llamaherd.rlhf.config import PpoConfig
from llamaherd.rlhf.ppo import ActorCritic, Ppo, PpoBatch, ppo_loss
from llamaherd.rlhf.rollouts import experience
from llamaherd.train.batches import TokenBatch, split
from llamaherd.train.config import OptimizerConfig
from llamaherd.train.loop import Trained, train


class Length:
    """Longer answers are better: every answer has its own reward."""

    def logits(self, prompts: list[Prompt], answers: list[str]) -> list[float]:
        return [float(len(answer)) for answer in answers]

    def fits(self, prompt: Prompt, answer: str) -> bool:
        return True


def config(**values: Any) -> PpoConfig:
    given = {"iterations": 4, "batch": 8, "mini_batch": 4, "micro_batch": 4, "beta": 0.1, "max_new_tokens": 16}
    return PpoConfig.model_validate(given | values)


def copy(model: Transformer) -> Transformer:
    other = Transformer(model.config)
    other.load_state_dict(model.state_dict())
    return other.eval()


def source(
    toy: Assistant, rewards: Any, prompts: list[Prompt], settings: PpoConfig, held_out: list[Prompt] | None = None, observe: Any = None
) -> Ppo:
    model = ActorCritic(toy.model, scorer_from(toy.model))
    return Ppo(model, copy(toy.model), toy, rewards, prompts, held_out or prompts[:2], settings, 7, lambda _: None, observe)


def run(ppo: Ppo, folder: Path, no_files: Any, **optimizer: Any) -> Trained:
    values = {"lr": 0.02, "schedule": "constant", "weight_decay": 0.0, "checkpoint_every_s": 1e9} | optimizer
    return train(
        ppo.model, lambda batch: ppo_loss(ppo.model, batch, ppo.config), ppo.batches, total_steps=ppo.steps(),
        config=OptimizerConfig.model_validate(values), files=no_files, state=folder / "state", metrics=folder / "metrics.jsonl", label="test",
    )  # fmt: skip


def gradients(model: torch.nn.Module, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def first_iteration(ppo: Ppo) -> list[PpoBatch]:
    """All micro-batches before the first step."""
    return [part for parts, _ in islice(ppo.batches(None), ppo.steps() // ppo.config.iterations) for part in parts]


def test_before_the_first_step_ppo_is_reinforce(toy: Assistant, prompts: list[Prompt]) -> None:
    ppo = source(toy, Length(), prompts, config(mini_batch=8, micro_batch=8, value_weight=0.0))
    [batch] = first_iteration(ppo)
    found = ppo_loss(ppo.model, batch, ppo.config)
    assert found.sums["ppo/clip_fraction"][0] == 0
    assert found.sums["ppo/update_kl"][0] == pytest.approx(0, abs=1e-6)
    tokens = TokenBatch.of([rollout.document for rollout in batch.rollouts], toy.model.device)
    assert found.count == int(tokens.trained.sum()) == sum(sum(rollout.document[1]) for rollout in batch.rollouts)
    log_probs = token_log_probs(
        toy.model.output(toy.model.hidden(tokens.tokens, tokens.layout)[0][tokens.trained]), tokens.targets[tokens.trained]
    )
    advantages = torch.cat([rollout.advantages for rollout in batch.rollouts])
    assert advantages.std() > 0.5
    expected = gradients(toy.model, -(advantages * log_probs).sum())
    assert torch.allclose(gradients(toy.model, found.total), expected, atol=1e-5 * expected.abs().max().item())


def test_how_a_batch_is_cut_does_not_matter(toy: Assistant, prompts: list[Prompt]) -> None:
    ppo = source(toy, Length(), prompts, config(mini_batch=8, micro_batch=8))
    [batch] = first_iteration(ppo)
    with torch.no_grad():
        toy.model.output.weight += 0.05  # away from the policy that sampled
        toy.model.output.weight[5] += 0.3
        ppo.model.critic.score.weight += 0.1
    whole = ppo_loss(ppo.model, batch, ppo.config)
    assert whole.sums["ppo/update_kl"][0] > 0.01
    expected = gradients(ppo.model, whole.total)
    for size in (1, 3):
        parts = [ppo_loss(ppo.model, PpoBatch(part), ppo.config) for part in split(batch.rollouts, size)]
        assert sum(part.count for part in parts) == whole.count
        total = torch.stack([part.total for part in parts]).sum()
        assert total.item() == pytest.approx(whole.total.item(), rel=1e-5)
        assert torch.allclose(gradients(ppo.model, total), expected, atol=1e-5 * expected.abs().max().item())


def test_an_answer_teaches_the_same_beside_any_other(toy: Assistant, prompts: list[Prompt]) -> None:
    """Nothing of a rollout depends on how policy, reference and critic were fed."""
    ones, eights = (first_iteration(source(toy, Length(), prompts, config(mini_batch=8, micro_batch=size))) for size in (1, 8))
    for one, other in zip([rollout for batch in ones for rollout in batch.rollouts], eights[0].rollouts, strict=True):
        assert one.document == other.document
        for name in ("old_log_probs", "old_values", "advantages", "returns"):
            assert torch.allclose(getattr(one, name), getattr(other, name), atol=1e-4)


def test_finds_the_one_answer_that_pays(toy: Assistant, table: Any, no_files: Any, prompts: list[Prompt], tmp_path: Path) -> None:
    settings = config(iterations=25, batch=64, mini_batch=32, micro_batch=64, beta=0.005, kl_budget_nats=1e9)
    ppo = source(toy, table({"c": 1.0}), prompts * 8, settings)
    sampling = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=8)

    def share() -> float:
        answers = toy.answers([prompts[0].dialogue] * 200, sampling, list(range(200)))
        return sum(answer.text == "c" for answer in answers) / 200

    before = share()
    run(ppo, tmp_path, no_files)
    assert before < 0.1
    assert share() > 0.9
    rewards = [row["ppo/reward"] for row in read_metrics(tmp_path / "metrics.jsonl") if "ppo/reward" in row]
    assert len(rewards) == 25
    assert rewards[-1] > 0.9 > 0.2 > rewards[0]


@pytest.mark.slow
def test_reaches_the_optimum_of_reward_less_kl(toy: Assistant, no_files: Any, tmp_path: Path) -> None:
    """One-token answers: the best policy is pi0 * exp(R / beta) / Z, R the whitened reward, whose scale is its own spread."""
    rewards = torch.linspace(-1, 1, toy.model.config.vocab_size)
    settings = config(batch=512, mini_batch=256, micro_batch=512, beta=1.7, lam=1.0)
    policy, reference, prompt = toy.model, copy(toy.model), [1, 3, 3]
    model = ActorCritic(policy, scorer_from(policy))

    def distribution(of: Transformer) -> Tensor:
        with torch.no_grad():
            return of(torch.tensor([prompt]))[0, -1].softmax(-1)

    start = distribution(reference)
    optimum, scale = start, 1.0
    for _ in range(200):
        optimum = start * (rewards / (settings.beta * scale)).exp()
        optimum /= optimum.sum()
        mean = (optimum * rewards).sum()
        scale = 0.5 * scale + 0.5 * float((optimum * (rewards - mean).square()).sum().sqrt())

    def batches(_: Any) -> Iterator[tuple[list[PpoBatch], None]]:
        sampling = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=1)
        for iteration in range(60):
            done = generate(
                policy, [prompt] * settings.batch, sampling, [seed_for(iteration, index) for index in range(settings.batch)], [2], 512
            )
            answers = [Answer("", prompt, completion) for completion in done]
            logits = [float(rewards[completion.ids[0]]) for completion in done]
            found = experience(answers, logits, policy, reference, model.critic, settings)
            assert found.figures["ppo/sampling_gap"] < 1e-4
            for part in split(found.rollouts, settings.mini_batch):
                yield [PpoBatch(part)], None

    assert (start - optimum).abs().sum() > 0.4, "the optimum is to be far from the start"
    train(
        model, lambda batch: ppo_loss(model, batch, settings), batches, total_steps=120,
        config=OptimizerConfig(lr=0.02, schedule="cosine", final_share=0.0, weight_decay=0.0, checkpoint_every_s=1e9), files=no_files,
        state=tmp_path / "state", metrics=tmp_path / "metrics.jsonl", label="test",
    )  # fmt: skip
    found = distribution(policy)
    assert float((found - optimum).abs().sum()) / 2 < 0.02, (found, optimum)


def test_the_kl_budget_stops(toy: Assistant, table: Any, no_files: Any, prompts: list[Prompt], tmp_path: Path) -> None:
    ppo = source(toy, table({"c": 1.0, "d": -1.0}, 0.2), prompts, config(iterations=50, kl_budget_nats=0.5))
    done = run(ppo, tmp_path, no_files, lr=0.05)
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "ppo/kl_k3" in row]
    assert ppo.stopped is not None
    assert ppo.stopped.endswith(f"over the budget at iteration {len(rows)}")
    assert done.steps == 2 * len(rows) < ppo.steps()
    assert max(row["ppo/kl_k3"] for row in rows) <= 0.5


class Falling:
    """Every judgement is lower than the one before, or there is none."""

    def __init__(self, usable: bool = True):
        self.calls, self.usable = 0, usable

    def logits(self, prompts: list[Prompt], answers: list[str]) -> list[float]:
        self.calls += 1
        return [-float(self.calls)] * len(answers)

    def fits(self, prompt: Prompt, answer: str) -> bool:
        return self.usable


def test_held_out_prompts_stop(toy: Assistant, no_files: Any, prompts: list[Prompt], tmp_path: Path) -> None:
    """Looks at iterations 0, 2, 4: the first one is the mark, and two more do not raise it."""
    ppo = source(toy, Falling(), prompts, config(iterations=50, check_every=2, patience=2), held_out=prompts[:2])
    ppo.keep = (kept := list[int]()).append
    done = run(ppo, tmp_path, no_files, lr=1e-4)
    assert ppo.stopped == "held-out reward has not risen for 2 looks, at iteration 4"
    assert done.steps == 8
    assert (kept, ppo.best["iteration"]) == ([0], 0)
    assert [look["iteration"] for look in ppo.looks] == [0, 2, 4]
    assert ppo.rewards.calls == 3 + 4, "three looks and four iterations: nothing is sampled after the look that stops"


def test_without_a_judged_answer_it_stops(toy: Assistant, no_files: Any, prompts: list[Prompt], tmp_path: Path) -> None:
    ppo = source(toy, Falling(usable=False), prompts, config(iterations=50))
    assert run(ppo, tmp_path, no_files).steps == 0
    assert ppo.stopped is not None
    assert re.fullmatch(r"no answer of iteration 1 can be judged \(\d+ beyond a reward model's context.*\), and without .*", ppo.stopped)
    assert ppo.looks[0]["reward"] is None


def test_unfinished_held_out_answers_count(
    toy: Assistant, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Answer]
) -> None:
    """Finishing only the best answer is no rise."""
    ppo = source(toy, Falling(), prompts, config(patience=1, check_every=1), held_out=prompts[:3])
    answers = [answer("a"), answer("b"), answer("c")]
    monkeypatch.setattr(ppo, "_answers", lambda *_: (answers, [3.0, 1.0, 2.0]))
    ppo.look(0)
    assert ppo.stopped is None
    monkeypatch.setattr(ppo, "_answers", lambda *_: (answers, [2.5, 0.0, None]))
    ppo.look(1)
    assert ppo.stopped == "held-out reward has not risen for 1 looks, at iteration 1"
    assert [look["reward"] for look in ppo.looks] == [2.0, pytest.approx(2.5 / 3)]


def look_at(iteration: int, reward: float | None, nats: float) -> dict[str, Any]:
    return {"iteration": iteration, "reward": reward, "kl": {"value": nats, "low": nats, "high": nats, "n": 9}}


def test_the_best_look_is_the_highest_reward_within_the_budget(toy: Assistant, prompts: list[Prompt]) -> None:
    ppo = source(toy, Falling(), prompts, config(kl_budget_nats=2.0))
    for looks, best in (
        ([look_at(0, 1.0, 0), look_at(4, 2.0, 1.0), look_at(8, 3.0, 1.9), look_at(12, 9.0, 2.1)], 8),
        ([look_at(0, 1.0, 0), look_at(4, 1.0, 1.0)], 0),
        ([look_at(0, None, 0), look_at(4, -5.0, 1.0), look_at(8, None, 1.0)], 4),
        ([look_at(0, 1.0, 0), look_at(4, 2.0, 7.0)], 0),
    ):
        ppo.looks = looks
        assert ppo.best["iteration"] == best


def test_a_look_over_the_budget_stops_and_is_not_kept(
    toy: Assistant, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Answer]
) -> None:
    ppo = source(toy, Falling(), prompts, config(kl_budget_nats=0.5), held_out=prompts[:1])
    ppo.keep = (kept := list[int]()).append
    answers = [answer("a")]
    monkeypatch.setattr(ppo, "_answers", lambda *_: (answers, [float(len(ppo.looks))]))
    ppo.look(0)
    with torch.no_grad():
        toy.model.output.weight.mul_(-3.0)
    ppo.look(4)
    assert kept == [0]
    assert ppo.stopped is not None
    assert re.fullmatch(r"KL \d+\.\d nats over the budget at iteration 4", ppo.stopped)


def test_unusable_answers_are_not_judged(
    toy: Assistant, table: Any, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Answer]
) -> None:
    answers = [answer("a"), answer("ab", finished=False), answer(""), answer("x [INST]"), answer("b")]
    monkeypatch.setattr(toy, "answers", lambda *_, **__: answers)
    ppo = source(toy, table({"a": 1.0, "b": 2.0}, 9.0), prompts, config())
    assert ppo._answers(prompts[:5], "test") == (answers, [1.0, None, None, None, 2.0])


def test_a_run_can_stop_where_an_iteration_ends_only(toy: Assistant, table: Any, prompts: list[Prompt]) -> None:
    ppo = source(toy, table({}), prompts[:7], config(iterations=3, batch=4, mini_batch=2, micro_batch=1))
    found = list(ppo.batches(None))
    # Epochs of seven prompts: batches of four and three, hence two mini-batches each.
    assert len(found) == ppo.steps() == 6
    positions = [position for _, position in found]
    assert [position is None for position in positions] == [True, False] * 3
    assert [position["iteration"] for position in positions if position] == [1, 2, 3]
    assert [sum(len(part.rollouts) for part in parts) for parts, _ in found] == [2, 2, 2, 1, 2, 2]
    assert all(len(part.rollouts) == 1 for parts, _ in found for part in parts)
    figures = [[bool(part.figures) for part in parts] for parts, _ in found]
    assert figures == [[True, False], [False, False], [True, False], [False], [True, False], [False, False]]
    again = list(ppo.batches(positions[1]))
    documents = [[part.rollouts[0].document for part in parts] for parts, _ in found]
    assert [[part.rollouts[0].document for part in parts] for parts, _ in again] == documents[2:]


def test_what_is_logged(toy: Assistant, table: Any, no_files: Any, prompts: list[Prompt], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def observe(asked: list[Prompt], texts: list[str]) -> float:
        seen.append((len(asked), len(texts)))
        return 0.25

    ppo = source(toy, table({"a": 1.0}), prompts, config(iterations=2), observe=observe)
    run(ppo, tmp_path, no_files)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row.get("ppo/oracle") for row in rows] == [0.25, None, 0.25, None]
    assert seen == [(8, 8)] * 2
    assert [row["ppo/iteration"] for row in rows[::2]] == [1, 2]
    assert rows[0]["ppo/kl_k3"] == pytest.approx(0, abs=1e-6)
    assert rows[0]["ppo/sampling_gap"] < 1e-4
    assert {"ppo/reward_safety", "ppo/reward_helpfulness", "ppo/unfinished", "ppo/answer_tokens"} <= rows[0].keys()
    assert 0 < rows[0]["ppo/entropy"] <= math.log(12) + 1e-6


def test_a_batch_is_whole_mini_batches() -> None:
    with pytest.raises(ConfigError, match="batch 10 is not a multiple of mini_batch 4"):
        build(PpoConfig, {"batch": 10, "mini_batch": 4})
