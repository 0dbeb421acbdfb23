"""Context distillation for safety (paper.md section 9): answer under a safety preprompt, train on the answer without it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..assistant.local import Answer, Assistant
from ..chat.dialogue import Dialogue
from ..core.seeds import seed_for
from ..data.records import Prompt
from ..generate.config import SamplingConfig
from ..reward.model import RewardModel
from .judging import logits_of


@dataclass(frozen=True)
class Distilled:
    """One adversarial prompt: the answer without and with the preprompt, and which of them became the target."""

    prompt: Prompt
    original: str
    distilled: str | None
    original_logit: float
    distilled_logit: float | None

    @property
    def replaced(self) -> bool:
        """The safety reward model decides: where it does not prefer the new answer, the original stays the target."""
        return self.distilled_logit is not None and self.distilled_logit > self.original_logit

    @property
    def target(self) -> str:
        return self.distilled if self.replaced and self.distilled is not None else self.original

    def dialogue(self) -> Dialogue:
        """The tuning example, without the preprompt; only the target carries loss."""
        return self._trained_on(self.target)

    def dialogue_without_choice(self) -> Dialogue:
        """The tuning example if nobody chose: the new answer wherever there is one."""
        return self._trained_on(self.original if self.distilled is None else self.distilled)

    def _trained_on(self, answer: str) -> Dialogue:
        return Dialogue(self.prompt.dialogue.followed_by("assistant", answer).messages, trained="last")


def distil(
    assistant: Assistant,
    safety: RewardModel,
    prompts: Sequence[Prompt],
    preprompts: Sequence[str],
    sampling: SamplingConfig,
    seed: int,
    first: int = 0,
) -> tuple[list[Distilled], int]:
    """Distils prompts tagged as unsafe with their preprompts; others must not come here. Also returns how many were left out.

    Left out are prompts whose original answer may not become data (empty, unfinished, with a tag).
    """
    assert all(prompt.safety for prompt in prompts), "only adversarial prompts get the preprompt"
    plain = answers_to(assistant, [prompt.dialogue for prompt in prompts], sampling, seed, "original", first)
    under = [prompt.dialogue.with_system(text) for prompt, text in zip(prompts, preprompts, strict=True)]
    guided = answers_to(assistant, under, sampling, seed, "distilled", first)
    # Both answers are judged as answers to the prompt without the preprompt: that is what is trained.
    old_logits, new_logits = (logits_of(safety, prompts, answers) for answers in (plain, guided))
    found = [
        Distilled(prompt, old.text, None if new_logit is None else new.text, old_logit, new_logit)
        for prompt, old, new, old_logit, new_logit in zip(prompts, plain, guided, old_logits, new_logits, strict=True)
        if old_logit is not None
    ]
    return found, len(prompts) - len(found)


def answers_to(
    assistant: Assistant, dialogues: Sequence[Dialogue], sampling: SamplingConfig, seed: int, name: str, first: int = 0
) -> list[Answer]:
    """Answers with seeds by name and by index in the whole list."""
    return assistant.answers(dialogues, sampling, [seed_for(seed, name, first + index) for index in range(len(dialogues))])
