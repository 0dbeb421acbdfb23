"""What the settings of PPO change, through its own source and loss."""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from llamaherd.assistant.local import Answer, Assistant
from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.core.errors import UserError
from llamaherd.core.metrics import read_metrics
from llamaherd.data.records import Prompt
from llamaherd.losses.language import token_log_probs
from llamaherd.model.transformer import Transformer, scorer_from
from llamaherd.rlhf.config import PpoConfig
from llamaherd.rlhf.ppo import ActorCritic, Ppo, PpoBatch, ppo_loss
from llamaherd.rlhf.rollouts import Rollout
from llamaherd.train.batches import TokenBatch
from llamaherd.train.config import OptimizerConfig
from llamaherd.train.loop import train

NEVER = 1e9


class Length:
    """Longer answers are better."""

    def __init__(self, sign: float = 1.0):
        self.sign = sign

    def logits(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        return [self.sign * len(answer) for answer in answers]

    def fits(self, prompt: Prompt, answer: str) -> bool:
        return True


class Judge:
    """A guard on the same scale: it likes what `Length` likes, or the contrary."""

    def __init__(self, sign: float):
        self.sign = sign

    def logits(self, dialogues: Sequence[Dialogue]) -> list[float]:
        return [self.sign * len(dialogue.last.content) for dialogue in dialogues]

    def fits(self, dialogue: Dialogue) -> bool:
        return True


def config(**values: Any) -> PpoConfig:
    given = {"iterations": 2, "batch": 8, "mini_batch": 4, "micro_batch": 4, "max_new_tokens": 16, "kl_budget_nats": NEVER, "patience": 99}
    return PpoConfig.model_validate(given | values)


def source(toy: Assistant, settings: PpoConfig, prompts: Sequence[Prompt], rewards: Any = None, **values: Any) -> Ppo:
    reference = Transformer(toy.model.config)
    reference.load_state_dict(toy.model.state_dict())
    model = ActorCritic(toy.model, scorer_from(toy.model))
    return Ppo(model, reference.eval(), toy, rewards or Length(), prompts, prompts[:4], settings, 7, lambda _: None, **values)


def run(ppo: Ppo, folder: Path, **values: Any) -> list[dict[str, Any]]:
    train(
        ppo.model, lambda batch: ppo_loss(ppo.model, batch, ppo.config), ppo.batches, total_steps=ppo.steps(),
        config=OptimizerConfig(lr=values.pop("lr", 0.01), schedule="constant", weight_decay=0.0, checkpoint_every_s=NEVER), files=None,  # type: ignore[arg-type]
        state=folder / "state", metrics=folder / "metrics.jsonl", label="test", annotate=ppo.annotate, **values,
    )  # fmt: skip
    return read_metrics(folder / "metrics.jsonl")


def many(count: int) -> list[Prompt]:
    return [Prompt(checked([Message("user", f"Say {number}")]), safety=number % 2 == 1) for number in range(count)]


def documents(parts: Sequence[PpoBatch]) -> list[tuple[int, ...]]:
    return [tuple(rollout.document[0]) for part in parts for rollout in part.rollouts]


def test_the_papers_update_is_eight_steps_in_which_each_answer_stands_once(toy: Assistant, tmp_path: Path) -> None:
    settings = PpoConfig(iterations=1, max_new_tokens=6)
    assert (settings.batch, settings.mini_batch, settings.epochs, settings.clip, settings.beta) == (512, 64, 1, 0.2, 0.01)
    ppo = source(toy, settings, many(512))
    seen: list[list[int]] = []

    def batches(standing: Any) -> Any:
        for parts, position in Ppo.batches(ppo, standing):
            seen.append([id(rollout.returns) for part in parts for rollout in part.rollouts])
            yield parts, position

    ppo.batches = batches  # type: ignore[method-assign]
    rows = run(ppo, tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [len(step) for step in seen] == [64] * 8
    assert len({rollout for step in seen for rollout in step}) == 512


def test_epochs_use_each_answer_so_many_times_in_another_order(toy: Assistant, prompts: list[Prompt], tmp_path: Path) -> None:
    ppo = source(toy, config(iterations=1, epochs=3), prompts)
    steps = [documents(parts) for parts, _ in ppo.batches(None)]
    assert len(steps) == ppo.steps() == 6
    first, second, third = (steps[start] + steps[start + 1] for start in (0, 2, 4))
    assert Counter(first) == Counter(second) == Counter(third)
    assert first != second != third
    assert [position is None for _, position in ppo.batches(None)] == [True] * 5 + [False]
    assert len(run(source(toy, config(epochs=2), prompts), tmp_path)) == 8


def distributions(toy: Assistant, rollout: Rollout, temperature: float) -> torch.Tensor:
    ids, mask = rollout.document
    with torch.no_grad():
        logits = toy.model(torch.tensor([ids[:-1]]))[0][[place - 1 for place, flag in enumerate(mask) if flag]]
    return (logits / temperature).log_softmax(-1)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 1.0), (1.3, 1.0), (1.0, 0.8), (0.7, 0.8)])
