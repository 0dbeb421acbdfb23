"""Reward models (paper.md section 5): dialogues in, one logit each out. Text crosses the boundary, so tokenizers may differ."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..chat.dialogue import Dialogue
from ..chat.template import encode_dialogue
from ..checkpoints.huggingface import load_scorer
from ..core.artifacts import model_path
from ..core.device import best_device
from ..core.errors import UserError
from ..model.layout import Layout
from ..model.transformer import Scorer
from ..tokenizer.sentencepiece import Tokenizer


class RewardModel:
    """A scalar head on a chat model. The score stands at a dialogue's last token, found by its length and never by its id."""

    def __init__(self, scorer: Scorer, tokenizer: Tokenizer):
        self.scorer, self.tokenizer = scorer, tokenizer

    @classmethod
    def load(cls, spec: str | Path) -> "RewardModel":
        """From a folder or RUN:NAME. Raises UserError."""
        return cls(*load_scorer(model_path(spec), best_device()))

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
    def logits(self, dialogues: Sequence[Dialogue], batch_tokens: int = 8192) -> list[float]:
        """The score of each dialogue that ends with an assistant, before the sigmoid; the same whatever shares its batch."""
        encoded = [self.ids(dialogue) for dialogue in dialogues]
        scores: list[float] = []
        start = 0
        while start < len(encoded):
            end, tokens = start, 0
            while end < len(encoded) and (end == start or tokens + len(encoded[end]) <= batch_tokens):
                tokens += len(encoded[end])
                end += 1
            scores += self._score(encoded[start:end])
            start = end
        return scores

    def _score(self, batch: Sequence[Sequence[int]]) -> list[float]:
        layout = Layout.of([len(ids) for ids in batch], self.scorer.device)
        tokens = torch.tensor([[token for ids in batch for token in ids]], device=self.scorer.device)
        found: list[float] = self.scorer(tokens, layout, layout.ends).float().tolist()
        return found
