import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from llamaherd.assistant.local import Answer, Assistant
from llamaherd.losses.sums import whiten
from llamaherd.model.transformer import scorer_from
from llamaherd.rlhf import rollouts
from llamaherd.rlhf.config import PpoConfig
from llamaherd.rlhf.rollouts import answer_log_probs, answer_values, document_of, experience
from llamaherd.train.batches import TokenBatch

MakeAnswer = Callable[..., Answer]


def config(**values: Any) -> PpoConfig:
    return PpoConfig.model_validate({"batch": 2, "mini_batch": 2, "beta": 0.1, "lam": 1.0, "max_new_tokens": 8} | values)


OLD = [torch.tensor([-1.0, -2.0, -1.0]), torch.tensor([-1.0, -1.0, -3.0])]
REFERENCE = [torch.tensor([-1.0, -1.0, -2.0]), torch.tensor([-2.0, -1.0, -3.0])]
VALUES = [torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.0, 0.0, 0.0])]


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch, answer: MakeAnswer) -> Callable[..., rollouts.Experience]:
    """Experience of two answers of three tokens, with what policy, reference and critic say written above."""

    def log_probs(model: Any, documents: Sequence[Any], micro_batch: int, temperature: float = 1.0) -> list[Tensor]:
        return {"policy": OLD, "reference": REFERENCE}[model.name]

    monkeypatch.setattr(rollouts, "answer_log_probs", log_probs)
    monkeypatch.setattr(rollouts, "answer_values", lambda *_: VALUES)
    policy, reference = (SimpleNamespace(name=name, device=torch.device("cpu")) for name in ("policy", "reference"))

    def run(logits: Sequence[float | None], **values: Any) -> rollouts.Experience:
        answers = [answer("ab", ids=[4, 5, 2]), answer("abc", ids=[4, 5, 6], finished=False)]
        return experience(answers, logits, policy, reference, None, config(**values))  # type: ignore[arg-type]

    return run


def test_hand_worked_experience(by_hand: Callable[..., rollouts.Experience]) -> None:
    """Whitened rewards 1 and -1; log ratios (0, -1, 1) and (1, 0, 0), so rewards (0, .1, .9) and (-.1, 0, -1)."""
    done = by_hand([3.0, 1.0])
    first, second = done.rollouts
    assert first.returns.tolist() == pytest.approx([1.0, 1.0, 0.9])
    assert second.returns.tolist() == pytest.approx([-1.1, -1.0, -1.0])
    raw = torch.tensor([0.5, 0.5, 0.4, -1.1, -1.0, -1.0])
    assert torch.allclose(torch.cat([first.advantages, second.advantages]), (raw - raw.mean()) / raw.std(correction=0), atol=1e-4)
    assert first.old_log_probs.equal(OLD[0])
    assert second.old_values.equal(VALUES[1])
    assert done.figures["ppo/reward"] == 2.0
    assert done.figures["ppo/kl_k1"] == 0.5
    assert done.figures["ppo/kl_k3"] == pytest.approx(((math.e - 2) + 2 * math.exp(-1)) / 2)
    assert (done.figures["ppo/answer_tokens"], done.figures["ppo/unfinished"]) == (3.0, 0.5)
    assert done.figures["ppo/sampling_gap"] == 2.0  # the engine said -1 throughout


def test_gamma_and_lambda_discount(by_hand: Callable[..., rollouts.Experience]) -> None:
    """Row 0: deltas (-.25, -.15, .4) with gamma .5; lambda 0 leaves advantages equal to deltas."""
    returns = by_hand([3.0, 1.0], gamma=0.5, lam=0.0).rollouts[0].returns
    assert returns.tolist() == pytest.approx([0.25, 0.35, 0.9])


def test_without_any_usable_answer_only_the_kl_term_acts(by_hand: Callable[..., rollouts.Experience]) -> None:
    done = by_hand([None, None])
    assert math.isnan(done.figures["ppo/reward"])
    assert done.rollouts[0].returns.tolist() == pytest.approx([0.0, 0.0, -0.1], abs=1e-6)
    assert done.rollouts[1].returns.tolist() == pytest.approx([-0.1, 0.0, 0.0], abs=1e-6)


def test_beta_zero_has_no_kl_term(by_hand: Callable[..., rollouts.Experience]) -> None:
    assert by_hand([3.0, 1.0], beta=0.0).rollouts[0].returns.tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-4)


def test_every_action_is_trained_the_first_and_the_end_included(answer: MakeAnswer) -> None:
    documents = [document_of(answer("ab", [1, 3], [4, 5, 2])), document_of(answer("a", [1, 3, 3], [4], finished=False))]
    assert documents == [([1, 3, 4, 5, 2], [0, 0, 1, 1, 1]), ([1, 3, 3, 4], [0, 0, 0, 1])]
    batch = TokenBatch.of(documents, torch.device("cpu"))
    assert batch.targets[batch.trained].tolist() == [4, 5, 2, 4]


def test_log_probs_and_values_of_the_right_tokens(toy: Assistant, answer: MakeAnswer) -> None:
    critic = scorer_from(toy.model)
    critic.score.weight.data.normal_()
    documents = [document_of(answer("ab", [1, 3], [4, 5, 2])), document_of(answer("a", [1, 3, 3], [4]))]
    found, values = answer_log_probs(toy.model, documents, 1), answer_values(critic, documents, 1)
    for (ids, mask), log_probs, value in zip(documents, found, values, strict=True):
        start = mask.index(1)
        tokens = torch.tensor([ids])
        expected = toy.model(tokens)[0].log_softmax(-1)
        assert log_probs.tolist() == pytest.approx([expected[t - 1, ids[t]].item() for t in range(start, len(ids))], abs=1e-5)
        states = critic.hidden(tokens)[0] @ critic.score.weight[0]
        assert value.tolist() == pytest.approx(states[start - 1 : -1].tolist(), abs=1e-5)
    for both in zip(found + values, answer_log_probs(toy.model, documents, 2) + answer_values(critic, documents, 2), strict=True):
        assert torch.allclose(*both, atol=1e-5)


def test_advantages_are_whitened_over_all_tokens(toy: Assistant, answer: MakeAnswer) -> None:
    critic = scorer_from(toy.model)
    answers = [answer("ab", ids=[4, 5, 2]), answer("a", ids=[4, 2]), answer("abc", ids=[4, 5, 6, 2])]
    done = experience(answers, [1.0, -1.0, 0.5], toy.model, toy.model, critic, config())
    joined = torch.cat([rollout.advantages for rollout in done.rollouts])
    assert float(joined.mean()) == pytest.approx(0, abs=1e-5)
    assert float(joined.var(correction=0)) == pytest.approx(1, abs=1e-3)
    assert all(len(rollout.advantages) == len(answer.completion.ids) for rollout, answer in zip(done.rollouts, answers, strict=True))
    # The critic starts at zero and the policy at the reference: the return of every token is its answer's whitened reward.
    scores = whiten(torch.tensor([1.0, -1.0, 0.5]))
    for rollout, score in zip(done.rollouts, scores, strict=True):
        assert rollout.returns.tolist() == pytest.approx([float(score)] * len(rollout.returns), abs=1e-5)
    assert not any(value.is_inference() for rollout in done.rollouts for value in (rollout.old_values, rollout.old_log_probs))