def test_ratios_start_at_one_at_any_temperature_and_nucleus(
    toy: Assistant, prompts: list[Prompt], temperature: float, top_p: float
) -> None:
    settings = config(iterations=1, temperature=temperature, sampler={"top_p": top_p}, mini_batch=8, micro_batch=8)
    ppo = source(toy, settings, prompts)
    [([batch], _)] = ppo.batches(None)
    found = ppo_loss(ppo.model, batch, settings)
    assert found.sums["ppo/clip_fraction"][0] == 0
    assert found.sums["ppo/update_kl"][0] == pytest.approx(0, abs=1e-5)
    assert batch.figures["ppo/sampling_gap"] < 1e-4, "of temperature 1 on both sides"
    assert batch.figures["ppo/kl_k1"] == pytest.approx(0, abs=1e-5)
    for rollout in batch.rollouts:
        log_probs = distributions(toy, rollout, temperature)
        actions = rollout.document[0][-len(log_probs) :]
        assert rollout.old_log_probs.tolist() == pytest.approx([float(log_probs[t, id]) for t, id in enumerate(actions)], abs=1e-5)
        assert (rollout.weights is None) == (top_p == 1)
        if rollout.weights is not None:
            ordered = log_probs.exp().sort(dim=-1, descending=True).values
            inside = ordered.cumsum(-1) - ordered <= top_p
            assert rollout.weights.tolist() == pytest.approx((ordered * inside).sum(-1).tolist(), abs=1e-5)


