"""Which sampled answers may become data or earn a reward, and what the reward models say of those."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..assistant.local import Answer
from ..chat.dialogue import Dialogue
from ..data.records import Prompt
from ..reward.combine import Combination, Rewards, Scores
from ..reward.model import RewardModel

T = TypeVar("T")


def why_unusable(answer: Answer) -> str | None:
    """What keeps a sampled answer out of the data - "tag", "empty", "unfinished" - or None."""
    if answer.tag:
        return "tag"
    if not answer.usable:
        return "empty"
    return None if answer.completion.finished else "unfinished"


def combined_logits(
    rewards: Combination, prompts: Sequence[Prompt], answers: Sequence[Answer], unfinished: bool = False
) -> list[float | None]:
    """The combined logit of each answer; None where it is unusable or, rendered, exceeds a reward model's context.

    With `unfinished`, answers that were cut are judged as they stand. Raises UserError for a logit that is no number.
    """
    return _judged(prompts, answers, rewards.fits, rewards.logits, unfinished)


def scores_of(rewards: Rewards, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[Scores | None]:
    """All logits of each answer, with None and errors as above."""
    return _judged(prompts, answers, rewards.fits, rewards.scores)


def logits_of(model: RewardModel, prompts: Sequence[Prompt], answers: Sequence[Answer], unfinished: bool = False) -> list[float | None]:
    """One reward model's logits, with None and errors as above."""

    def whole(prompt: Prompt, answer: str) -> Dialogue:
        return prompt.dialogue.followed_by("assistant", answer)

    def logits(asked: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        return model.logits([whole(prompt, text) for prompt, text in zip(asked, texts, strict=True)])

    return _judged(prompts, answers, lambda prompt, text: model.fits(whole(prompt, text)), logits, unfinished)


def why_unjudged(answers: Sequence[Answer], logits: Sequence[float | None]) -> Counter[str]:
    """How many answers have no logit, by reason."""
    pairs = zip(answers, logits, strict=True)
    return Counter(why_unusable(answer) or "beyond a reward model's context" for answer, logit in pairs if logit is None)


def _judged(
    prompts: Sequence[Prompt], answers: Sequence[Answer], fits: Callable[[Prompt, str], bool],
    judge: Callable[[Sequence[Prompt], Sequence[str]], list[T]], unfinished: bool = False,
) -> list[T | None]:  # fmt: skip
    fine = (None, "unfinished") if unfinished else (None,)
    counts = [why_unusable(answer) in fine and fits(prompt, answer.text) for prompt, answer in zip(prompts, answers, strict=True)]
    judged = [(prompt, answer.text) for prompt, answer, count in zip(prompts, answers, counts, strict=True) if count]
    found = iter(judge([prompt for prompt, _ in judged], [text for _, text in judged]))
    return [next(found) if count else None for count in counts]
