"""Perplexity: exp of the mean nats per token, on a text cut into windows that do not see each other.

A window begins with the beginning-of-sequence id, and every token of the text is predicted once, from those before it in its
window. Figures of other windows, tokenizers or texts cannot be compared with it.
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import UserError
from ..losses.language import token_log_probs
from ..model.transformer import Transformer
from ..tokenizer.sentencepiece import Tokenizer

WINDOW_TOKENS = 512


@dataclass(frozen=True)
class Reading:
    """What a model made of a text."""

    nats: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp of nats per token."""
        return math.exp(min(self.nats / self.tokens, 700.0))  # what a float holds


def read_text(file: Path) -> str:
    """A text file, plain or gzip. Raises UserError that names it."""
    if not file.is_file():
        raise UserError(f"{file}: no such file; expected a text (.txt or .txt.gz)")
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        text = content.decode("utf-8")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot be read: {error}; expected a text, plain or gzip") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 ({error.reason} at byte {error.start}); expected a text") from None
    if not text.strip():
        raise UserError(f"{file}: holds no text to measure on; give another")
    return text


def windows(ids: Sequence[int], bos_id: int, window: int) -> list[Tensor]:
    """[window + 1] ids each (the last one fewer): the beginning, then the next ids of the text. All but the last are read, all but the
    first predicted.
    """
    return [torch.tensor([bos_id, *ids[start : start + window]]) for start in range(0, len(ids), window)]


@torch.inference_mode()
def perplexity(model: Transformer, tokenizer: Tokenizer, text: str, window: int = WINDOW_TOKENS, tokens: int | None = None) -> Reading:
    """How a model predicts the first `tokens` of a text (None: all), in windows of at most the model's context."""
    ids = tokenizer.encode(text)[:tokens]
    nats = 0.0
    for part in windows(ids, tokenizer.bos_id, min(window, model.config.context)):
        part = part.to(model.device)
        nats += nats_of(model(part[None, :-1])[0], part[1:])
    return Reading(nats, len(ids))


def nats_of(logits: Tensor, targets: Tensor) -> float:
    """Of logits [T, V] and ids [T]: the sum of -log p(target)."""
    return -float(token_log_probs(logits.float(), targets).double().sum())


@dataclass
class Drift:
    """How far the predictions of one model are from another's, over all tokens of all windows."""

    tokens: int = 0
    before: float = 0.0
    """Nats of the first model."""
    after: float = 0.0
    """Nats of the second."""
    kl: float = 0.0
    """Sum over tokens of KL(first || second)."""
    squares: float = 0.0
    """Sum over tokens of the mean over the vocabulary of squared differences of log-probabilities."""
    same_choice: int = 0
    """Tokens at which both find the same id most likely."""

    @property
    def first(self) -> Reading:
        return Reading(self.before, self.tokens)

    @property
    def second(self) -> Reading:
        return Reading(self.after, self.tokens)

    def add(self, first: Tensor, second: Tensor, targets: Tensor) -> None:
        """Logits [T, V] of both."""
        one, other = first.log_softmax(-1), second.log_softmax(-1)
        self.tokens += len(targets)
        self.before += nats_of(first, targets)
        self.after += nats_of(second, targets)
        self.kl += float((one.exp() * (one - other)).sum(-1).double().sum())
        self.squares += float((one - other).square().mean(-1).double().sum())
        self.same_choice += int((one.argmax(-1) == other.argmax(-1)).sum())