def test_the_gradient_is_that_of_the_policy_that_sampled(toy: Assistant) -> None:
    """Over all tokens that a nucleus can give, each as often as it gives it: the gradient of the sum of p(a) A(a), p the tempered policy."""
    temperature, prompt, advantages = 0.7, [1, 3, 3], torch.linspace(-1, 1, 12)
    settings = config(temperature=temperature, sampler={"top_p": 0.8})
    model = ActorCritic(toy.model, scorer_from(toy.model))
    logits = toy.model(torch.tensor([prompt]))[0, -1] / temperature
    probabilities = logits.softmax(-1)
    ordered, ids = probabilities.detach().sort(descending=True)
    nucleus = [int(id) for id, before in zip(ids, ordered.cumsum(0) - ordered, strict=True) if before <= 0.8]
    assert 1 < len(nucleus) < 12
    mass = probabilities.detach()[nucleus].sum()
    rollouts = [
        Rollout(
            ([*prompt, id], [0, 0, 0, 1]), probabilities.detach()[[id]].log(), torch.zeros(1),
            advantages[[id]] * probabilities.detach()[id] / mass, torch.zeros(1), mass[None],
        )
        for id in nucleus
    ]  # fmt: skip
    ppo_loss(model, PpoBatch(rollouts), settings).total.backward()  # type: ignore[no-untyped-call]
    found = torch.cat([weight.grad.flatten() for weight in toy.model.parameters() if weight.grad is not None])
    toy.model.zero_grad()
    (-(probabilities[nucleus] * advantages[nucleus]).sum()).backward()  # type: ignore[no-untyped-call]
    expected = torch.cat([weight.grad.flatten() for weight in toy.model.parameters() if weight.grad is not None])
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_the_entropy_bonus_is_the_gradient_of_the_entropy(toy: Assistant, prompts: list[Prompt]) -> None:
    ppo = source(toy, config(iterations=1, mini_batch=8, micro_batch=8), prompts)
    [([batch], _)] = ppo.batches(None)
    tokens = TokenBatch.of([rollout.document for rollout in batch.rollouts], toy.model.device)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        ppo.model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        return torch.cat([weight.grad.flatten() for weight in toy.model.parameters() if weight.grad is not None])

    plain, with_bonus = (ppo_loss(ppo.model, batch, config(entropy_weight=weight)) for weight in (0.0, 0.3))
    probabilities = toy.model(tokens.tokens, tokens.layout)[0][tokens.trained].softmax(-1)
    entropy = -(probabilities * probabilities.log()).sum()
    assert with_bonus.total.item() == pytest.approx(plain.total.item() - 0.3 * entropy.item(), rel=1e-4)
    difference = gradient(with_bonus.total) - gradient(ppo_loss(ppo.model, batch, config()).total)
    expected = gradient(-0.3 * entropy)
    assert torch.allclose(difference, expected, atol=1e-4 * float(expected.abs().max()))
    assert plain.sums["ppo/entropy"] == pytest.approx(with_bonus.sums["ppo/entropy"])


def test_advantages_are_whitened_over_the_declared_scope(toy: Assistant, prompts: list[Prompt]) -> None:
    def moments(scope: str) -> list[tuple[float, float]]:
        steps = source(toy, config(iterations=1, signal={"whiten_advantages": scope}), prompts).batches(None)
        joined = [torch.cat([one.advantages for part in parts for one in part.rollouts]) for parts, _ in steps]
        return [(float(values.mean()), float(values.std(correction=0))) for values in (*joined, torch.cat(joined))]

    (*_, whole), (*each, _), (*_, raw) = moments("batch"), moments("mini-batch"), moments("none")
    assert whole == pytest.approx((0, 1), abs=1e-3)
    assert each == [pytest.approx((0, 1), abs=1e-3)] * 2
    assert raw[1] == pytest.approx(1, abs=0.6)
    assert raw != pytest.approx((0, 1), abs=1e-3)


def test_the_estimate_in_the_reward_and_the_one_reported(toy: Assistant, prompts: list[Prompt]) -> None:
    for name in ("k1", "k2", "k3"):
        ppo = source(toy, config(iterations=1, beta=0.5, lam=1.0, signal={"kl_in_reward": name, "kl_reported": "k2"}), prompts)
        with torch.no_grad():
            ppo.reference.output.weight[4] += 0.4
        parts = [part for parts, _ in ppo.batches(None) for part in parts]
        assert f"ppo/kl_{name}" in parts[0].figures
        # What looks show is k2 whatever the reward takes: never negative.
        assert ppo.looks[0]["kl"]["low"] > 0
        for rollout in (rollout for part in parts for rollout in part.rollouts):
            tokens = TokenBatch.of([rollout.document], toy.model.device)
            with torch.no_grad():
                theirs = token_log_probs(ppo.reference(tokens.tokens, tokens.layout)[0][tokens.trained], tokens.targets[tokens.trained])
            d = rollout.old_log_probs - theirs
            nats = {"k1": d, "k2": d**2 / 2, "k3": (-d).exp() - 1 + d}[name]
            # The critic says 0 and nothing is discounted: a return is the answer's score less the KL of the tokens from there on.
            after = nats.flip(0).cumsum(0).flip(0)
            scores = rollout.returns + 0.5 * after
            assert torch.allclose(scores, scores[-1].expand_as(scores), atol=1e-4)


