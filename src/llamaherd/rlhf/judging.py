"""Which sampled answers may become data or earn a reward, and what the reward models say of those."""

from collections.abc import Callable, Sequence

from ..assistant.local import Answer
from ..chat.dialogue import Dialogue
from ..data.records import Prompt
from ..reward.combine import Combination
from ..reward.model import RewardModel


def why_unusable(answer: Answer) -> str | None:
    """What keeps a sampled answer out of the data - "tag", "empty", "unfinished" - or None."""
    if answer.tag:
        return "tag"
    if not answer.usable:
        return "empty"
    return None if answer.completion.finished else "unfinished"


def combined_logits(rewards: Combination, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[float | None]:
    """The combined logit of each answer; None where it is unusable or, rendered, exceeds a reward model's context."""
    return _judged(prompts, answers, rewards.fits, rewards.logits)


def safety_logits(safety: RewardModel, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[float | None]:
    """The safety logit of each answer, with None as above."""

    def whole(prompt: Prompt, answer: str) -> Dialogue:
        return prompt.dialogue.followed_by("assistant", answer)

    return _judged(
        prompts, answers, lambda prompt, text: safety.fits(whole(prompt, text)),
        lambda asked, texts: safety.logits([whole(prompt, text) for prompt, text in zip(asked, texts, strict=True)]),
    )  # fmt: skip


def _judged(
    prompts: Sequence[Prompt], answers: Sequence[Answer], fits: Callable[[Prompt, str], bool],
    logits: Callable[[Sequence[Prompt], Sequence[str]], list[float]],
) -> list[float | None]:  # fmt: skip
    counts = [why_unusable(answer) is None and fits(prompt, answer.text) for prompt, answer in zip(prompts, answers, strict=True)]
    judged = [(prompt, answer.text) for prompt, answer, count in zip(prompts, answers, counts, strict=True) if count]
    found = iter(logits([prompt for prompt, _ in judged], [text for _, text in judged]))
    return [next(found) if count else None for count in counts]
