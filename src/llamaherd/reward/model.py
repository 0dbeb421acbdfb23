"""Reward models (paper.md section 5): dialogues in, one score each out. Text crosses the boundary, so tokenizers may differ."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ..chat.dialogue import Dialogue, parse_dialogue
from ..chat.template import encode_dialogue
from ..checkpoints.huggingface import load_scorer
from ..core.artifacts import model_path
from ..core.device import best_device
from ..core.errors import UserError, one_line
from ..measures.calibration import sigmoid
from ..model.layout import Layout
from ..model.transformer import Scorer
from ..tokenizer.sentencepiece import Tokenizer

Messages = Sequence[Mapping[str, str]]
"""A dialogue as plain messages, `[{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]`."""


class RewardModel:
    """A scalar head on a chat model. The score stands at a dialogue's last token, found by its length and never by its id."""

    def __init__(self, scorer: Scorer, tokenizer: Tokenizer, name: str = "the reward model"):
        self.scorer, self.tokenizer, self.name = scorer, tokenizer, name

    @classmethod
    def load(cls, spec: str | Path) -> "RewardModel":
        """From a folder, RUN:NAME, or the folder of a reward model that was trained as an adapter. Raises UserError."""
        path = model_path(spec)
        return cls(*load_scorer(path, best_device()), str(path))

    def scores(self, dialogues: Sequence[Dialogue | Messages], batch_tokens: int = 8192) -> list[float]:
        """How good the last answer of each dialogue is, 0 to 1: the sigmoid of its logit. Raises UserError as `logits` does."""
        return [sigmoid(logit) for logit in self.logits(dialogues, batch_tokens)]

    def ids(self, dialogue: Dialogue, where: str = "a dialogue") -> list[int]:
        """Ids of a finished dialogue: the same function for training, scoring and PPO. Raises UserError when it exceeds the context."""
        ids = encode_dialogue(dialogue, self.tokenizer).ids
        context = self.scorer.config.context
        if len(ids) > context:
            raise UserError(f"{where}: {len(ids)} tokens, and the reward model's context is {context}; leave out earlier turns")
        return ids

    def fits(self, dialogue: Dialogue) -> bool:
        """Whether a finished dialogue is no longer than the context."""
        return len(encode_dialogue(dialogue, self.tokenizer).ids) <= self.scorer.config.context

    @torch.inference_mode()
    def logits(
        self, dialogues: Sequence[Dialogue | Messages], batch_tokens: int = 8192, names: Sequence[str] = (),
        turn: AbstractContextManager[Any] | None = None,
    ) -> list[float]:  # fmt: skip
        """The score of each dialogue that ends with an assistant, before the sigmoid; the same whatever shares its batch.

        `names` say in errors which dialogue is meant (default: its number and the last question). `turn` is
        entered for every batch: a lock, where others use the same processor. Raises UserError for a dialogue that breaks a rule or exceeds
        the context, before any is scored, and for a score that is not a finite number.
        """
        numbers = [f"dialogue {number}" for number in range(1, len(dialogues) + 1)]
        parsed = [_parsed(dialogue, name) for dialogue, name in zip(dialogues, names or numbers, strict=True)]
        names = names or [f"{number} ({one_line(one.prompt.asked, 80)!r})" for number, one in zip(numbers, parsed, strict=True)]
        encoded = [self.ids(dialogue, name) for dialogue, name in zip(parsed, names, strict=True)]
        scores: list[float] = []
        start = 0
        while start < len(encoded):
            end, tokens = start, 0
            while end < len(encoded) and (end == start or tokens + len(encoded[end]) <= batch_tokens):
                tokens += len(encoded[end])
                end += 1
            with turn or nullcontext():
                scores += self._score(encoded[start:end])
            start = end
        for score, name in zip(scores, names, strict=True):
            if not math.isfinite(score):
                raise UserError(
                    f"{name}: {self.name} scores it {score}, which is no finite number; its weights overflow or are damaged, train it anew"
                )
        return scores

    def _score(self, batch: Sequence[Sequence[int]]) -> list[float]:
        layout = Layout.of([len(ids) for ids in batch], self.scorer.device)
        tokens = torch.tensor([[token for ids in batch for token in ids]], device=self.scorer.device)
        found: list[float] = self.scorer(tokens, layout, layout.ends).float().tolist()
        return found


def _parsed(dialogue: Dialogue | Messages, where: str) -> Dialogue:
    return dialogue if isinstance(dialogue, Dialogue) else parse_dialogue({"messages": list(dialogue)}, where, ends_with="assistant")