def test_unfinished_answers_may_be_judged_as_they_stand(toy: Assistant, prompts: list[Prompt]) -> None:
    settings = {"max_new_tokens": 8, "iterations": 1}
    judged = {
        choice: next(source(toy, config(**settings, signal={"unfinished": choice}), prompts).batches(None))[0][0].figures["ppo/unjudged"]
        for choice in ("lowest", "penalty", "score")
    }
    assert judged["lowest"] == judged["penalty"] > judged["score"]


def test_a_policy_that_never_ends_its_answers_stops_the_run(toy: Assistant, prompts: list[Prompt], tmp_path: Path) -> None:
    toy.stop_ids = ()  # type: ignore[assignment]
    before = [weight.clone() for weight in toy.model.parameters()]
    ppo = source(toy, config(iterations=9), prompts, samples=tmp_path / "sampled.jsonl")
    assert run(ppo, tmp_path) == []
    assert ppo.stopped == "no answer of iteration 1 can be judged (8 unfinished), and without a reward there is nothing to learn"
    assert all(map(torch.equal, before, toy.model.parameters()))


def test_the_sampling_gap_stops_before_the_update(toy: Assistant, prompts: list[Prompt], tmp_path: Path) -> None:
    """The sampler's weights are other ones than the trainer's, as with a stale copy of them."""
    answers, weight = toy.answers, toy.model.output.weight

    def stale(*given: Any, **named: Any) -> list[Answer]:
        with torch.no_grad():
            weight.mul_(2.0)
            found = answers(*given, **named)
            weight.div_(2.0)
        return found

    toy.answers = stale  # type: ignore[method-assign]
    ppo = source(toy, config(), prompts)
    with pytest.raises(
        UserError, match=r"^PPO iteration 1: sampler and trainer differ by 0\.\d+ nats per token on average, over .* 0\.1: .*"
    ):
        run(ppo, tmp_path)
    rows = run(source(toy, config(sampling_gap_nats=9.0), prompts), tmp_path)
    assert rows[0]["ppo/sampling_gap"] > rows[0]["ppo/sampling_gap_mean"] > 0.1


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_guard_stops_what_games_the_reward(toy: Assistant, prompts: list[Prompt], tmp_path: Path, sign: float) -> None:
    kept: list[int] = []
    settings = config(iterations=12, batch=32, mini_batch=16, micro_batch=32, check_every=2, guard_tolerance=1.5, beta=0.0)
    ppo = source(toy, settings, prompts * 4, guard=Judge(sign))
    ppo.held_out, ppo.keep = prompts * 4, kept.append
    rows = run(ppo, tmp_path, lr=0.02)
    rewards = [look["reward"] for look in ppo.looks]
    guards = [look["guard"]["value"] for look in ppo.looks]
    assert max(rewards) > rewards[0] + 1.5
    assert [row["ppo/held_out_guard"] for row in rows if "ppo/held_out_guard" in row] == guards[: len(guards) - (ppo.stopped is not None)]
    best = ppo.best
    assert kept[-1] == best["iteration"]
    if sign > 0:
        assert guards == pytest.approx(rewards)
        assert ppo.stopped is None
        assert best["reward"] == max(rewards)
    else:
        assert ppo.stopped is not None
        assert ppo.stopped.startswith("the guard fell from")
        assert best["guard"]["value"] >= max(guards) - 1.5 > guards[-1]


def test_the_critic_may_have_a_rate_of_its_own(toy: Assistant, prompts: list[Prompt], tmp_path: Path) -> None:
    def moved(lr_factor: Callable[[str], float] | None) -> tuple[float, float]:
        ppo = source(toy, config(iterations=1, mini_batch=8, micro_batch=8), prompts)
        before = {name: weight.detach().clone() for name, weight in ppo.model.named_parameters()}
        run(ppo, tmp_path / str(lr_factor is None), lr_factor=lr_factor)
        steps = {name: float((weight.detach() - before[name]).abs().max()) for name, weight in ppo.model.named_parameters()}
        with torch.no_grad():
            for name, weight in ppo.model.named_parameters():
                weight.copy_(before[name])
        return max(step for name, step in steps.items() if not ppo.model.is_critic(name)), steps["critic.score.weight"]

    policy, critic = moved(None)
    again, faster = moved(lambda name: 3.0 if name.startswith("critic.") else 1.0)
    assert again == policy > 0
    assert faster == pytest.approx(3 * critic, rel=1e-3)


def test_chunks_of_sampling_do_not_matter(toy: Assistant, prompts: list[Prompt]) -> None:
    whole, cut = (documents(next(source(toy, config(sampler=given), prompts).batches(None))[0]) for given in ({}, {"together": 3}))
    assert whole == cut


def test_health_of_every_iteration(toy: Assistant, prompts: list[Prompt], tmp_path: Path) -> None:
    rows = run(source(toy, config(iterations=3, check_every=2), prompts), tmp_path)
    assert len(rows) == 6
    for first, last in zip(rows[::2], rows[1::2], strict=True):
        assert {
            "ppo/reward", "ppo/reward_helpfulness", "ppo/reward_safety", "ppo/kl_k1", "ppo/kl_k3", "ppo/clip_fraction", "ppo/entropy",
            "ppo/answer_tokens", "ppo/unfinished", "ppo/unjudged", "ppo/value_loss", "grad_norm", "ppo/sampling_gap", "ppo/sampling_gap_mean",
            "ppo/explained_variance",
        } <= first.keys()  # fmt: skip
        phases = [last[f"ppo/seconds_{name}"] for name in ("sampling", "judging", "log_probs", "update")]
        assert all(seconds > 0 for seconds in phases)
        assert last["ppo/seconds_update"] == pytest.approx(first["seconds"] + last["seconds"])
        tokens = first["trained"] + last["trained"]
        assert last["ppo/tokens_per_s"] == pytest.approx(tokens / sum(phases))
        assert last["ppo/sampled_tokens_per_s"] == pytest.approx(tokens / phases[0])
    assert ["ppo/seconds_look" in row for row in rows] == [False, True, False, False, False, True]
    assert ["ppo/held_out_reward" in row for row in rows] == [True, False, False, False, True, False]


def test_sample_answers_are_logged_and_escaped(toy: Assistant, prompts: list[Prompt], tmp_path: Path) -> None:
    decode = toy.tokenizer.decode
    toy.tokenizer.decode = lambda ids: decode(ids) + "\x1b[2J\u202e\x9b"  # type: ignore[method-assign]
    place = tmp_path / "sampled.jsonl"
    run(source(toy, config(iterations=2, samples=3), prompts, samples=place), tmp_path)
    text = place.read_text(encoding="utf-8")
    assert text.isascii()
    assert "\x1b" not in text
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["step"] for row in rows] == [1, 1, 1, 2, 2, 2]
    for row in rows:
        assert row["messages"][-1]["role"] == "user"
        assert row["answer"].endswith("\x1b[2J\u202e\x9b")
        assert row["reward"] == (len(row["answer"]) if row["finished"] else None)
    scores = [row["score"] for row in rows if row["reward"] is not None]
    assert all(math.isfinite(score) for score in scores)


def test_a_taken_up_log_of_samples_drops_what_comes_again(toy: Assistant, prompts: list[Prompt], tmp_path: Path) -> None:
    place = tmp_path / "sampled.jsonl"
    ppo = source(toy, config(iterations=3, samples=1), prompts, samples=place)
    positions = [position for _, position in ppo.batches(None)]
    whole = place.read_text()
    list(ppo.batches(positions[1]))
    assert place.read_text() == whole
